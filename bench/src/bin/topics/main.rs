//! Topics measured beside nats-server and npm's `ws`: one publisher, many subscribers over WebSocket.
//! See bench/README.md, "Topics".

mod foreign;
mod load;
mod node;
mod socket;
mod speak;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(
    name = "topics",
    about = "Measures topics beside other servers of the same kind"
)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One publisher, many subscribers of one topic: deliveries a second, or latency at a rate
    Fanout(Fanout),
    /// The server of a run, on a core of its own
    #[command(hide = true)]
    Node,
    /// The clients of a run, on a core of their own
    #[command(hide = true)]
    Load { job: String },
}

#[derive(Clone, Debug, clap::Args)]
struct Fanout {
    /// The servers, in the order in which they run in each round
    #[arg(long, value_delimiter = ',', default_value = "unstall,nats,ws")]
    only: Vec<Contestant>,
    /// How many subscribers
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// How many messages a subscriber gets; a tenth for `ws`, which is slower
    #[arg(long, default_value_t = 5000)]
    messages: u64,
    /// Messages a second, one at a time; 0: as fast as it goes
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How often each server runs
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The program nats-server, as `.ci/nats-server` installs it
    #[arg(long, default_value = "target/nats-server/nats-server")]
    nats_server: PathBuf,
    /// The folder in which `npm install ws` was run
    #[arg(long, default_value = "target/npm-ws")]
    npm: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Contestant {
    Unstall,
    Nats,
    Ws,
}

/// What the process with the clients has to do.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    contestant: Contestant,
    address: String,
    subscribers: usize,
    messages: u64,
    rate: u64,
}

/// What it found.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    deliveries_per_second: f64,
    /// In microseconds.
    p50: u64,
    p99: u64,
}

/// The bytes of a message.
const BYTES: usize = 200;

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Fanout(args) => fanout(&args),
        What::Node => node::run(),
        What::Load { job } => load::run(&job),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("topics: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fanout(args: &Fanout) -> Result<()> {
    let mut reports: Vec<Vec<Report>> = args.only.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds {
        for (contestant, reports) in args.only.iter().zip(&mut reports) {
            let report = once(args, *contestant)?;
            eprintln!("round {}: {contestant:?} {report:?}", round + 1);
            reports.push(report);
        }
    }
    println!("| server | deliveries a second | latency p50, µs | p99, µs |");
    println!("| --- | --- | --- | --- |");
    for (contestant, mut reports) in args.only.iter().zip(reports) {
        let mut median = |of: fn(&Report) -> f64| {
            reports.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&reports[reports.len() / 2])
        };
        println!(
            "| {contestant:?} | {:.0} | {:.0} | {:.0} |",
            median(|it| it.deliveries_per_second),
            median(|it| it.p50 as f64),
            median(|it| it.p99 as f64),
        );
    }
    Ok(())
}

/// One server with its clients.
fn once(args: &Fanout, contestant: Contestant) -> Result<Report> {
    let (server, address) = match contestant {
        Contestant::Unstall => own_node()?,
        Contestant::Nats => foreign::nats(&args.nats_server)?,
        Contestant::Ws => foreign::ws(&args.npm)?,
    };
    let _server = Running(server);
    let slow = contestant == Contestant::Ws && args.rate == 0;
    let job = Job {
        contestant,
        address,
        subscribers: args.subscribers,
        messages: if slow {
            args.messages.div_ceil(10)
        } else {
            args.messages
        },
        rate: args.rate,
    };
    let output = Command::new(std::env::current_exe()?)
        .arg("load")
        .arg(serde_json::to_string(&job)?)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the clients of {contestant:?} failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn own_node() -> Result<(Child, String)> {
    let mut server = Command::new(std::env::current_exe()?)
        .arg("node")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = server.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((server, line.trim().to_owned()))
}

/// A server that is killed when the run is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Binds this process to a core, where the system allows it.
fn pin(core: usize) {
    use nix::{
        sched::{CpuSet, sched_setaffinity},
        unistd::Pid,
    };
    let mut set = CpuSet::new();
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}
