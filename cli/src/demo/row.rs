//! Runs one row, and formats its result.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use unstall::{Connection, Options, Stats};

use super::consumer::SlowConsumer;
use super::cut::{self, Cuts};
use super::killed::{self, Kills};
use super::queue::QueuedBytes;
use super::watch::{Progress, Steps, Watched, watch};
use super::wire::KernelBuffers;
use super::{Plan, naive, queue, server, unstalled, wire};
use crate::packets::{Checker, Report};
use crate::progress::packets_bar;

#[derive(Clone, Copy, Debug)]
pub(super) enum Row {
    Naive,
    Queue,
    Unstall,
    Cut,
    Killed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Finished,
    Stalled,
}

#[derive(Debug, Serialize)]
pub(super) struct RowResult {
    pub(super) client: &'static str,
    pub(super) ending: Ending,
    pub(super) seconds: f64,
    /// How long nothing had moved when the row was given up.
    pub(super) seconds_without_progress: f64,
    #[serde(flatten)]
    pub(super) report: Report,
    pub(super) steps: Steps,
    pub(super) peak_queued_bytes: Option<u64>,
    pub(super) queue_limit_bytes: Option<u64>,
    /// In the row with cuts: how often the connection was cut, and how often the session resumed.
    #[serde(flatten)]
    pub(super) cuts: Option<Cuts>,
    /// In the row with kills: how often the server process was killed.
    #[serde(flatten)]
    pub(super) kills: Option<Kills>,
}

pub(super) type RowError = Box<dyn Error + Send + Sync>;

