//! One subscription of a client: its place, its credit, and what the application has not taken.

use bytes::Bytes;

use super::super::assembly::Assembly;
use super::super::limits::MIN_CREDIT;
use super::super::name::{Filter, Topic, is_utf8};
use super::super::position::{LogId, Offset, Position, StoredAt};
use super::super::record::{FirstRecord, TopicRecord};
use super::super::terms::{Gap, GapReason, Snapshot, Start, SubscriptionEnd};
use super::credit::Credit;
use super::delivery::{Delivery, MessageBatch, TopicMessage};
use super::queue::Queue;
use crate::error::ProtocolError;
use crate::payload::Kind;
use crate::util;

/// A subscription, over all connections.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) filter: Filter,
    /// The filter has no wildcard.
    is_topic: bool,
    /// Where it began, before a server has said where that is.
    start: Start,
    pub(super) max_lag_millis: u64,
    pub(super) stage: Stage,
    /// The connection on which it was asked for last.
    pub(super) attachment: u64,
    /// Everything up to here has come, or is in a gap.
    place: Option<Position>,
    /// What is coming is the latest message of each topic, up to this end of the log.
    snapshot: Option<Position>,
    /// The end that the log had, until CAUGHT_UP has come for it.
    target: Option<Offset>,
    answer: Option<Answer>,
    /// The final message of the filter's only topic has come: nothing follows.
    finished: bool,
    credit: Credit,
    /// The message that is not whole yet.
    partial: Option<Box<Partial>>,
    queue: Queue,
    /// [`Readable`](super::ClientEvent::Readable) was told.
    pub(super) told: bool,
    /// It stands in the line of those that want to send.
    pub(super) in_line: bool,
}

/// How far a subscription is on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// SUBSCRIBE is not sent.
    Idle,
    /// SUBSCRIBE is sent.
    Asked,
    /// SUBSCRIBED has come.
    Open,
    /// The application wants no more. `true`: UNSUBSCRIBE is sent.
    Leaving(bool),
    /// ENDED has come.
    Over,
}

/// What SUBSCRIBED has said, until the next packet. If the log is not what it was, that is the gap
/// which says so. If the connection is lost before it, then what was named is named again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    /// Delivery begins here.
    begins: Position,
    /// The last message of the log.
    end: Position,
    /// The gap that has to come. Without one `Diverged` still may come: the message at the place, or
    /// at the end of the snapshot, may be another one than it was.
    owes: Option<GapReason>,
}

#[derive(Clone, Debug)]
struct Partial {
    assembly: Assembly,
    offset: Offset,
    time: StoredAt,
    topic: Topic,
}

impl Subscription {
    pub(super) fn new(
        filter: Filter,
        start: Start,
        max_lag_millis: u64,
        window: u64,
    ) -> Subscription {
        Subscription {
            is_topic: filter.as_topic().is_some(),
            filter,
            start,
            max_lag_millis,
            stage: Stage::Idle,
            attachment: 0,
            place: None,
            snapshot: None,
            target: None,
            answer: None,
            finished: false,
            credit: Credit {
                window,
                granted: 0,
                received: 0,
                held: 0,
            },
            partial: None,
            queue: Queue::default(),
            told: false,
            in_line: false,
        }
    }

    /// Where to begin on the next connection.
    pub(super) fn start(&self) -> Start {
        match (self.place, self.snapshot) {
            (None, _) => self.start,
            (Some(place), Some(end)) => Start::Latest(Some(Snapshot {
                end,
                through: place.offset,
            })),
            (Some(place), None) => Start::After(place),
        }
    }

    /// The place up to which everything has come.
    pub(super) fn place(&self) -> Option<Position> {
        self.place
    }

    /// The first credit of a connection. `None` if the application has to take more first.
    pub(super) fn first_credit(&self) -> Option<u64> {
        let free = self.credit.window.saturating_sub(self.credit.held);
        (free >= MIN_CREDIT).then_some(free)
    }

    /// SUBSCRIBE is sent.
    pub(super) fn asked(&mut self, credit: u64) {
        self.stage = Stage::Asked;
        self.credit.granted = credit;
        self.credit.received = 0;
    }

