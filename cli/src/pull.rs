//! `unstall pull`: asks for packets and checks each one.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde::Serialize;
use unstall::{CloseCode, Connection, ConnectionError, Gap, Incoming, Stats};

use crate::connect::{Connect, connect_failure, log_events, parse_seconds};
use crate::failure::{Failure, chain};
use crate::packets::{self, Checker, HEADER_BYTES, MAX_COUNT, MAX_PACKET_BYTES, Report, Request};
use crate::progress::packets_bar;
use crate::rss::peak_rss_bytes;
use crate::{runtime, stdout};

const EXAMPLES: &str = "\
If the server speaks sessions, as `unstall serve` does, pull resumes after any
number of broken connections: each packet comes once and in order. A plain
WebSocket cannot resume. If its connection is lost, or if the server of a session
restarts, packets under way are lost: pull counts them and ends with exit code 1.

Examples:
  unstall pull ws://127.0.0.1:9100/packets
  unstall pull ws://127.0.0.1:9100/packets --count 1000000 --size 64 --json
  unstall pull ws://127.0.0.1:9100/packets --count 1000 --slow 5";

/// Ask for packets and check that each arrives intact, once and in order
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pull {
    #[command(flatten)]
    connect: Connect,

    /// How many packets to ask for
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(..=MAX_COUNT))]
    count: u64,

    /// Bytes of each packet, at least 16
    #[arg(long, value_name = "B", default_value_t = 4096,
          value_parser = clap::value_parser!(u64).range(HEADER_BYTES as u64..=MAX_PACKET_BYTES as u64))]
    size: u64,

    /// Wait this many milliseconds after each packet, as a slow consumer does
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slow: u64,

    /// Give up when nothing arrives for this many seconds, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "60")]
    timeout: Duration,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// The result. The fields are those of the JSON object.
