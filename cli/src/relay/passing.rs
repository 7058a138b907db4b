//! One client and its connection upstream: passes messages both ways until either side ends. Then a
//! plain connection upstream is made anew, or the other side is closed with a code and a reason.

use std::{
    future::{Future, pending},
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::{
    StreamExt,
    future::{AbortHandle, abortable, join3},
    stream::FuturesUnordered,
};
use tokio::sync::Notify;
use unstall::{
    CloseCode, Connection, ConnectionError, Incoming, Message, MessageRef, Receiver, SendError,
    SendRefusal, Sender,
};

use super::{
    door::Door,
    ending::{Farewell, From},
    held::Held,
    leg::{Fresh, Leg, Turn},
    lock,
    record::Recording,
    remembered::{Covered, Full, Memory},
    renewal::Policy,
    run::{Copies, Counted},
};
use crate::connect::follow;

/// What passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    /// Connections upstream that were lost and made again.
    pub(super) reconnects: AtomicU64,
    /// Connections upstream that others took the place of, because of their age.
    pub(super) rotations: AtomicU64,
}

/// What all pairs share.
#[derive(Clone, Copy)]
pub(super) struct Relaying<'r> {
    pub(super) door: &'r Door,
    pub(super) policy: &'r Policy,
    pub(super) passed: &'r Passed,
}

/// The two sides while they live.
pub(super) struct Pair<'p> {
    pub(super) client: Sender,
    pub(super) relaying: Relaying<'p>,
    /// What a new connection upstream gets first.
    pub(super) memory: Option<Mutex<Memory>>,
    /// Messages in either direction.
    pub(super) messages: AtomicU64,
    /// Messages that the client got.
    down: AtomicU64,
    /// Why the client has to be closed, if it is not what upstream's end says.
    pub(super) verdict: OnceLock<Farewell>,
}

/// What goes on while one connection upstream lives. Only the two directions end: with `true` if the
/// client has ended.
type Part<'p> = Pin<Box<dyn Future<Output = bool> + Send + 'p>>;

/// Passes messages until both sides have ended.
pub(super) async fn pass(
    client: Connection,
    upstream: Connection,
    relaying: Relaying<'_>,
    recording: Option<Recording>,
) {
    let (to_client, mut from_client) = client.split();
    let pair = Pair {
        client: to_client,
        relaying,
        memory: relaying.policy.memory().map(Mutex::new),
        messages: AtomicU64::new(0),
        down: AtomicU64::new(0),
        verdict: OnceLock::new(),
    };
    let mut now = Fresh::of(upstream, &relaying.policy.pools.held);
    let farewell = loop {
        match pair.pass_on(&mut now, &mut from_client, &recording).await {
            Ok(next) => now = next,
            Err(farewell) => break farewell,
        }
    };
    // What else the client sends is read and dropped, so that its close frame is seen.
    drop(from_client);
    let recorded = match recording {
        Some(recording) => recording.end().await,
        None => true,
    };
    if !recorded {
        pair.unrecorded();
    }
    let Fresh { leg, from, .. } = now;
    drop(from);
    if let Some(farewell) = pair.verdict.get().or(farewell.as_ref()) {
        tracing::info!("upstream ended: {} {}", farewell.code, farewell.reason);
        let (code, reason) = (farewell.code, &farewell.reason);
        let _ = tokio::join!(pair.client.close(code, reason), leg.close(code, reason));
    }
}

