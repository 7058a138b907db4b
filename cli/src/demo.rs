//! `unstall demo`: five clients fetch the same packets for the same slow consumer.

use std::fmt::Write as _;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;

use crate::failure::Failure;
use crate::{runtime, stdout};
use cut::Cuts;
use killed::Kills;
use row::{Ending, Row, RowResult};
use wire::KernelBuffers;

mod consumer;
mod cut;
mod killed;
mod naive;
mod queue;
mod row;
mod server;
mod unstalled;
mod watch;
mod wire;

const EXAMPLES: &str = "\
Each client asks for the same packets over loopback TCP. The first three ask the
same tokio-tungstenite server, with the same kernel buffers. The server answers
each request before it reads the next.

  naive loop       one loop sends the requests and reads the packets
  unbounded queue  a reader task fills a queue, a slow consumer empties it
  unstall          the same slow consumer behind an unstall connection
  unstall, cut     unstall at both ends, while a proxy between them cuts every
                   connection, at bytes that differ from run to run
  topic, killed    the packets are published to a topic of `unstall hub`, in a
                   directory of their own. The server process is killed (SIGKILL) and
                   started again, six times

Nothing is staged: a row that does not stall says so. Exit code 1: unstall did not
deliver every packet intact, once and in order, within its memory limit.

Examples:
  unstall demo
  unstall demo --json 2>/dev/null | jq .rows";

/// See a WebSocket stream stall, the usual fix, and unstall, in seconds
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// The number of packets in each row
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,

    /// Print one JSON object at the end instead of the table
    #[arg(long)]
    json: bool,
}

/// The size of each packet, as in the stall that users report most.
const PACKET_BYTES: usize = 4096;

/// The bytes that a row transfers.
#[derive(Clone, Copy, Debug)]
struct Plan {
    count: u64,
    size: usize,
}

#[derive(Debug, Serialize)]
struct DemoResult {
    packets: u64,
    packet_bytes: usize,
    kernel_buffers: KernelBuffers,
    rows: Vec<RowResult>,
    kept: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            let result = run_rows(Plan {
                count: self.count,
                size: PACKET_BYTES,
            })
            .await?;
            if self.json {
                stdout::print_json(&result)?;
            } else {
                stdout::print(&table(&result))?;
            }
            if result.kept {
                Ok(())
            } else {
                Err(Failure::work("unstall broke a promise: see the rows above"))
            }
        })
    }
}

async fn run_rows(plan: Plan) -> Result<DemoResult, Failure> {
    let mut rows = Vec::new();
    let mut kernel_buffers = KernelBuffers::default();
    let mut kept = true;
    for row in Row::ALL {
        let (result, buffers) = row.run(plan).await.map_err(|error| {
            Failure::work(format_args!(
                "the row \"{}\" could not run: {error}",
                row.title()
            ))
        })?;
        rows.push(result);
        kernel_buffers = buffers.unwrap_or(kernel_buffers);
        kept &= !row.is_ours() || rows.last().is_some_and(RowResult::is_kept);
    }
    Ok(DemoResult {
        packets: plan.count,
        packet_bytes: plan.size,
        kernel_buffers,
        rows,
        kept,
    })
}

/// The result in plain sentences.
fn table(result: &DemoResult) -> String {
    let mut text = format!(
        "{} packets of {} bytes over loopback TCP, to a slow consumer\n{}\n\n\
         {:16} {:22} {:>9} {:>8} {:>21}\n",
        HumanCount(result.packets),
        HumanCount(result.packet_bytes as u64),
        result.kernel_buffers,
        "client",
        "result",
        "received",
        "seconds",
        "peak of queued bytes",
    );
    for row in &result.rows {
        let _ = writeln!(
            text,
            "{:16} {:22} {:>9} {:>8.1} {:>21}{}",
            row.client,
            row.verdict(),
            HumanCount(row.report.received).to_string(),
            row.seconds,
            row.peak_queued_bytes
                .map_or("-".to_owned(), |peak| HumanCount(peak).to_string()),
            match (row.peak_queued_bytes, row.queue_limit_bytes) {
                (None, _) => String::new(),
                (Some(_), Some(limit)) => format!(", limit {}", HumanCount(limit)),
                (Some(_), None) => ", no limit".to_owned(),
            } + &row
                .cuts
                .map_or(String::new(), |Cuts { cuts, resumes }| format!(
                    "   cut {cuts} times, resumed {resumes} times"
                ))
                + &row
                    .kills
                    .map_or(String::new(), |Kills { kills, .. }| format!(
                        "   server killed {kills} times"
                    )),
        );
    }
    for row in result
        .rows
        .iter()
        .filter(|row| row.ending == Ending::Stalled)
    {
        let _ = write!(text, "\n{}", row.stall_story());
    }
    text.trim_end().to_owned()
}
