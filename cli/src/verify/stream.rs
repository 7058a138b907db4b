//! The messages that one process sends and receives over a connection, and its reports of them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use unstall::{ConnectionError, Event, Events, Gap, Incoming, Message, Receiver, Sender, Stats};

use super::peer::back;
use super::plan::Sizes;
use super::talk::{Connections, Part, Report, report};
use crate::time::later;

/// Indexes that are reported before they are sent: one write for this many messages. A process that
/// is killed may have reported this many and not sent them.
const AHEAD: u64 = 64;

/// The most messages that are received before they are reported and acknowledged.
const BATCH: u64 = 1024;

/// The text after the last message, which says how many there are. It is sent again after each
/// possible loss.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: u64,
}

/// The orders that pause or stop a process.
#[derive(Debug, Default)]
pub(super) struct Halt {
    pause_millis: AtomicU64,
    stopped: AtomicBool,
    told: Notify,
}

impl Halt {
    pub(super) fn pause(&self, lasts: Duration) {
        self.pause_millis.store(lasts.as_millis() as u64, Relaxed);
    }

    /// Nothing more is sent.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.told.notify_one();
    }
}

/// Why an exchange has ended.
#[derive(Debug)]
pub(super) enum Over {
    Closed,
    Broken(ConnectionError),
}

/// The messages of one process, over any number of connections.
pub(super) struct Stream<'a> {
    producer: Producer<'a>,
    consumer: Consumer<'a>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(part: &Part, halt: &'a Halt) -> Self {
        Self {
            producer: Producer {
                sizes: part.sizes,
                first: part.first,
                next: part.first,
                told: part.first,
                count: part.count,
                rate: part.rate,
                started: None,
                halt,
            },
            consumer: Consumer {
                sizes: part.sizes,
                halt,
                fresh: false,
                tells_of_resumes: part.echoed,
                sessions_lost: 0,
            },
        }
    }

    /// Sends and receives until the connection has ended. Cancel safety: every message that was
    /// received is reported.
    ///
    /// # Errors
    /// The verifier has ended.
    pub(super) async fn exchange(
        &mut self,
        sender: &Sender,
        receiver: &mut Receiver,
    ) -> io::Result<Over> {
        let gap = Notify::new();
        let events = receiver.events();
        tokio::select! {
            over = self.consumer.run(sender, receiver, events, &gap) => over,
            failed = self.producer.run(sender, &gap) => Err(failed),
        }
    }

    /// A new session begins.
    pub(super) fn begins(&mut self) {
        self.consumer.fresh = true;
    }

    /// Sends again from this index on. Returns the indexes that were sent before.
    pub(super) fn go_back(&mut self, first: u64) -> std::ops::Range<u64> {
        let next = self.producer.next;
        self.producer.next = next.min(first);
        first..next
    }

    /// Receives the messages that a connection still holds after its end.
    pub(super) async fn take_rest(
        &mut self,
        sender: &Sender,
        receiver: &mut Receiver,
    ) -> io::Result<()> {
        let events = receiver.events();
        self.consumer
            .run(sender, receiver, events, &Notify::new())
            .await
            .map(|_| ())
    }

    pub(super) fn connections(&self, stats: &Stats) -> Connections {
        Connections {
            reconnects: stats.connections.saturating_sub(1),
            resumes: stats.resumes,
            sessions_lost: self.consumer.sessions_lost,
        }
    }
}

struct Producer<'a> {
    sizes: Sizes,
    first: u64,
    next: u64,
    /// Indexes below this were reported.
    told: u64,
    count: u64,
    rate: Option<f64>,
    started: Option<Instant>,
    halt: &'a Halt,
}

