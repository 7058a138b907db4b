//! One connection upstream of a client. A client has several, one after the other, if lost ones are made
//! again.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use unstall::{CloseCode, CloseReport, Connection, Incoming, Message, Receiver, SendError, Sender};

use super::{limits, lock, rules::Fields};

/// A connection upstream.
pub(super) struct Leg {
    pub(super) sender: Sender,
    pub(super) since: Instant,
    /// Messages of the client on it, of which nobody will know whether upstream has them.
    pub(super) uncovered: AtomicU64,
    /// Messages that upstream cannot have, once it has ended.
    unsent: Mutex<Unsent>,
}

#[derive(Default)]
struct Unsent {
    /// Those that were queued.
    queued: Vec<Message>,
    /// Those that came after them, and were refused.
    refused: Vec<Message>,
}

/// A connection upstream on which nothing of its client's has passed yet.
pub(super) struct Fresh {
    pub(super) leg: Leg,
    pub(super) from: Receiver,
    /// What upstream has sent meanwhile.
    pub(super) held: Vec<Message>,
    /// What upstream did not get on the connection before.
    pub(super) carried: Vec<Message>,
}

impl Leg {
    /// Waits until it has ended.
    pub(super) async fn ended(&self) -> CloseReport {
        self.noted(self.sender.ended().await)
    }

    /// Closes it.
    pub(super) async fn close(&self, code: CloseCode, reason: &str) -> CloseReport {
        self.noted(self.sender.close(code, reason).await)
    }

    /// Closes it in the background.
    pub(super) fn start_closing(&self, code: CloseCode) {
        let _ = self.close(code, "").now_or_never();
    }

    /// Only the first report has the messages that were not sent.
    fn noted(&self, mut report: CloseReport) -> CloseReport {
        let unsent = std::mem::take(&mut report.unsent);
        lock(&self.unsent).queued.extend(unsent);
        report
    }

    /// Keeps messages that it refused, because it has ended.
    pub(super) fn refused(&self, error: SendError, rest: impl Iterator<Item = Message>) {
        let others = self.sender.take_undelivered();
        let others = others.into_iter().map(|undelivered| undelivered.message);
        let refused = [error.message].into_iter().chain(others).chain(rest);
        lock(&self.unsent).refused.extend(refused);
    }

    /// The messages that upstream cannot have, in order.
    pub(super) fn take_unsent(&self) -> Vec<Message> {
        let Unsent { queued, refused } = std::mem::take(&mut *lock(&self.unsent));
        queued.into_iter().chain(refused).collect()
    }
}

impl Fresh {
    pub(super) fn of(connection: Connection) -> Fresh {
        let (sender, from) = connection.split();
        Fresh {
            leg: Leg {
                sender,
                since: Instant::now(),
                uncovered: AtomicU64::new(0),
                unsent: Mutex::default(),
            },
            from,
            held: Vec::new(),
            carried: Vec::new(),
        }
    }

    /// Waits for a message that has these fields, and takes it away. What comes before it is held, but
    /// not without a bound: then it is not waited for any more.
    pub(super) async fn answer(&mut self, fields: &Fields) -> Result<(), &'static str> {
        let mut bytes = 0;
        let wait = async {
            while bytes < limits::HELD_BYTES {
                match self.from.recv().await {
                    Ok(Some(Incoming::Message(message))) if fields.match_message(&message) => {
                        return Ok(());
                    }
                    Ok(Some(Incoming::Message(message))) => {
                        bytes += message.len() + limits::REMEMBERED_KEY_BYTES;
                        self.held.push(message);
                    }
                    _ => return Err("the connection has ended"),
                }
            }
            Ok(())
        };
        let answered = timeout(limits::ANSWER_TIMEOUT, wait).await;
        answered.unwrap_or(Err("it did not come in time"))
    }
}

/// Who may send upstream: the client, or, while the client waits, the relay itself.
pub(super) struct Turn(watch::Sender<Phase>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client's messages pass.
    Flows,
    /// They have to wait from now on.
    ToWait,
    /// They wait.
    Waits,
    /// No more messages pass.
    Over,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn(watch::Sender::new(Phase::Flows))
    }
}

impl Turn {
    /// Lets the client's messages wait. `false`: no more pass anyway.
    pub(super) async fn pause(&self) -> bool {
        self.go(Phase::Flows, Phase::ToWait);
        self.reaches(|phase| matches!(phase, Phase::Waits | Phase::Over))
            .await
            == Phase::Waits
    }

    pub(super) fn resume(&self) {
        self.go(Phase::Waits, Phase::Flows);
    }

    pub(super) fn end(&self) {
        self.0.send_replace(Phase::Over);
    }

    /// Resolves when the client's messages do not pass any more, for now or for good.
    pub(super) async fn stops(&self) {
        self.reaches(|phase| phase != Phase::Flows).await;
    }

    /// Waits until they pass again. `false`: they never will.
    pub(super) async fn waits(&self) -> bool {
        self.go(Phase::ToWait, Phase::Waits);
        self.reaches(|phase| matches!(phase, Phase::Flows | Phase::Over))
            .await
            == Phase::Flows
    }

    pub(super) async fn over(&self) {
        self.reaches(|phase| phase == Phase::Over).await;
    }

    /// Goes on to the next phase, if it is this one.
    fn go(&self, from: Phase, to: Phase) {
        self.0.send_if_modified(|phase| {
            let goes = *phase == from;
            if goes {
                *phase = to;
            }
            goes
        });
    }

    async fn reaches(&self, is_reached: impl Fn(Phase) -> bool) -> Phase {
        let mut phases = self.0.subscribe();
        let reached = phases.wait_for(|phase| is_reached(*phase)).await;
        // The sender is in `self`, so it lives.
        reached.map_or(Phase::Over, |phase| *phase)
    }
}

/// Waits until a counter stands still for this time, or until this moment.
pub(super) async fn stands_still(counter: &AtomicU64, time: Duration, latest: Instant) {
    let quiet = async {
        loop {
            let before = counter.load(Relaxed);
            tokio::time::sleep(time).await;
            if counter.load(Relaxed) == before {
                return;
            }
        }
    };
    let _ = tokio::time::timeout_at(latest, quiet).await;
}