impl Row {
    pub(super) const ALL: [Self; 5] = [
        Self::Naive,
        Self::Queue,
        Self::Unstall,
        Self::Cut,
        Self::Killed,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Naive => "naive loop",
            Self::Queue => "unbounded queue",
            Self::Unstall => "unstall",
            Self::Cut => "unstall, cut",
            Self::Killed => "topic, killed",
        }
    }

    /// Whether unstall is the client.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Unstall | Self::Cut | Self::Killed)
    }

    /// How long nothing may move before the row counts as stalled. Two seconds are enough to show
    /// the stall of the first row. The others get more time, for retransmissions on a busy machine.
    fn stalled_after(self) -> Duration {
        match self {
            Self::Naive => Duration::from_secs(2),
            Self::Queue | Self::Unstall | Self::Cut => Duration::from_secs(10),
            // A killed hub reads its journal before it serves again.
            Self::Killed => Duration::from_secs(30),
        }
    }

    /// Runs server and client until the client ends or nothing moves. `None` if the system
    /// chooses the kernel buffers.
    pub(super) async fn run(
        self,
        plan: Plan,
    ) -> Result<(RowResult, Option<KernelBuffers>), RowError> {
        let progress = Arc::new(Progress::default());
        let bar = packets_bar(self.title(), plan.count);
        let started = Instant::now();
        let patience = self.stalled_after();
        let (outcome, buffers) = match self {
            Self::Cut => (cut::run(plan, &progress, &bar, patience).await?, None),
            Self::Killed => (killed::run(plan, &progress, &bar, patience).await?, None),
            Self::Naive | Self::Queue | Self::Unstall => {
                let (outcome, buffers) = self.run_over_one(plan, &progress, &bar).await?;
                (outcome, Some(buffers))
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        bar.set_position(progress.consumed.get());
        bar.abandon();
        let quiet = match outcome.watched {
            Watched::Finished(result) => result.map(|()| None)?,
            Watched::Stalled(quiet) => Some(quiet.as_secs_f64()),
        };
        let result = RowResult {
            client: self.title(),
            ending: if quiet.is_some() {
                Ending::Stalled
            } else {
                Ending::Finished
            },
            seconds,
            seconds_without_progress: quiet.unwrap_or(0.0),
            report: outcome.report,
            steps: progress.steps(),
            peak_queued_bytes: outcome.peak_queued_bytes,
            queue_limit_bytes: outcome.queue_limit_bytes,
            cuts: outcome.cuts,
            kills: outcome.kills,
        };
        Ok((result, buffers))
    }

    /// Runs over one connection to the server that answers inline.
    async fn run_over_one(
        self,
        plan: Plan,
        progress: &Arc<Progress>,
        bar: &ProgressBar,
    ) -> Result<(Outcome, KernelBuffers), RowError> {
        let (client, server, buffers) = wire::connect().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(server::answer_inline(server, progress.clone()));
        let (ws, _) = tokio_tungstenite::client_async("ws://localhost/", client).await?;
        Ok((self.run_client(ws, plan, progress, bar).await, buffers))
    }

    /// Runs the client and watches its progress.
    async fn run_client(
        self,
        ws: WebSocketStream<TcpStream>,
        plan: Plan,
        progress: &Arc<Progress>,
        bar: &ProgressBar,
    ) -> Outcome {
        match self {
            Self::Naive => {
                let mut checker = Checker::exactly(plan.count, plan.size);
                let client = naive::run(ws, plan, progress.clone(), &mut checker);
                let watched = watch(client, progress, bar, self.stalled_after()).await;
                Outcome {
                    watched,
                    report: checker.report(),
                    peak_queued_bytes: None,
                    queue_limit_bytes: None,
                    cuts: None,
                    kills: None,
                }
            }
            Self::Queue => {
                let queued = Arc::new(QueuedBytes::default());
                let mut consumer = SlowConsumer::new(plan, progress.clone());
                let client = queue::run(ws, plan, progress.clone(), queued.clone(), &mut consumer);
                let watched = watch(client, progress, bar, self.stalled_after()).await;
                Outcome {
                    watched,
                    report: consumer.report(),
                    peak_queued_bytes: Some(queued.peak()),
                    queue_limit_bytes: None,
                    cuts: None,
                    kills: None,
                }
            }
            Self::Unstall | Self::Cut | Self::Killed => {
                let options = Options::default();
                let (sender, receiver) = Connection::from_websocket(ws, options).split();
                let mut consumer = SlowConsumer::new(plan, progress.clone());
                let client = unstalled::run(
                    sender.clone(),
                    receiver,
                    plan,
                    progress.clone(),
                    &mut consumer,
                );
                let watched = watch(client, progress, bar, self.stalled_after()).await;
                let Stats { inbox, outbox, .. } = sender.stats();
                Outcome {
                    watched,
                    report: consumer.report(),
                    peak_queued_bytes: Some((inbox.high_water + outbox.high_water) as u64),
                    queue_limit_bytes: Some((inbox.limit + outbox.limit) as u64),
                    cuts: None,
                    kills: None,
                }
            }
        }
    }
}

/// The result of a client.
pub(super) struct Outcome {
    pub(super) watched: Watched<Result<(), RowError>>,
    pub(super) report: Report,
    pub(super) peak_queued_bytes: Option<u64>,
    pub(super) queue_limit_bytes: Option<u64>,
    pub(super) cuts: Option<Cuts>,
    pub(super) kills: Option<Kills>,
}

impl RowResult {
    /// Whether every packet came intact, once and in order, the queues stayed within their limit,
    /// the session survived every cut, and the topic every kill.
    pub(super) fn is_kept(&self) -> bool {
        let within_limit = self
            .peak_queued_bytes
            .zip(self.queue_limit_bytes)
            .is_none_or(|(peak, limit)| peak <= limit);
        self.ending == Ending::Finished
            && self.report.is_perfect()
            && within_limit
            && self.cuts.is_none_or(Cuts::are_overcome)
            && self.kills.is_none_or(Kills::are_overcome)
    }

    /// The result in two or three words.
    pub(super) fn verdict(&self) -> &'static str {
        match self.ending {
            Ending::Stalled => "STALLED",
            Ending::Finished if self.report.is_perfect() => "all intact, in order",
            Ending::Finished => "INCOMPLETE",
        }
    }

    /// The steps that both ends had made when nothing moved any more.
    pub(super) fn stall_story(&self) -> String {
        let Steps {
            client_sent,
            server_read,
            server_sent,
            client_received,
            ..
        } = self.steps;
        let cause = if self.client == Row::Naive.title() {
            "The client waits in send() and does not read; so does the server."
        } else {
            "Run `unstall doctor` at the same time to see which side does not read."
        };
        format!(
            "{}: stalled after {} packets, {} still missing.\n\
             For {:.1} seconds not one of these moved:\n\
             \x20 requests sent {}, read by the server {}; packets sent {}, read by the client {}.\n\
             \x20 {cause}\n",
            self.client,
            HumanCount(self.report.received),
            HumanCount(self.report.lost),
            self.seconds_without_progress,
            HumanCount(client_sent),
            HumanCount(server_read),
            HumanCount(server_sent),
            HumanCount(client_received),
        )
    }
}