    /// The connection is lost. What is there of a message comes again.
    pub(super) fn detach(&mut self) {
        self.partial = None;
        self.answer = None;
        self.target = None;
        if matches!(self.stage, Stage::Asked | Stage::Open) {
            self.stage = Stage::Idle;
            if self.finished {
                self.handle_ended(SubscriptionEnd::Final, String::new());
            }
        }
    }

    /// The application wants no more.
    pub(super) fn leave(&mut self) {
        self.stage = Stage::Leaving(false);
        self.queue = Queue::default();
        self.partial = None;
        self.credit.held = 0;
    }

    /// The memory of the message that is not whole, in bytes.
    pub(super) fn partial_memory(&self) -> u64 {
        let partial = self.partial.as_ref();
        partial.map_or(0, |partial| partial.assembly.memory())
    }

    /// The cost of what is delivered and not taken.
    pub(super) fn held(&self) -> u64 {
        self.credit.held
    }

    /// What the server may still send on this connection.
    pub(super) fn credit_left(&self) -> u64 {
        match self.stage {
            Stage::Asked | Stage::Open => self.credit.granted.saturating_sub(self.credit.received),
            Stage::Idle | Stage::Leaving(_) | Stage::Over => 0,
        }
    }

    /// The end that the log had, until everything up to it has come.
    pub(super) fn target(&self) -> Option<Offset> {
        self.target
    }

    /// The application has taken so much.
    pub(super) fn taken(&mut self, cost: u64) {
        self.credit.held = self.credit.held.saturating_sub(cost);
    }