impl Producer<'_> {
    /// Sends every message and then the end, which it sends again after each gap. Returns only if
    /// the verifier has ended.
    async fn run(&mut self, sender: &Sender, gap: &Notify) -> io::Error {
        loop {
            if let Err(error) = self.send_all(sender).await {
                return error;
            }
            tokio::select! {
                () = gap.notified() => {}
                () = self.halt.told.notified() => {}
            }
        }
    }

    async fn send_all(&mut self, sender: &Sender) -> io::Result<()> {
        while self.next < self.count && !self.halt.stopped.load(Relaxed) {
            if !self.is_due().await {
                continue;
            }
            if self.next == self.told {
                self.told = (self.told + AHEAD).min(self.count);
                report(&[Report::Sending(self.told)])?;
            }
            let message = self.sizes.message(self.next);
            if sender.send(message).await.is_err() {
                // The receiving half also sees the end, and reports why.
                return std::future::pending().await;
            }
            self.next += 1;
        }
        if self.told != self.next {
            self.told = self.next;
            report(&[Report::Sending(self.told)])?;
        }
        let end = serde_json::json!(End { end: self.next }).to_string();
        match sender.send(end).await {
            Ok(()) => Ok(()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until it is time for the next message; `false` if something else happened first.
    async fn is_due(&mut self) -> bool {
        let Some(rate) = self.rate else { return true };
        let started = *self.started.get_or_insert_with(Instant::now);
        let due = later(
            started,
            Duration::from_secs_f64((self.next - self.first) as f64 / rate),
        );
        if due <= Instant::now() {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep_until(due) => true,
            () = self.halt.told.notified() => false,
        }
    }
}

struct Consumer<'a> {
    sizes: Sizes,
    halt: &'a Halt,
    /// Set from a new connection to the first message over it.
    fresh: bool,
    /// Each resume is reported as it happens.
    tells_of_resumes: bool,
    sessions_lost: u64,
}

impl Consumer<'_> {
    async fn run(
        &mut self,
        sender: &Sender,
        receiver: &mut Receiver,
        mut events: Events,
        gap: &Notify,
    ) -> io::Result<Over> {
        loop {
            let mut incoming = receiver.recv().await;
            // Nothing is awaited between here and the report, so every received message is reported.
            let (mut notes, mut taken) = (Notes::default(), 0);
            let mut resumes = 0;
            while let Some(Some(event)) = events.recv().now_or_never() {
                resumes += u64::from(matches!(event, Event::Resumed { .. }));
            }
            self.fresh |= resumes > 0;
            if resumes > 0 && self.tells_of_resumes {
                notes.0.push(Report::Resumed(resumes));
            }
            let over = loop {
                match incoming {
                    Ok(Some(Incoming::Message(message))) => self.take(&message, &mut notes),
                    Ok(Some(Incoming::Gap(what))) => {
                        self.fresh = true;
                        self.sessions_lost += u64::from(matches!(what, Gap::SessionLost { .. }));
                        notes.0.push(Report::Gap);
                        notes.0.push(back(sender, None, self.sizes));
                        gap.notify_one();
                    }
                    Ok(None) => break Some(Over::Closed),
                    Err(why) => break Some(Over::Broken(why)),
                }
                taken += 1;
                if taken == BATCH {
                    break None;
                }
                match receiver.try_recv() {
                    Some(next) => incoming = Ok(Some(next)),
                    None => break None,
                }
            };
            report(&notes.0)?;
            receiver.acknowledge();
            if let Some(over) = over {
                return Ok(over);
            }
            let pause = self.halt.pause_millis.swap(0, Relaxed);
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    fn take(&mut self, message: &Message, notes: &mut Notes) {
        let index = self.sizes.index_of(message);
        if index.is_none()
            && let Some(Ok(End { end })) = message.as_text().map(serde_json::from_str)
        {
            notes.0.push(Report::Ended(end));
            return;
        }
        notes.take(index);
        if std::mem::take(&mut self.fresh) {
            notes.0.push(Report::Recovered);
        }
    }
}

/// The report of a batch.
#[derive(Debug, Default)]
struct Notes(Vec<Report>);

impl Notes {
    fn take(&mut self, index: Option<u64>) {
        match (index, self.0.last_mut()) {
            (Some(index), Some(Report::Took(_, last))) if *last + 1 == index => *last = index,
            (Some(index), _) => self.0.push(Report::Took(index, index)),
            (None, Some(Report::Corrupted(count))) => *count += 1,
            (None, _) => self.0.push(Report::Corrupted(1)),
        }
    }
}
