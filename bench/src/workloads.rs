//! The workloads, one file each.

mod accepting;
mod catch_up;
mod compressed;
mod duplex;
mod echo;
mod fanout;
mod growth;
mod idle;
mod loaded;
mod many;
mod natural;
mod recovery;
mod slow;
mod stamps;
mod stream;
mod transfer;
mod up;
mod words;

use std::{collections::BTreeSet, net::SocketAddr};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Result,
    args::Measure,
    contestants::{self, Contestant, REFERENCE, Visit, python},
    engine::Engine,
    job::{Job, Outcome, Report, Runtime},
    json,
    machine::{self, Machine},
    round::{self, Case},
    table::{self, Column},
    tcp, worker,
};

/// A workload. The parent makes plans and tables, and each worker plays one role.
#[allow(async_fn_in_trait)]
pub(crate) trait Workload {
    const NAME: &'static str;
    /// What happens, and what the figures are.
    const ABOUT: &'static str;
    /// What the figures do not show.
    const NOT_SHOWN: &'static str;
    /// The contestant to which others are compared.
    const REFERENCE: &'static str = REFERENCE;
    const COLUMNS: &'static [Column];
    /// What each process's tasks run on.
    const RUNTIME: Runtime = Runtime::Pinned;
    /// What the workers must know.
    type Plan: Serialize + DeserializeOwned + Clone;

    /// The titles and plans of the cases, with tiny counts: for a smoke run and for calibration.
    fn cases(args: &Measure) -> Vec<(String, Self::Plan)>;

    /// The columns of a case, where they differ from case to case.
    fn columns(_plan: &Self::Plan) -> &'static [Column] {
        Self::COLUMNS
    }

    /// Those from whom [`takes_part`](Self::takes_part) chooses.
    fn contestants() -> &'static [Contestant] {
        contestants::ALL
    }

    /// Lets one of [`contestants`](Self::contestants) be visited.
    async fn visit<V: Visit>(contestant: &str, visit: V) -> Result<V::Done> {
        contestants::with(contestant, visit).await
    }

    fn takes_part(_contestant: &Contestant) -> bool {
        true
    }

    /// The plan with counts that let the reference run for about so many seconds, given its outcome for
    /// `plan`.
    fn calibrated(plan: Self::Plan, _reference: &Outcome, _seconds: f64) -> Self::Plan {
        plan
    }

    /// The plan for one contestant, if it has to differ.
    fn plan_for(plan: Self::Plan, _contestant: &Contestant) -> Self::Plan {
        plan
    }

    /// The cores of server and client.
    fn cores(_plan: &Self::Plan) -> [usize; 2] {
        [0, 1]
    }

    /// Whether the connections are TLS.
    fn tls(_plan: &Self::Plan) -> bool {
        false
    }

    async fn server<E: Engine>(plan: Self::Plan, server: E::Server) -> Result<Report>;
    async fn client<E: Engine>(plan: Self::Plan, server: SocketAddr) -> Result<Report>;
}

macro_rules! workloads {
    ($($workload:ty,)*) => {
        pub(crate) fn names() -> impl Iterator<Item = &'static str> {
            [$(<$workload>::NAME),*].into_iter()
        }

        /// The worker's side: does its job.
        pub(crate) async fn work(job: &Job) -> Result<Report> {
            $(if job.workload == <$workload>::NAME {
                return worker::play::<$workload>(job).await;
            })*
            Err(format!("no workload is called {}", job.workload).into())
        }

        /// The parent's side: measures what was asked for and prints it.
        pub(crate) fn measure(args: &Measure) -> Result<()> {
            let mut run = Run::new(args)?;
            $(run.workload::<$workload>()?;)*
            run.finish()
        }
    };
}

workloads![
    natural::Natural,
    stream::Stream,
    up::Up,
    compressed::Compressed,
    compressed::CompressedHeld,
    duplex::Duplex,
    echo::Echo,
    loaded::Loaded,
    idle::Idle,
    slow::Slow,
    fanout::FanOut,
    growth::Growth,
    recovery::Recovery,
    catch_up::CatchUp,
];

struct Run<'a> {
    args: &'a Measure,
    machine: Machine,
    cases: Vec<Case>,
    settings: BTreeSet<String>,
    introduced: BTreeSet<&'static str>,
}

impl Run<'_> {
    fn new(args: &Measure) -> Result<Run<'_>> {
        tcp::check_congestion(&args.congestion)?;
        let compressed = |name: &String| name == "all" || name.starts_with("compressed");
        if args.workloads.iter().any(compressed) && args.wants(python::NAME) {
            python::prepare();
        }
        let machine = Machine::prepare(&args.congestion);
        println!("{}", machine.line());
        Ok(Run {
            args,
            machine,
            cases: Vec::new(),
            settings: BTreeSet::new(),
            introduced: BTreeSet::new(),
        })
    }

    /// Says how those are used that were not met before.
    fn introduce(&mut self, contestants: &[Contestant], reference: &str) {
        let wanted = |it: &&Contestant| self.args.wants(it.name) || it.name == reference;
        println!();
        for contestant in contestants.iter().filter(wanted) {
            if self.introduced.insert(contestant.how) {
                println!("{}: {}", contestant.name, contestant.how);
            }
        }
    }

    fn workload<W: Workload>(&mut self) -> Result<()> {
        let mut wanted = self.args.workloads.iter();
        if !wanted.any(|name| name == "all" || name == W::NAME) {
            return Ok(());
        }
        self.introduce(W::contestants(), W::REFERENCE);
        println!(
            "\n{}: {}\n  does not show: {}",
            W::NAME,
            W::ABOUT,
            W::NOT_SHOWN
        );
        for (title, plan) in W::cases(self.args) {
            let columns = W::columns(&plan);
            let case = round::run::<W>(self.args, title, plan)?;
            println!("\n{}, {}", W::NAME, case.title);
            print!("{}", table::render(&case, columns));
            let runs = case.entries.iter().flat_map(|entry| &entry.runs);
            self.settings.extend(runs.map(machine::setting));
            self.cases.push(case);
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        println!("\nset: {}", Vec::from_iter(self.settings).join("; "));
        if let Some(path) = &self.args.json {
            json::write(path, &self.machine, &self.cases)?;
        }
        match self.cases.iter().any(Case::failed) {
            true => Err("some runs failed".into()),
            false => Ok(()),
        }
    }
}