    /// Whether CREDIT is to be sent.
    pub(super) fn owes_credit(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Open) && self.credit.is_due()
    }

    /// The offset of credit to send.
    pub(super) fn renew_credit(&mut self) -> u64 {
        self.credit.granted = self.credit.granted.max(self.credit.limit());
        self.credit.granted
    }

    pub(super) fn next_delivery(&mut self) -> Option<Delivery> {
        self.queue.pop()
    }

    pub(super) fn has_delivery(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// What the server sends.
impl Subscription {
    /// SUBSCRIBED.
    pub(super) fn handle_subscribed(
        &mut self,
        log: LogId,
        (after, time): (Offset, StoredAt),
        (end, end_time): (Offset, StoredAt),
    ) -> Result<(), ProtocolError> {
        if self.stage != Stage::Asked {
            return Err(ProtocolError::Unexpected("SUBSCRIBED without SUBSCRIBE"));
        }
        if after > end {
            return Err(ProtocolError::Inconsistent("a beginning behind the end"));
        }
        let at = |offset, time| Position { log, offset, time };
        let (begins, end) = (at(after, time), at(end, end_time));
        let start = self.start();
        // SUBSCRIBED gives a place to a subscription that has none, and does not change one.
        let (place, owes) = match start {
            Start::After(place) => (place, owed(place, after != place.offset, log)),
            Start::Latest(_) if begins != at(Offset::START, StoredAt::UNKNOWN) => {
                return Err(ProtocolError::Inconsistent(
                    "a snapshot that begins behind a message",
                ));
            }
            Start::Latest(Some(snapshot)) => {
                self.snapshot = Some(snapshot.end);
                let place = Position {
                    log: snapshot.end.log,
                    offset: snapshot.through,
                    time: StoredAt::UNKNOWN,
                };
                (
                    place,
                    owed(snapshot.end, end.offset < snapshot.end.offset, log),
                )
            }
            Start::Latest(None) => {
                self.snapshot = Some(end);
                (begins, None)
            }
            _ => (begins, None),
        };
        self.stage = Stage::Open;
        self.target = Some(end.offset);
        self.place.get_or_insert(place);
        self.answer = Some(Answer { begins, end, owes });
        Ok(())
    }

    /// The next packet has come, and no gap is owed any more: the snapshot goes on up to the end that
    /// SUBSCRIBED named.
    fn settle(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.snapshot = self.snapshot.map(|_| answer.end);
        }
    }

    /// Everything but the gap that has to come first.
    fn check_expected(&mut self) -> Result<Position, ProtocolError> {
        if self.stage != Stage::Open {
            return Err(ProtocolError::Unexpected("a packet before SUBSCRIBED"));
        }
        if self.answer.is_some_and(|answer| answer.owes.is_some()) {
            return Err(ProtocolError::Inconsistent(
                "another place than was named, without a gap",
            ));
        }
        self.settle();
        self.place.ok_or(ProtocolError::Unexpected("no place"))
    }

    /// Within a message only ENDED may come.
    fn check_between(&self) -> Result<(), ProtocolError> {
        match self.partial {
            None => Ok(()),
            Some(_) => Err(ProtocolError::Unexpected("a packet within a message")),
        }
    }

    /// GAP.
    pub(super) fn handle_gap(&mut self, gap: Gap) -> Result<(), ProtocolError> {
        let anew = starts_anew(gap.reason);
        let named = self.place.map(|place| place.offset);
        if anew && self.stage == Stage::Open && named != Some(gap.after) {
            return Err(ProtocolError::Inconsistent("a gap behind another place"));
        }
        let position = match self.answer {
            Some(answer)
                if self.stage == Stage::Open
                    && gap.reason == answer.owes.unwrap_or(GapReason::Diverged)
                    && gap.through == answer.begins.offset =>
            {
                answer.begins
            }
            _ => {
                let place = self.check_expected()?;
                if anew || gap.after < place.offset || gap.through < gap.after {
                    return Err(ProtocolError::Inconsistent("a gap in another place"));
                }
                let same = gap.through == place.offset;
                Position {
                    log: place.log,
                    offset: gap.through,
                    time: if same { place.time } else { StoredAt::UNKNOWN },
                }
            }
        };
        self.check_between()?;
        self.settle();
        self.place = Some(position);
        self.queue.push_gap(gap, position);
        Ok(())
    }

    /// CAUGHT_UP.
    pub(super) fn handle_caught_up(
        &mut self,
        offset: Offset,
        time: StoredAt,
    ) -> Result<(), ProtocolError> {
        let place = self.check_expected()?;
        self.check_between()?;
        if offset < place.offset || self.target.is_some_and(|target| offset < target) {
            return Err(ProtocolError::Inconsistent("caught up with another place"));
        }
        let same = offset == place.offset && time == StoredAt::UNKNOWN;
        let position = Position {
            log: place.log,
            offset,
            time: if same { place.time } else { time },
        };
        self.snapshot = None;
        let caught_up = self.target.take().is_some();
        self.queue.push_mark(caught_up, position);
        self.place = Some(position);
        Ok(())
    }

    /// ENDED.
    pub(super) fn handle_ended(&mut self, reason: SubscriptionEnd, text: String) {
        self.partial = None;
        self.answer = None;
        self.target = None;
        self.stage = Stage::Over;
        self.queue.push(Delivery::Ended { reason, text });
    }

    /// MESSAGES.
    pub(super) fn handle_messages(
        &mut self,
        records: &Bytes,
        max_message: u64,
    ) -> Result<(), ProtocolError> {
        let mut place = self.check_expected()?;
        let mut run = Run::default();
        let mut at = 0;
        while at < records.len() {
            let record = TopicRecord::read_stored(&records[at..], self.partial.is_none())?;
            let begin = at;
            at += record.size;
            self.credit.spend(record.cost())?;
            if let Some(first) = record.first {
                self.check_place(place.offset, first.stored.0)?;
                self.check_topic(records, &mut run, first)?;
            }
            let single = record.first.is_some() && !record.continues;
            if !single {
                self.deliver_run(records, &mut run, place);
                if let Some((offset, time)) = self.piece(&record, max_message, place.log)? {
                    (place.offset, place.time) = (offset, time);
                }
                continue;
            }
            if record.kind == Kind::Text && !is_utf8(record.payload) {
                return Err(ProtocolError::InvalidText);
            }
            if let Some(first) = record.first {
                (place.offset, place.time) = first.stored;
            }
            self.finished |= record.is_final && self.is_topic;
            run.add(begin, &record);
        }
        self.deliver_run(records, &mut run, place);
        self.place = Some(place);
        Ok(())
    }

    fn check_place(&self, place: Offset, offset: Offset) -> Result<(), ProtocolError> {
        if offset <= place {
            return Err(ProtocolError::Inconsistent(
                "a message that is not behind the one before",
            ));
        }
        Ok(())
    }

    /// Neighbours often share their topic, which then is checked once.
    fn check_topic(
        &self,
        records: &Bytes,
        run: &mut Run,
        first: FirstRecord<'_>,
    ) -> Result<(), ProtocolError> {
        let checked = &records[run.topic.0..run.topic.1];
        if !checked.is_empty() && checked == first.topic {
            return Ok(());
        }
        let name = std::str::from_utf8(first.topic).ok();
        let topic = name.filter(|name| Topic::is_valid(name));
        let topic = topic.ok_or(ProtocolError::Malformed("a topic that is none"))?;
        if !self.filter.matches(topic) {
            return Err(ProtocolError::Inconsistent("a message of another topic"));
        }
        let begin = first.topic.as_ptr() as usize - records.as_ptr() as usize;
        run.topic = (begin, begin + first.topic.len());
        Ok(())
    }

    /// A record of a message of several. Returns the message's place if it is whole.
    fn piece(
        &mut self,
        record: &TopicRecord<'_>,
        max_message: u64,
        log: LogId,
    ) -> Result<Option<(Offset, StoredAt)>, ProtocolError> {
        let mut partial = match (self.partial.take(), record.first) {
            (Some(partial), _) => partial,
            (None, Some(first)) => Box::new(Partial {
                assembly: Assembly::new(record.kind, record.is_final, true),
                offset: first.stored.0,
                time: first.stored.1,
                topic: topic(first.topic)?,
            }),
            (None, None) => return Err(ProtocolError::Malformed("a record without its message")),
        };
        partial.assembly.cost += record.cost();
        let (kind, is_final) = (record.kind, record.is_final);
        partial
            .assembly
            .push(kind, is_final, record.payload, max_message)?;
        if record.continues {
            self.partial = Some(partial);
            return Ok(None);
        }
        let Partial {
            assembly,
            offset,
            time,
            topic,
        } = *partial;
        self.finished |= is_final && self.is_topic;
        let cost = assembly.cost;
        self.credit.held += cost;
        let message = TopicMessage {
            offset,
            time,
            topic,
            kind,
            is_final,
            payload: assembly.finish()?,
            cost,
        };
        self.queue
            .push(Delivery::Messages(MessageBatch::whole(log, message)));
        Ok(Some((offset, time)))
    }

    /// Hands over the messages of one record each that follow each other.
    fn deliver_run(&mut self, records: &Bytes, run: &mut Run, place: Position) {
        if run.count == 0 {
            return;
        }
        let range = run.begin..run.end;
        // A slice keeps its whole packet in memory, and pieces of long messages are not kept in it.
        let bytes = match range.len() * 2 >= records.len() {
            true => records.slice(range),
            false => util::copied(&records[range]),
        };
        let last = (place.offset, place.time);
        self.credit.held += run.cost;
        let batch = MessageBatch::records(place.log, bytes, run.count, run.cost, last);
        (run.count, run.cost) = (0, 0);
        self.queue.push_batch(batch);
    }
}

