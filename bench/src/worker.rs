//! One of the two processes of a run: server or client.

use std::{
    io::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, task::LocalSet, time::timeout};

use crate::{
    Result,
    contestants::{self, Visit},
    engine::Engine,
    job::{Job, Line, Report, Role, Runtime},
    pin, tcp,
    workloads::{self, Workload},
};

/// Does the job that `json` describes, and writes the report to the standard output.
pub(crate) fn run(json: &str) -> Result<()> {
    let job: Job = serde_json::from_str(json)?;
    tcp::set_congestion(&job.congestion);
    let (pinned, mut builder) = match job.runtime {
        Runtime::Pinned => (pin::pin(job.core), Builder::new_current_thread()),
        Runtime::Default => (None, Builder::new_multi_thread()),
    };
    #[cfg(feature = "scrape")]
    scrape()?;
    let runtime = builder.enable_all().build()?;
    let began = Instant::now();
    let work = async { timeout(job.limit, workloads::work(&job)).await };
    let report = LocalSet::new().block_on(&runtime, work);
    let report = report.map_err(|_| format!("not done within {:?}", began.elapsed()))??;
    say(&Line::Report(Report { pinned, ..report }))?;
    // Does not wait for background tasks of the engines.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

/// Renders the figures each second, on the core of the worker.
#[cfg(feature = "scrape")]
fn scrape() -> Result<()> {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
    unstall::metrics::describe();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            unstall::metrics::update();
            std::hint::black_box(recorder.render());
        }
    });
    Ok(())
}

fn say(line: &Line) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(line)?)?;
    Ok(stdout.flush()?)
}

/// Plays the job's role in `W`.
pub(crate) async fn play<W: Workload>(job: &Job) -> Result<Report> {
    let plan: W::Plan = serde_json::from_value(job.plan.clone())?;
    let name = &job.contestant;
    match (job.role.clone(), W::tls(&plan)) {
        (Role::Server, false) => W::visit(name, Serve::<W>(plan)).await,
        (Role::Server, true) => contestants::with_tls(name, Serve::<W>(plan)).await,
        (Role::Client { server }, false) => W::visit(name, Connect::<W>(plan, server)).await,
        (Role::Client { server }, true) => {
            contestants::with_tls(name, Connect::<W>(plan, server)).await
        }
    }
}

struct Serve<W: Workload>(W::Plan);

impl<W: Workload> Visit for Serve<W> {
    type Done = Report;

    async fn visit<E: Engine>(self) -> Result<Report> {
        let listener = tcp::listen()?;
        let address = listener.local_addr()?;
        let server = E::bind(listener).await?;
        say(&Line::Listening(address))?;
        W::server::<E>(self.0, server).await
    }
}

struct Connect<W: Workload>(W::Plan, SocketAddr);

impl<W: Workload> Visit for Connect<W> {
    type Done = Report;

    async fn visit<E: Engine>(self) -> Result<Report> {
        W::client::<E>(self.0, self.1).await
    }
}
