//! Row 4: unstall at both ends, the same slow consumer, and a connection that is cut again and again.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::watch as cell;
use unstall::{Client, CloseCode, Connection, Incoming, Message, Reconnect, Server};

use super::Plan;
use super::consumer::SlowConsumer;
use super::row::{Outcome, RowError};
use super::server::requested_packet;
use super::unstalled;
use super::watch::{Progress, watch};
use crate::faults::proxy::{self, Route};
use crate::faults::{Kind, Schedule};

/// How often the connection is cut.
const CUTS: usize = 12;

/// The bounds of the first and of the longest wait before connecting again. They are short, because
/// the server has only one client.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Counts of cuts and resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Cuts {
    /// How often the connection was cut.
    pub(super) cuts: u64,
    /// How often the session resumed.
    pub(super) resumes: u64,
}

impl Cuts {
    /// Whether every cut happened and the session survived it.
    pub(super) fn are_overcome(self) -> bool {
        self.cuts == CUTS as u64 && self.resumes > 0
    }
}

/// Runs server, proxy and client until the client ends or nothing moves.
pub(super) async fn run(
    plan: Plan,
    progress: &Arc<Progress>,
    bar: &ProgressBar,
    stalled_after: Duration,
) -> Result<Outcome, RowError> {
    let server = Server::bind("127.0.0.1:0").await?;
    let (_keep, upstream) = cell::channel(server.local_addr());
    // The cuts are at different bytes in each run.
    let seed = RandomState::new().hash_one(0);
    let answers = plan.count * plan.size as u64;
    let schedule = Schedule::draw(&[Kind::Cut], CUTS, [0, answers], Duration::ZERO, seed);
    let (address, mut strikes) = proxy::start(Route::To(upstream), schedule).await?;
    let serving = tokio::spawn(serve_one(server, progress.clone()));
    let (sender, receiver) = client(address).connect().await?.split();
    let mut consumer = SlowConsumer::new(plan, progress.clone());
    let mut cuts = 0;
    let watched = {
        let progress_of_client = progress.clone();
        let sending = sender.clone();
        let client = unstalled::run(sending, receiver, plan, progress_of_client, &mut consumer);
        let counting = async {
            while strikes.recv().await.is_some() {
                cuts += 1;
                bar.set_message(format!("unstall, cut {cuts} times"));
            }
            std::future::pending().await
        };
        tokio::select! {
            watched = watch(client, progress, bar, stalled_after) => watched,
            never = counting => never,
        }
    };
    // Count the cuts that happened last.
    while strikes.try_recv().is_ok() {
        cuts += 1;
    }
    let resumes = sender.stats().resumes;
    let _ = sender.close(CloseCode::NORMAL, "").await;
    serving.abort();
    Ok(Outcome {
        watched,
        report: consumer.report(),
        // A session's memory has other limits, at both ends.
        peak_queued_bytes: None,
        queue_limit_bytes: None,
        cuts: Some(Cuts { cuts, resumes }),
        kills: None,
    })
}

fn client(address: SocketAddr) -> Client {
    let reconnect = Reconnect::default()
        .first(RECONNECT.0)
        .max(RECONNECT.1)
        .proof(Duration::ZERO);
    Client::new(format!("ws://{address}/"))
        .require_session()
        .reconnect(reconnect)
}

async fn serve_one(server: Server, progress: Arc<Progress>) {
    if let Some(connection) = server.accept().await {
        answer_inline(connection, progress).await;
    }
}

/// Like the server of the other rows, but with unstall: answers each request before it reads the
/// next.
async fn answer_inline(mut connection: Connection, progress: Arc<Progress>) {
    while let Ok(Some(incoming)) = connection.recv().await {
        let Incoming::Message(request) = incoming else {
            continue;
        };
        let Some(packet) = request.as_text().and_then(requested_packet) else {
            continue;
        };
        progress.server_read.add(1);
        if connection.send(Message::binary(packet)).await.is_err() {
            return;
        }
        progress.server_sent.add(1);
    }
}