/// The gap that SUBSCRIBED owes if this position, which the client has named, is not in the log.
fn owed(named: Position, is_elsewhere: bool, log: LogId) -> Option<GapReason> {
    match () {
        () if named.log != log => Some(GapReason::AnotherLog),
        () if is_elsewhere => Some(GapReason::Diverged),
        () => None,
    }
}

/// Whether the log is another one behind such a gap.
fn starts_anew(reason: GapReason) -> bool {
    matches!(reason, GapReason::AnotherLog | GapReason::Diverged)
}

/// Records of whole messages that follow each other in a packet.
#[derive(Default)]
struct Run {
    begin: usize,
    end: usize,
    count: usize,
    cost: u64,
    /// Where the last topic stands that was checked.
    topic: (usize, usize),
}

impl Run {
    fn add(&mut self, begin: usize, record: &TopicRecord<'_>) {
        if self.count == 0 {
            self.begin = begin;
        }
        self.end = begin + record.size;
        self.count += 1;
        self.cost += record.cost();
    }
}

fn topic(name: &[u8]) -> Result<Topic, ProtocolError> {
    let name = std::str::from_utf8(name).ok();
    let topic = name.and_then(|name| Topic::new(name).ok());
    topic.ok_or(ProtocolError::Malformed("a topic that is none"))
}
