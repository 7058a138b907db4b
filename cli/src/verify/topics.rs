//! `unstall verify --topics`: publishers, hubs and subscribers, each a process of its own.

use std::{str::FromStr, time::Duration};

use clap::Args;

use super::{Verify, any_seed, foreign::ClientCommand};
use crate::{failure::Failure, faults::Kind, runtime, stdout};
use run::Run;

mod account;
mod faults;
mod messages;
mod peer;
mod run;
mod talk;
mod verdict;

pub(crate) use peer::VerifyTopicsPeer;

/// The flags of `--topics`
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Verify topics: publishers, hubs and subscribers, each a process of its own
    #[arg(long, help_heading = "Topics", conflicts_with_all = ["url", "plain", "compress"])]
    pub(super) topics: bool,

    /// Where the hubs keep the log: a directory, or nats://HOST:PORT/STREAM of a cluster that is
    /// there; memory, without restart and kill. Default: a directory that is removed at the end
    #[arg(
        long,
        value_name = "STORE",
        requires = "topics",
        help_heading = "Topics"
    )]
    store: Option<String>,

    /// How many hubs serve the log; more than one needs a store on NATS
    #[arg(long, value_name = "N", requires = "topics", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=16), help_heading = "Topics")]
    nodes: u32,

    /// How many processes publish
    #[arg(long, value_name = "P", requires = "topics", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Topics")]
    publishers: u32,

    /// How many processes subscribe to everything
    #[arg(long, value_name = "S", requires = "topics", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Topics")]
    subscribers: u32,
}

/// The most messages of a run: what is known of each takes some bytes.
const MAX_COUNT: u64 = 10_000_000;

/// A kind of fault by its name, of either kind of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Of(Kind),
    /// A subscriber waits until retention has removed what it has not read.
    Retention,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(name: &str) -> Result<Named, String> {
        match name {
            "retention" => Ok(Named::Retention),
            _ => name.parse().map(Named::Of).map_err(|_| {
                "the faults are cut, freeze, delay, refuse, restart, slow; with --client or --topics \
                 also kill; with --topics also retention"
                    .to_owned()
            }),
        }
    }
}

/// What a run has to do.
struct Aim {
    /// `None`: a directory of its own.
    store: Option<String>,
    nodes: u32,
    publishers: u32,
    subscribers: u32,
    /// Messages of each publisher.
    count: u64,
    sizes: super::plan::Sizes,
    faults: Vec<Named>,
    times: usize,
    /// Messages a second of each publisher.
    rate: Option<f64>,
    seed: u64,
    /// A client in any language, which forwards what is published.
    client: Option<ClientCommand>,
    /// If nothing is reported for this long, the run has stalled.
    patience: Duration,
}

/// It is far longer than a fault, and than a hub may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it, and prints the verdict.
pub(super) fn run(verify: Verify) -> Result<(), Failure> {
    let json = verify.json;
    runtime::run(async {
        let verdict = Run::start(aim(verify)?).await?.conclude().await;
        if json {
            stdout::print_json(&verdict)?;
        } else {
            stdout::print(&verdict.to_string())?;
        }
        match verdict.ok {
            true => Ok(()),
            false => Err(Failure::work(verdict.broken().join("; "))),
        }
    })
}

fn aim(verify: Verify) -> Result<Aim, Failure> {
    let Flags {
        store,
        nodes,
        publishers,
        subscribers,
        ..
    } = verify.of_topics;
    let default = || {
        let kinds = [Kind::Cut, Kind::Freeze, Kind::Restart, Kind::Kill];
        kinds.map(Named::Of).to_vec()
    };
    let faults = verify.faults.unwrap_or_else(default);
    let is_nats = store.as_ref().is_some_and(|store| store.contains("://"));
    if nodes > 1 && !is_nats {
        return Err(Failure::usage(
            "several hubs can serve one log only if it is on NATS: --store nats://HOST:PORT/STREAM",
        ));
    }
    let ends = |fault: &Named| matches!(fault, Named::Of(Kind::Kill | Kind::Restart));
    if store.as_deref() == Some("memory") && faults.iter().any(ends) {
        return Err(Failure::usage(
            "a log in memory ends with its hub: leave out `kill` and `restart`, or give a directory",
        ));
    }
    if verify.client.is_some() && faults.contains(&Named::Retention) {
        return Err(Failure::usage(
            "what retention removes cannot be forwarded: leave out `retention` or --client",
        ));
    }
    // A client forwards one topic, which one process publishes to.
    let publishers = match verify.client {
        Some(_) => 1,
        None => publishers,
    };
    if verify.count > MAX_COUNT {
        return Err(Failure::usage(format_args!(
            "--topics takes at most {MAX_COUNT} messages"
        )));
    }
    let seed = verify.seed.unwrap_or_else(any_seed);
    let rate = verify.rate.unwrap_or(verify.count as f64 / super::SECONDS);
    Ok(Aim {
        store,
        nodes,
        publishers,
        subscribers,
        count: verify.count.div_ceil(u64::from(publishers)),
        sizes: match verify.client {
            Some(_) => verify.size.with_seed(seed).with_texts(),
            None => verify.size.with_seed(seed),
        },
        faults,
        times: verify.times as usize,
        rate: rate.is_finite().then_some(rate / f64::from(publishers)),
        seed,
        client: verify.client,
        patience: verify.patience.map_or(PATIENCE, Duration::from_secs),
    })
}
