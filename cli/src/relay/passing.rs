//! One client and its connection upstream: passes messages both ways until either side ends, and then
//! closes the other with a code and a reason.

use std::{
    future::pending,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;
use unstall::{
    CloseCode, Connection, ConnectionError, Event, Events, Gap, Incoming, Message, Receiver, Sender,
};

use super::{
    ending::{Farewell, From},
    limits,
    record::Recording,
};
use crate::failure::chain;
use unstall::defaults::MESSAGE_OVERHEAD_BYTES;

/// What happens when a plain connection upstream is lost and can be made again.
#[derive(Clone, Debug, Default)]
pub(super) struct OnLoss {
    /// The message that the client gets at the place of the gap. Without it, the stream only goes on if
    /// no message had passed.
    pub(super) gap_message: Option<String>,
}

/// What passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

/// The two sides while they live.
struct Pair<'p> {
    client: Sender,
    upstream: Sender,
    on_loss: &'p OnLoss,
    passed: &'p Passed,
    /// Messages of this pair, in either direction.
    messages: AtomicU64,
    /// Some had passed when upstream was lost last.
    used: AtomicBool,
    /// Why the client has to be closed, if it is not what upstream's end says.
    verdict: OnceLock<Farewell>,
}

/// Passes messages until both sides have ended.
pub(super) async fn pass(
    client: Connection,
    upstream: Connection,
    on_loss: &OnLoss,
    passed: &Passed,
    recording: Option<Recording>,
) {
    let events = upstream.events();
    let (to_client, from_client) = client.split();
    let (to_upstream, from_upstream) = upstream.split();
    let pair = Pair {
        client: to_client,
        upstream: to_upstream,
        on_loss,
        passed,
        messages: AtomicU64::new(0),
        used: AtomicBool::new(false),
        verdict: OnceLock::new(),
    };
    tokio::join!(
        pair.up(from_client),
        pair.down(from_upstream, events, recording)
    );
}