#[derive(Debug, Serialize)]
struct PullResult {
    #[serde(flatten)]
    report: Report,
    seconds: f64,
    messages_per_second: f64,
    bytes_per_second: f64,
    reconnects: u64,
    /// How often a session resumed over a new connection.
    resumed: u64,
    peak_rss_bytes: Option<u64>,
    /// Why the run ended before the server was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Why a run ended before the server was done.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the request could not be sent")]
    NotSent(#[from] unstall::SendError),
    #[error("nothing was received for {0:?}")]
    NothingCame(Duration),
    #[error("the server closed the connection before it had sent everything")]
    Closed,
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("packets were lost, because the connection was lost and made again")]
    Reconnected(#[source] std::sync::Arc<ConnectionError>),
    #[error("packets were lost, because the session was lost")]
    SessionLost(#[source] std::sync::Arc<ConnectionError>),
    #[error("messages are missing: {0:?}")]
    Missing(Gap),
    #[error("interrupted")]
    Interrupted,
    #[error("the server answered: {0}")]
    Answer(String),
    #[error("the server says that it sent {said} packets, but {asked} were asked for")]
    Done { said: u64, asked: u64 },
}

impl Pull {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            let result = self.pull().await?;
            if self.json {
                stdout::print_json(&result)?;
            } else {
                stdout::print(&result.to_string())?;
            }
            match result.error {
                Some(error) => Err(Failure::work(error)),
                None if result.report.is_perfect() => Ok(()),
                None => Err(Failure::work(
                    "not every packet arrived intact, once and in order",
                )),
            }
        })
    }

    async fn pull(&self) -> Result<PullResult, Failure> {
        let size = self.size as usize;
        let mut checker = Checker::exactly(self.count, size);
        let started = Instant::now();
        let mut connection = match self.connect.client()?.connect().await {
            Ok(connection) => connection,
            Err(error) => match connect_failure(error) {
                Failure::Work(reason) => {
                    return Ok(self.result(&checker, started, None, Some(reason)));
                }
                usage => return Err(usage),
            },
        };
        let logging = tokio::spawn(log_events(&connection));
        let bar = packets_bar("pull", self.count);
        let started = Instant::now();
        let run = tokio::select! {
            run = self.receive(&mut connection, &mut checker, &bar) => run,
            _ = tokio::signal::ctrl_c() => Err(Broken::Interrupted),
        };
        let error = run.err().map(|broken| chain(&broken));
        let result = self.result(&checker, started, Some(connection.stats()), error);
        bar.finish_and_clear();
        // Receive the rest, so that the close of a session completes immediately.
        let (sender, mut receiver) = connection.split();
        let rest = async { while let Ok(Some(_)) = receiver.recv().await {} };
        let _ = tokio::join!(sender.close(CloseCode::NORMAL, ""), rest);
        logging.abort();
        Ok(result)
    }

    /// Sends the request and receives packets until the server is done.
    async fn receive(
        &self,
        connection: &mut Connection,
        checker: &mut Checker,
        bar: &ProgressBar,
    ) -> Result<(), Broken> {
        let request = Request {
            count: self.count,
            size: self.size as usize,
        };
        connection.send(request.to_text()).await?;
        loop {
            match self.next(connection).await? {
                Incoming::Message(message) => match message.as_text() {
                    None => checker.take(message.as_bytes()),
                    Some(text) => return self.take_answer(text),
                },
                Incoming::Gap(Gap::Reconnected { why, .. }) => {
                    return Err(Broken::Reconnected(why));
                }
                Incoming::Gap(Gap::SessionLost { why }) => return Err(Broken::SessionLost(why)),
                Incoming::Gap(gap) => return Err(Broken::Missing(gap)),
            }
            if self.slow > 0 || checker.received().is_multiple_of(64) {
                bar.set_position(checker.received());
            }
            if self.slow > 0 {
                tokio::time::sleep(Duration::from_millis(self.slow)).await;
            }
        }
    }

    /// Receives the next item of the stream. The timer is only set if there is something to wait
    /// for.
    async fn next(&self, connection: &mut Connection) -> Result<Incoming, Broken> {
        if let Some(next) = connection.try_recv() {
            return Ok(next);
        }
        tokio::time::timeout(self.timeout, connection.recv())
            .await
            .map_err(|_| Broken::NothingCame(self.timeout))??
            .ok_or(Broken::Closed)
    }

    fn take_answer(&self, text: &str) -> Result<(), Broken> {
        match packets::parse_done(text) {
            Some(said) if said == self.count => Ok(()),
            Some(said) => Err(Broken::Done {
                said,
                asked: self.count,
            }),
            None => Err(Broken::Answer(text.chars().take(200).collect())),
        }
    }

    fn result(
        &self,
        checker: &Checker,
        started: Instant,
        stats: Option<Stats>,
        error: Option<String>,
    ) -> PullResult {
        let seconds = started.elapsed().as_secs_f64();
        let report = checker.report();
        PullResult {
            report,
            seconds,
            messages_per_second: report.received as f64 / seconds,
            bytes_per_second: checker.bytes() as f64 / seconds,
            reconnects: stats
                .as_ref()
                .map_or(0, |stats| stats.connections.saturating_sub(1)),
            resumed: stats.map_or(0, |stats| stats.resumes),
            peak_rss_bytes: peak_rss_bytes(),
            error,
        }
    }
}

impl std::fmt::Display for PullResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report {
            count,
            received,
            lost,
            duplicated,
            reordered,
            corrupted,
        } = self.report;
        let verdict = if self.error.is_none() && self.report.is_perfect() {
            "every packet intact, once and in order"
        } else {
            "NOT every packet intact, once and in order"
        };
        let memory = self
            .peak_rss_bytes
            .map_or("unknown".to_owned(), |n| HumanBytes(n).to_string());
        write!(
            f,
            "{} of {} packets received: {verdict}\n\
             lost {lost}, duplicated {duplicated}, reordered {reordered}, corrupted {corrupted}\n\
             {:.2} seconds, {} packets a second, {} a second\n\
             {} reconnects, {} sessions resumed, {memory} of memory at the peak",
            HumanCount(received),
            HumanCount(count),
            self.seconds,
            HumanCount(self.messages_per_second as u64),
            HumanBytes(self.bytes_per_second as u64),
            self.reconnects,
            self.resumed,
        )
    }
}
