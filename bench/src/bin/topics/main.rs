//! Topics measured, beside nats-server and npm's `ws` where those do the same. See bench/README.md,
//! "Topics".

mod client;
#[path = "../../congestion.rs"]
mod congestion;
mod foreign;
#[path = "../../goals.rs"]
mod goals;
mod harness;
#[path = "../../limits.rs"]
mod limits;
#[path = "../../namespace.rs"]
mod namespace;
mod node;
mod socket;
mod speak;
mod workloads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "jetstream")]
use workloads::jetstream;
use workloads::{catch_up, durable, failover, fanout, filter, idle, publish, retention, stopped};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(
    name = "topics",
    about = "Measures topics, and prints the goal beside each figure"
)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Tiny: shows that it still runs; its figures mean nothing
    #[arg(long, global = true)]
    quick: bool,
    /// The congestion control of every connection. Where it is not the system's default, it needs
    /// root and `ip`
    #[arg(long, global = true, default_value = "cubic")]
    congestion: String,
    #[command(flatten)]
    foreign: foreign::Programs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One publisher, many subscribers of one topic: deliveries a second, or latency at a rate
    Fanout(fanout::Args),
    /// The server's memory for subscribers that only wait
    Idle(idle::Args),
    /// One subscriber of many stops while 1 GiB is published
    Stopped(stopped::Args),
    /// One publisher as fast as it goes, a log in memory
    Publish(publish::Args),
    /// Many publishers, each waiting for its answer, a log on a disk
    Durable(durable::Args),
    /// The longest wait for an answer while retention works on a disk
    Retention(retention::Args),
    /// One subscriber reads a log on a disk from its beginning, while others follow its end
    CatchUp(catch_up::Args),
    /// Filters that match one of 10,000 topics, in logs of two lengths
    Filter(filter::Args),
    /// kill -9 of a node, until a client has the next message from another node
    Failover(failover::Args),
    /// Publishing through JetStream, and with async-nats directly
    #[cfg(feature = "jetstream")]
    Jetstream(jetstream::Args),
    /// All of them
    All,
    /// The server of a run
    #[command(hide = true)]
    Node { job: String },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("topics: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let (quick, programs) = (args.quick, &args.foreign);
    if !matches!(args.what, What::Node { .. }) {
        congestion::set(&args.congestion);
    }
    match &args.what {
        What::Fanout(it) => fanout::run(it, programs, quick),
        What::Idle(it) => idle::run(it, quick),
        What::Stopped(it) => stopped::run(it, quick),
        What::Publish(it) => publish::run(it, quick),
        What::Durable(it) => durable::run(it, quick),
        What::Retention(it) => retention::run(it, quick),
        What::CatchUp(it) => catch_up::run(it, quick),
        What::Filter(it) => filter::run(it, quick),
        What::Failover(it) => failover::run(it, programs, quick),
        #[cfg(feature = "jetstream")]
        What::Jetstream(it) => jetstream::run(it, programs, quick),
        What::All => all(programs, quick),
        What::Node { job } => node::run(job),
    }
}

fn all(programs: &foreign::Programs, quick: bool) -> Result<()> {
    fanout::run(&defaults(), programs, quick)?;
    let mut at_a_rate: fanout::Args = defaults();
    at_a_rate.rate = 20;
    fanout::run(&at_a_rate, programs, quick)?;
    idle::run(&defaults(), quick)?;
    stopped::run(&defaults(), quick)?;
    publish::run(&defaults(), quick)?;
    durable::run(&defaults(), quick)?;
    retention::run(&defaults(), quick)?;
    catch_up::run(&defaults(), quick)?;
    filter::run(&defaults(), quick)?;
    failover::run(&defaults(), programs, quick)?;
    #[cfg(feature = "jetstream")]
    jetstream::run(&defaults(), programs, quick)?;
    #[cfg(not(feature = "jetstream"))]
    println!("skipped: `jetstream`, which needs a build with --features jetstream");
    Ok(())
}

/// The arguments of a workload when none are given.
fn defaults<A: clap::Args>() -> A {
    let command = A::augment_args(clap::Command::new("topics"));
    A::from_arg_matches(&command.get_matches_from(["topics"])).unwrap_or_else(|error| error.exit())
}
