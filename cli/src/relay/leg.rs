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

use super::{held::Held, limits, lock, pool::Pool, rules::Fields};

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
    pub(super) held: Held,
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
    /// `pool`: of what is held for all clients.
    pub(super) fn of(connection: Connection, pool: &Pool) -> Fresh {
        let (sender, from) = connection.split();
        Fresh {
            leg: Leg {
                sender,
                since: Instant::now(),
                uncovered: AtomicU64::new(0),
                unsent: Mutex::default(),
            },
            from,
            held: Held::new(pool),
            carried: Vec::new(),
        }
    }

    /// Waits for a message that has these fields, and takes it away. What comes before it is held, but
    /// not without a bound: then neither this one nor another is waited for any more, and passes.
    pub(super) async fn answer(&mut self, fields: &Fields) -> Result<(), &'static str> {
        let wait = async {
            while !self.held.is_full() {
                match self.from.recv().await {
                    Ok(Some(Incoming::Message(message))) if fields.match_message(&message) => {
                        return Ok(());
                    }
                    Ok(Some(Incoming::Message(message))) => self.held.push(message),
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

    /// Whether the client's messages pass.
    pub(super) fn flows(&self) -> bool {
        *self.0.borrow() == Phase::Flows
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

#[cfg(test)]
mod tests {
    use futures_util::SinkExt;
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{self, protocol::Role},
    };
    use unstall::{Options, defaults::MESSAGE_OVERHEAD_BYTES};

    use super::*;
    use crate::relay::rules::Rules;

    type Upstream = WebSocketStream<DuplexStream>;

    const ANSWER: &str = r#"{"ok":true}"#;

    /// What the messages here cost.
    const COST: usize = 64 << 10;

    async fn connected(pool: &Pool) -> (Fresh, Upstream) {
        let (near, far) = duplex(COST);
        let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let connection = Connection::from_websocket(near, Options::default());
        (Fresh::of(connection, pool), far)
    }

    fn fields() -> Fields {
        let rules = Rules::parse("greeting = { '/ok' = true }").unwrap();
        rules.greeting.unwrap()
    }

    fn of_cost(bytes: usize) -> tungstenite::Message {
        tungstenite::Message::binary(vec![b'x'; bytes - MESSAGE_OVERHEAD_BYTES])
    }

    async fn next(fresh: &mut Fresh) -> Message {
        match fresh.from.recv().await {
            Ok(Some(Incoming::Message(message))) => message,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_until_more_than_the_limit_is_held() {
        let fields = fields();
        for (more, is_waited_for) in [(0, true), (1, false)] {
            let pool = Pool::of(usize::MAX);
            let (mut fresh, mut upstream) = connected(&pool).await;
            let count = limits::HELD_BYTES / COST;
            let says = async {
                for _ in 1..count {
                    upstream.feed(of_cost(COST)).await.unwrap();
                }
                upstream.feed(of_cost(COST + more)).await.unwrap();
                for text in [ANSWER, "and then"] {
                    upstream.send(text.into()).await.unwrap();
                }
            };
            let (answered, ()) = tokio::join!(fresh.answer(&fields), says);
            assert_eq!(answered, Ok(()));
            assert_eq!(fresh.held.messages.len(), count);
            // Whoever does not wait does not take it away either.
            let left = if is_waited_for { "and then" } else { ANSWER };
            assert_eq!(next(&mut fresh).await.as_text(), Some(left));
        }
    }

    /// Each answer once had a bound of its own. So an upstream that flooded instead of answering made the
    /// relay hold 1 MiB for each message that was sent again.
    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_floods_instead_of_answering_has_one_bound_for_all_answers() {
        let pool = Pool::of(usize::MAX);
        let (mut fresh, mut upstream) = connected(&pool).await;
        let floods = async { while upstream.send(of_cost(COST)).await.is_ok() {} };
        let fields = fields();
        let answers = async {
            for _ in 0..100 {
                assert_eq!(fresh.answer(&fields).await, Ok(()));
            }
            fresh.held.messages.len()
        };
        let held = tokio::select! {
            held = answers => held,
            () = floods => panic!("it is refused"),
        };
        assert_eq!(held, limits::HELD_BYTES / COST + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_never_answers_is_given_up_at_the_timeout() {
        let pool = Pool::of(usize::MAX);
        let (mut fresh, mut upstream) = connected(&pool).await;
        let begun = Instant::now();
        // What is almost the answer is none.
        upstream.send(r#"{"ok":"true"}"#.into()).await.unwrap();
        let answered = fresh.answer(&fields()).await;
        assert_eq!(answered, Err("it did not come in time"));
        assert_eq!(begun.elapsed(), limits::ANSWER_TIMEOUT);
        assert_eq!(fresh.held.messages.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_clients_together_hold_what_their_pool_has_and_then_no_answer_is_waited_for() {
        let pool = Pool::of(2 * COST);
        let fields = fields();
        let hold = async |messages| {
            let (mut fresh, mut upstream) = connected(&pool).await;
            for _ in 0..messages {
                upstream.feed(of_cost(COST)).await.unwrap();
            }
            upstream.send(ANSWER.into()).await.unwrap();
            fresh.answer(&fields).await.unwrap();
            fresh
        };
        let first = hold(2).await;
        assert!(!first.held.is_full());
        let mut second = hold(1).await;
        assert!(second.held.is_full());
        assert_eq!(next(&mut second).await.as_text(), Some(ANSWER));
        drop((first, second));
        let mut third = hold(2).await;
        assert!(!third.held.is_full());
        third.held.passed();
        assert!(!hold(2).await.held.is_full());
    }
}