impl Pair<'_> {
    /// Passes messages as long as one connection upstream lives. Returns the next one, or with which
    /// code and reason the client is closed, if it is still there.
    async fn pass_on(
        &self,
        now: &mut Fresh,
        from_client: &mut Receiver,
        recording: &Option<Recording>,
    ) -> Result<Fresh, Option<Farewell>> {
        let turn = Turn::default();
        let next = Mutex::new(None);
        let Fresh {
            leg,
            from,
            held,
            carried,
        } = now;
        let carried = std::mem::take(carried);
        let (down, stop_down) = abortable(self.down(from, held, recording));
        let up = self.up(leg, carried, from_client, &turn);
        let down = async {
            let _ = down.await;
            if self.verdict.get().is_some() {
                leg.start_closing(CloseCode::GOING_AWAY);
            }
            turn.end();
            false
        };
        let beside = async {
            let stops = self.stops_down(leg, recording, stop_down);
            let goes_over = self.go_over_in_time(leg, &turn, &next);
            join3(stops, goes_over, follow(leg.sender.events())).await;
            pending().await
        };
        // Each with a waker of its own, so that a message costs no more than its direction.
        let mut parts = FuturesUnordered::<Part<'_>>::new();
        parts.push(Box::pin(up));
        parts.push(Box::pin(down));
        parts.push(Box::pin(beside));
        let mut client_ended = false;
        for _directions in 0..2 {
            client_ended |= parts.next().await.unwrap_or(false);
        }
        drop(parts);
        if client_ended {
            return Err(None);
        }
        let next = lock(&next).take();
        Box::pin(self.after(leg, next, recording)).await
    }

    /// What follows a connection upstream: the next one, which may be there already, or the end.
    async fn after(
        &self,
        leg: &Leg,
        next: Option<Fresh>,
        recording: &Option<Recording>,
    ) -> Result<Fresh, Option<Farewell>> {
        if let Some(verdict) = self.verdict.get() {
            return Err(Some(verdict.clone()));
        }
        let policy = self.relaying.policy;
        let report = leg.ended().await;
        let farewell = Farewell::of_report(From::Upstream, &report);
        let unsent = leg.take_unsent();
        let unknown = self.unknown(leg, &unsent);
        let is_whole = match &next {
            // Upstream has read everything, but it was for the old connection.
            Some(_) if report.peer.is_some() => policy.is_snapshot() || self.is_unused(unknown),
            _ => unknown == 0 && (policy.is_snapshot() || self.is_unused(unknown)),
        };
        let told = match (is_whole, &policy.gap_message) {
            (true, _) => None,
            (false, Some(text)) => Some(text),
            (false, None) if next.is_some() => return Err(Some(Farewell::of_age())),
            (false, None) => return Err(Some(farewell)),
        };
        let passed = self.relaying.passed;
        let mut next = match next {
            Some(next) => {
                passed.rotations.fetch_add(1, Relaxed);
                tracing::info!("went over to a new connection upstream");
                next
            }
            None if leg.sender.is_session() || !policy.renews(&report) => {
                return Err(Some(farewell));
            }
            None => {
                tracing::warn!(
                    "upstream was lost, and is connected to again: {}",
                    farewell.reason
                );
                let next = self.again(leg).await?;
                passed.reconnects.fetch_add(1, Relaxed);
                next
            }
        };
        next.carried = unsent;
        next.carried
            .retain(|message| self.covered(message) != Covered::Yes);
        if let Some(text) = told {
            tracing::warn!("messages may be missing, and the client is told");
            let gap = Message::text(text.as_str());
            if let Some(recording) = recording {
                recording.append(vec![gap.clone()]).await;
            }
            if self.client.send(gap).await.is_err() {
                return Err(None);
            }
        }
        Ok(next)
    }

    /// Whether the client has got nothing, and nobody has to wonder about what it sent.
    pub(super) fn is_unused(&self, unknown: u64) -> bool {
        unknown == 0 && self.down.load(Relaxed) == 0
    }

    /// How many messages of the client upstream may have or not. Those that it cannot have are sent on
    /// the next connection.
    fn unknown(&self, leg: &Leg, unsent: &[Message]) -> u64 {
        let unsent = unsent.iter().map(|message| self.covered(message));
        let certain = unsent.filter(|covered| *covered == Covered::No).count();
        let uncovered = leg.uncovered.load(Relaxed);
        uncovered.saturating_sub(u64::try_from(certain).unwrap_or(u64::MAX))
    }

    fn covered(&self, message: &Message) -> Covered {
        match &self.memory {
            Some(memory) => lock(memory).covered(message),
            None => Covered::No,
        }
    }

    /// From the client to upstream. What the client sent before its end is sent on. `true`: the client
    /// has ended, and upstream is closed.
    async fn up(&self, leg: &Leg, carried: Vec<Message>, from: &mut Receiver, turn: &Turn) -> bool {
        if !self.send_carried(leg, carried).await {
            turn.over().await;
            return false;
        }
        let counters = [&self.relaying.passed.up, &self.messages, &leg.uncovered];
        // Without rules nobody will know of any of them whether upstream has it.
        let counters = match &self.memory {
            None => &counters[..],
            Some(_) => &counters[..2],
        };
        let (mut gap, mut full) = (None, None);
        let mut stops = pin!(turn.stops());
        loop {
            let batch = tokio::select! {
                biased;
                batch = from.recv_batch(), if turn.flows() => batch,
                () = &mut stops => match turn.waits().await {
                    true => {
                        stops.set(turn.stops());
                        continue;
                    }
                    false => return false,
                },
            };
            let Ok(Some(mut batch)) = batch else {
                break;
            };
            let mut counted = Counted::with(counters);
            let passing =
                leg.sender
                    .send_batch(&mut batch, |message| match self.note(leg, message) {
                        Ok(()) => {
                            counted.add(1);
                            ControlFlow::Continue(())
                        }
                        Err(why) => {
                            full = Some(why);
                            ControlFlow::Break(())
                        }
                    });
            match passing.await {
                Ok(Some(Incoming::Gap(missing))) => gap = Some(missing),
                Ok(_) => {}
                Err(error) => {
                    self.refused(leg, error, []).await;
                    turn.over().await;
                    return false;
                }
            }
            if let Some(full) = full {
                let _ = self.verdict.set(Farewell::of_full(full));
                leg.start_closing(CloseCode::GOING_AWAY);
                return false;
            }
            if gap.is_some() {
                break;
            }
        }
        // No more passes, so it is too late to go over to another connection.
        turn.end();
        // A session that was lost is a gap first. Then the client has ended.
        let farewell = match &gap {
            Some(gap) => Farewell::of_gap(From::Client, gap),
            None => Farewell::of_report(From::Client, &self.client.ended().await),
        };
        tracing::info!("the client ended: {} {}", farewell.code, farewell.reason);
        let (code, reason) = (farewell.code, &farewell.reason);
        let _ = tokio::join!(leg.close(code, reason), self.client.close(code, reason));
        true
    }

    /// Sends what upstream did not get on the connection before. `false`: it does not get it now either.
    async fn send_carried(&self, leg: &Leg, carried: Vec<Message>) -> bool {
        let mut carried = carried.into_iter();
        while let Some(message) = carried.next() {
            if self.covered(&message) == Covered::No {
                leg.uncovered.fetch_add(1, Relaxed);
            }
            if let Err(error) = leg.sender.send(message).await {
                self.refused(leg, error, carried).await;
                return false;
            }
        }
        true
    }

    /// Upstream has refused a message of the client, and gets none of those behind it.
    async fn refused(&self, leg: &Leg, error: SendError, rest: impl IntoIterator<Item = Message>) {
        if let SendRefusal::TooLarge { limit, .. } = &error.reason {
            let why = format!("a message is larger than the {limit} bytes that upstream takes");
            let _ = self
                .verdict
                .set(Farewell::new(CloseCode::MESSAGE_TOO_BIG, why));
            leg.start_closing(CloseCode::GOING_AWAY);
        }
        leg.refused(error, rest.into_iter());
    }

    /// From upstream to the client. What upstream sent before its end is sent on.
    async fn down(&self, from: &mut Receiver, held: &mut Held, recording: &Option<Recording>) {
        if !self.send_down(from, held, recording).await {
            // The client has ended, and the other direction tells upstream. What else comes is read
            // and dropped until then.
            while let Ok(Some(_)) = from.recv().await {}
        }
    }

    /// Stops the direction to the client when it cannot be recorded any more, or the client reads too
    /// slowly.
    async fn stops_down(&self, leg: &Leg, recording: &Option<Recording>, down: AbortHandle) {
        let failed = recording.as_ref().map(Recording::failed);
        tokio::select! {
            biased;
            () = self.recording_fails(failed) => {}
            () = self.overflow(leg) => {}
        }
        down.abort();
    }

    /// Returns when nothing more comes, or there is a verdict. `false`: the client has ended.
    async fn send_down(
        &self,
        from: &mut Receiver,
        held: &mut Held,
        recording: &Option<Recording>,
    ) -> bool {
        let counters = [&self.relaying.passed.down, &self.down];
        loop {
            // What came later has to wait for those that are held.
            if !held.messages.is_empty() {
                let copies = recording.as_ref().map(|_| held.messages.clone());
                Counted::with(&counters).add(held.messages.len());
                if self
                    .client
                    .send_many(held.messages.drain(..))
                    .await
                    .is_err()
                {
                    return false;
                }
                held.passed();
                if !self.record(recording, copies).await {
                    return true;
                }
            }
            let Ok(Some(mut batch)) = from.recv_batch().await else {
                return true;
            };
            let mut counted = Counted::with(&counters);
            let mut copies = recording.as_ref().map(|_| Copies::default());
            let passing = self.client.send_batch(&mut batch, |message| {
                if let Some(copies) = &mut copies {
                    copies.add(message)?;
                }
                counted.add(1);
                ControlFlow::Continue(())
            });
            let Ok(left) = passing.await else {
                return false;
            };
            drop(counted);
            self.messages.fetch_add(1, Relaxed);
            if !self.record(recording, copies.map(|it| it.messages)).await {
                return true;
            }
            match left {
                None => {}
                Some(Incoming::Message(message)) => held.push(message),
                Some(Incoming::Gap(gap)) => {
                    let _ = self.verdict.set(Farewell::of_gap(From::Upstream, &gap));
                    return true;
                }
            }
        }
    }

    /// `false`: they could not be recorded.
    async fn record(&self, recording: &Option<Recording>, messages: Option<Vec<Message>>) -> bool {
        let (Some(recording), Some(messages)) = (recording, messages) else {
            return true;
        };
        let recorded = recording.append(messages).await;
        if !recorded {
            self.unrecorded();
        }
        recorded
    }

    /// Takes note of a message of the client, if there are rules.
    fn note(&self, leg: &Leg, message: MessageRef<'_>) -> Result<(), Full> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        if lock(memory).note(&message.to_message())? == Covered::No {
            leg.uncovered.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Resolves when the recording has failed.
    async fn recording_fails(&self, failed: Option<Arc<Notify>>) {
        match failed {
            None => pending().await,
            Some(failed) => failed.notified().await,
        }
        self.unrecorded();
    }

    fn unrecorded(&self) {
        let why = "what passes here cannot be recorded any more";
        let farewell = Farewell::new(CloseCode::INTERNAL_ERROR, why);
        let _ = self.verdict.set(farewell);
    }

    /// Resolves when upstream was ended because its client reads too slowly. What waits for such a client
    /// is not waited for.
    async fn overflow(&self, leg: &Leg) {
        let report = leg.ended().await;
        match report.error.as_deref() {
            Some(error @ (ConnectionError::InboxFull | ConnectionError::Evicted { .. })) => {
                let _ = self.verdict.set(Farewell::of_error(From::Upstream, error));
            }
            _ => pending().await,
        }
    }
}
