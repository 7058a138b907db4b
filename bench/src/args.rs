//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{contestants, tcp, workloads};

#[derive(Debug, Parser)]
#[command(
    name = "unstall-bench",
    about = "Measures unstall side by side with other WebSocket engines",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) measure: Measure,
    #[command(subcommand)]
    pub(crate) hidden: Option<Hidden>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// What to measure: `all`, or workloads by name
    #[arg(value_parser = workload, default_value = "all", help = workloads_help())]
    pub(crate) workloads: Vec<String>,
    /// A smoke run: tiny counts, one round; its figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each contestant runs
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Write every round's raw numbers to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Only these contestants, beside the reference
    #[arg(long, value_delimiter = ',', value_parser = contestant, value_name = "NAME,…")]
    pub(crate) only: Vec<String>,
    /// Only these sizes of messages, in bytes
    #[arg(long, value_delimiter = ',', value_name = "BYTES,…")]
    sizes: Vec<usize>,
    /// How long a run of the reference lasts; all others move the same bytes
    #[arg(long, default_value_t = 0.7, value_name = "S")]
    pub(crate) seconds: f64,
    /// The congestion control of every connection: cubic, bbr, or another that the kernel has
    #[arg(long, default_value = tcp::CONGESTION_CONTROL, value_name = "NAME")]
    pub(crate) congestion: String,
}

impl Measure {
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    /// The workload's sizes that were asked for. In a smoke run only the smallest and the largest.
    pub(crate) fn sizes(&self, all: &[usize]) -> Vec<usize> {
        if !self.sizes.is_empty() {
            return self.sizes.clone();
        }
        match all {
            [first, .., last] if self.quick => vec![*first, *last],
            all => all.to_vec(),
        }
    }

    pub(crate) fn wants(&self, contestant: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == contestant)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hidden {
    /// One of the two processes of a run.
    #[command(hide = true)]
    Worker {
        /// What to do, as JSON.
        job: String,
    },
}

fn workload(name: &str) -> Result<String, String> {
    known(name, std::iter::once("all").chain(workloads::names()))
}

fn contestant(name: &str) -> Result<String, String> {
    known(name, contestants::names().into_iter())
}

fn known(name: &str, all: impl Iterator<Item = &'static str>) -> Result<String, String> {
    let all: Vec<_> = all.collect();
    match all.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("there is {}", all.join(", "))),
    }
}

fn workloads_help() -> String {
    let names: Vec<_> = workloads::names().collect();
    format!("What to measure: `all`, or any of {}", names.join(", "))
}