impl Pair<'_> {
    /// From the client to upstream. What the client sent before its end is sent on.
    async fn up(&self, mut from: Receiver) {
        let mut gap = None;
        while let Ok(Some(first)) = from.recv().await {
            let run = self.run(first, &mut from, &mut gap, &self.passed.up);
            if self.upstream.send_many(run).await.is_err() {
                // Upstream has ended, and the other direction tells the client.
                break;
            }
            if gap.is_some() {
                break;
            }
        }
        drop(from);
        // A session that was lost is a gap first. Then the client has ended.
        let farewell = match &gap {
            Some(gap) => Farewell::of_gap(From::Client, gap),
            None => Farewell::of_report(From::Client, &self.client.ended().await),
        };
        tracing::info!("the client ended: {} {}", farewell.code, farewell.reason);
        let (code, reason) = (farewell.code, &farewell.reason);
        let _ = tokio::join!(
            self.upstream.close(code, reason),
            self.client.close(code, reason)
        );
    }

    /// From upstream to the client. What upstream sent before its end is sent on, unless the client
    /// reads too slowly for that.
    async fn down(&self, from: Receiver, events: Events, recording: Option<Recording>) {
        let failed = recording.as_ref().map(Recording::failed);
        tokio::select! {
            // A loss is noted before the gap that it leaves.
            biased;
            () = self.watch(events) => {}
            () = self.recording_fails(failed) => {}
            () = self.overflow() => {}
            () = self.send_down(from, recording) => {}
        }
        let report = match self.verdict.get() {
            Some(_) => None,
            None => Some(self.upstream.ended().await),
        };
        let farewell = match (self.verdict.get(), report) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(report)) => Farewell::of_report(From::Upstream, &report),
            (None, None) => Farewell::shutting_down(),
        };
        tracing::info!("upstream ended: {} {}", farewell.code, farewell.reason);
        let _ = self.client.close(farewell.code, &farewell.reason).await;
        let _ = self.upstream.close(farewell.code, &farewell.reason).await;
    }

    async fn send_down(&self, mut from: Receiver, recording: Option<Recording>) {
        let mut gap = None;
        let mut recorded = true;
        while let Ok(Some(first)) = from.recv().await {
            let mut copies = Copies::of(&recording);
            let mut run = self.run(first, &mut from, &mut gap, &self.passed.down);
            run.copies = copies.as_mut();
            if self.client.send_many(run).await.is_err() {
                // The client has ended, and the other direction tells upstream. What else comes is
                // read and dropped until then.
                break;
            }
            if let (Some(recording), Some(copies)) = (&recording, copies) {
                recorded = recording.append(copies.messages).await;
            }
            match gap.take() {
                _ if !recorded => break,
                None => {}
                Some(gap) if self.goes_on_after(&gap).await => {}
                Some(gap) => {
                    let _ = self.verdict.set(Farewell::of_gap(From::Upstream, &gap));
                    break;
                }
            }
        }
        if let Some(recording) = recording
            && !recording.end().await
        {
            self.unrecorded();
        }
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

    /// Whether the client can go on after a gap: nothing is missing for it, or it is told.
    async fn goes_on_after(&self, gap: &Gap) -> bool {
        let Gap::Reconnected { why, away } = gap else {
            return false;
        };
        if !self.used.load(Relaxed) {
            return true;
        }
        let Some(text) = &self.on_loss.gap_message else {
            return false;
        };
        tracing::warn!("upstream was lost for {away:.1?}: {}", chain(&**why));
        self.client.send(Message::text(text.as_str())).await.is_ok()
    }

    /// Resolves when upstream was ended because its client reads too slowly. What waits for such a client
    /// is not waited for.
    async fn overflow(&self) {
        let report = self.upstream.ended().await;
        match report.error.as_deref() {
            Some(error @ (ConnectionError::InboxFull | ConnectionError::Evicted { .. })) => {
                let _ = self.verdict.set(Farewell::of_error(From::Upstream, error));
            }
            _ => pending().await,
        }
    }

    /// Ends a plain connection upstream as soon as it is lost, if the client could not be told of the gap.
    /// What was received before still reaches the client.
    async fn watch(&self, mut events: Events) {
        while let Some(event) = events.recv().await {
            let Event::Disconnected { why, .. } = event else {
                continue;
            };
            let used = self.messages.load(Relaxed) > 0;
            self.used.store(used, Relaxed);
            let told = self.on_loss.gap_message.is_some() || !used;
            if !told && !self.upstream.is_session() {
                let _ = self.verdict.set(Farewell::of_error(From::Upstream, &why));
                let closing = self.upstream.close(CloseCode::GOING_AWAY, "");
                let _ = closing.await;
            }
        }
        pending().await
    }

    fn run<'r>(
        &'r self,
        first: Incoming,
        from: &'r mut Receiver,
        gap: &'r mut Option<Gap>,
        passed: &'r AtomicU64,
    ) -> Run<'r> {
        Run {
            first: Some(first),
            from,
            gap,
            count: 0,
            copies: None,
            counters: [passed, &self.messages],
        }
    }
}

/// The messages that are there now, one after the other, up to a gap. They are counted together, so that
/// connections do not wait for each other's counters.
struct Run<'r> {
    first: Option<Incoming>,
    from: &'r mut Receiver,
    gap: &'r mut Option<Gap>,
    count: u64,
    /// Where copies go, for the recording.
    copies: Option<&'r mut Copies>,
    counters: [&'r AtomicU64; 2],
}

/// Copies of the messages of a run.
#[derive(Default)]
struct Copies {
    messages: Vec<Message>,
    bytes: usize,
}

impl Copies {
    /// An empty list, if there is a recording.
    fn of(recording: &Option<Recording>) -> Option<Copies> {
        recording.as_ref().map(|_| Copies::default())
    }

    fn add(&mut self, message: &Message) {
        let cost = MESSAGE_OVERHEAD_BYTES.saturating_add(message.len());
        self.bytes = self.bytes.saturating_add(cost);
        self.messages.push(message.clone());
    }

    fn is_full(&self) -> bool {
        self.bytes >= limits::RECORD_BATCH_BYTES
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for counter in self.counters {
            counter.fetch_add(self.count, Relaxed);
        }
    }
}

impl Iterator for Run<'_> {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        let is_full = self.copies.as_ref().is_some_and(|copies| copies.is_full());
        if self.gap.is_some() || is_full {
            return None;
        }
        let next = match self.first.take() {
            Some(first) => first,
            None => self.from.try_recv()?,
        };
        match next {
            Incoming::Message(message) => {
                self.count += 1;
                if let Some(copies) = &mut self.copies {
                    copies.add(&message);
                }
                Some(message)
            }
            Incoming::Gap(gap) => {
                *self.gap = Some(gap);
                None
            }
        }
    }
}
