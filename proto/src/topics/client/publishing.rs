//! Messages that a client publishes, until they are answered (SPEC-TOPICS.md, "Publishing").

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::limits::{MIN_PUBLISH_WINDOW, PACKET_FILL, message_cost};
use super::super::name::Topic;
use super::super::packet::{PUBLISH_HEAD, PublishedRun, kind};
use super::super::record::{Head, MAX_HEAD};
use super::super::terms::Refusal;
use super::event::{PublishError, Unanswered};
use crate::error::ProtocolError;
use crate::limits::{MAX_RECORD, MIN_MAX_MESSAGE};
use crate::payload::Kind;
use crate::time::Time;
use crate::transmit::Transmit;
use crate::util;

/// A piece of a message of at least this many bytes is sent without a copy, in a packet of its own.
const SHARED: usize = 8 * 1024;

/// The published messages without an answer.
#[derive(Clone, Debug)]
pub(super) struct Publishing {
    /// A message whose answer was lost may be sent again: the publisher has an id.
    repeats: bool,
    /// The number of the first message in `open`.
    first: u64,
    open: VecDeque<Open>,
    /// The cost of `open`.
    cost: u64,
    /// The most that `open` may cost, unless it is one message.
    bound: u64,
    line: Line,
    /// The largest message of the server that was there last.
    pub(super) max_message: u64,
    /// For how long a message may be sent again, as the last server said.
    once: Option<Duration>,
    /// Somebody was refused for want of room.
    wants_room: bool,
}

/// What was sent on this connection.
#[derive(Clone, Debug)]
struct Line {
    /// A PUBLISH was sent, so no number may be left out.
    begun: bool,
    /// How many messages of `open` were sent whole.
    sent: usize,
    /// Of the next one, how many bytes.
    piece: usize,
    /// The cost of those that were sent, and of one that is being sent.
    cost: u64,
    /// The server's window.
    window: u64,
    /// No message begins before this one is answered, because the token has changed since.
    barrier: u64,
}

#[derive(Clone, Debug)]
struct Open {
    topic: Topic,
    kind: Kind,
    is_final: bool,
    payload: Bytes,
    cost: u64,
    /// When it was first sent to its end.
    sent: Option<Time>,
    /// It was sent to its end on an earlier connection.
    again: bool,
    /// It can no longer be sent, but its number has to be: a record without a topic goes in its
    /// place, which every server refuses.
    void: bool,
}

/// What became of a message that was refused.
pub(super) enum Verdict {
    Refused {
        reason: Refusal,
        may_be_stored: bool,
    },
    Unknown,
}

impl Publishing {
    pub(super) fn new(repeats: bool, bound: u64) -> Publishing {
        Publishing {
            repeats,
            first: 1,
            open: VecDeque::new(),
            cost: 0,
            bound,
            line: Line::new(MIN_PUBLISH_WINDOW),
            max_message: MIN_MAX_MESSAGE,
            once: None,
            wants_room: false,
        }
    }

    /// Takes a message, and gives it the next number.
    pub(super) fn push(
        &mut self,
        topic: Topic,
        kind: Kind,
        is_final: bool,
        payload: Bytes,
    ) -> Result<u64, PublishError> {
        if payload.len() as u64 > self.max_message {
            let limit = self.max_message;
            return Err(PublishError::TooLarge { limit });
        }
        let cost = message_cost(topic.as_str().len(), payload.len());
        if self.cost + cost > self.bound && !self.open.is_empty() {
            self.wants_room = true;
            return Err(PublishError::Full);
        }
        self.cost += cost;
        util::push_back(
            &mut self.open,
            Open {
                topic,
                kind,
                is_final,
                payload,
                cost,
                sent: None,
                again: false,
                void: false,
            },
        );
        Ok(self.first + self.open.len() as u64 - 1)
    }

    /// Whether somebody waits for room, and there is some. It says so once.
    pub(super) fn has_room_again(&mut self) -> bool {
        let room = self.wants_room && self.cost <= self.bound / 2;
        self.wants_room &= !room;
        room
    }

    /// The cost of all messages without an answer.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// A server has said what it takes.
    pub(super) fn begin(&mut self, window: u64, max_message: u64, once: Option<Duration>) {
        self.line = Line::new(window);
        self.max_message = max_message;
        self.once = once;
        for open in &mut self.open {
            open.void |= open.payload.len() as u64 > max_message;
        }
    }

    /// The connection is lost. Returns how many messages can not be sent again, if the publisher has
    /// no id: the first ones.
    pub(super) fn detach(&mut self) -> u64 {
        self.line = Line::new(self.line.window);
        if self.repeats {
            for open in &mut self.open {
                open.again = open.sent.is_some();
            }
            return 0;
        }
        let sent = self.open.iter().take_while(|open| open.sent.is_some());
        let count = sent.count();
        self.pop(count)
    }

    /// Gives up messages that may not be sent again because their first sending is too long ago.
    /// Returns how many, the first ones. On a connection on which PUBLISH was sent they keep their
    /// places, and are [void](Open::void).
    pub(super) fn expire(&mut self, now: Time) -> u64 {
        let Some(once) = self.once else { return 0 };
        let late = |open: &Open| open.sent.is_some_and(|sent| now.since(sent) >= once);
        if self.line.begun {
            let being_sent = usize::from(self.line.piece > 0);
            let waiting = self.open.iter_mut().skip(self.line.sent + being_sent);
            waiting
                .take_while(|open| late(open))
                .for_each(|open| open.void = true);
            return 0;
        }
        let count = self.open.iter().take_while(|open| late(open)).count();
        self.pop(count)
    }

    /// When a message that waits to be sent again is given up.
    pub(super) fn deadline(&self) -> Option<Time> {
        let once = self.once?;
        let being_sent = usize::from(self.line.piece > 0);
        let mut waiting = self.open.iter().skip(self.line.sent + being_sent);
        let next = waiting.find(|open| !open.void)?;
        Some(next.sent?.after(once))
    }

    fn pop(&mut self, count: usize) -> u64 {
        self.cost -= self.open.drain(..count).map(|open| open.cost).sum::<u64>();
        self.first += count as u64;
        util::trim(&mut self.open);
        count as u64
    }

    /// The number of the first message without an answer.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The server has stored messages. Returns the numbers of the first one of each run.
    pub(super) fn stored(
        &mut self,
        first: u64,
        runs: impl Iterator<Item = PublishedRun>,
        mut each: impl FnMut(u64, PublishedRun),
    ) -> Result<(), ProtocolError> {
        self.check_answer(first)?;
        for run in runs {
            if run.count > self.line.sent as u64 {
                return Err(NOT_SENT);
            }
            each(self.first, run);
            self.answered(run.count as usize);
        }
        Ok(())
    }

    /// The server has refused a message.
    pub(super) fn refused(
        &mut self,
        number: u64,
        reason: Refusal,
    ) -> Result<Verdict, ProtocolError> {
        self.check_answer(number)?;
        let Some(open) = self.open.front().filter(|_| self.line.sent > 0) else {
            return Err(NOT_SENT);
        };
        let verdict = match open.void {
            true if open.sent.is_some() => Verdict::Unknown,
            true => Verdict::Refused {
                reason: Refusal::TooLarge,
                may_be_stored: false,
            },
            // What an earlier connection brought may be stored, now or later. Only a topic is as
            // invalid there as here.
            false => Verdict::Refused {
                reason,
                may_be_stored: reason == Refusal::Unknown
                    || (open.again && reason != Refusal::InvalidTopic),
            },
        };
        self.answered(1);
        Ok(verdict)
    }

    fn check_answer(&self, number: u64) -> Result<(), ProtocolError> {
        match number == self.first {
            true => Ok(()),
            false => Err(ProtocolError::Inconsistent(
                "an answer out of the order of the numbers",
            )),
        }
    }

    fn answered(&mut self, count: usize) {
        let cost: u64 = self.open.iter().take(count).map(Open::sent_cost).sum();
        self.line.cost -= cost;
        self.line.sent -= count;
        self.pop(count);
    }

    /// The token changes. What was refused with the old one might be stored with the new one: if a
    /// later message were, and the refusal lost, it would count as stored.
    pub(super) fn change_token(&mut self) {
        let begun = self.line.sent + usize::from(self.line.piece > 0);
        self.line.barrier = self.first + begun as u64 - 1;
    }

    /// Whether there is something to send.
    pub(super) fn wants_transmit(&self) -> bool {
        self.line.piece > 0 || self.next_fits()
    }

    /// Whether the window has room for the next message.
    fn next_fits(&self) -> bool {
        let next = self.open.get(self.line.sent);
        let fits = |open: &Open| {
            self.line.cost == 0 || self.line.cost + open.sent_cost() <= self.line.window
        };
        self.first > self.line.barrier && next.is_some_and(fits)
    }

    /// The next PUBLISH packet.
    pub(super) fn transmit(&mut self, now: Time) -> Option<Transmit> {
        if !self.wants_transmit() {
            return None;
        }
        self.line.begun = true;
        let mut packet = BytesMut::new();
        let first = self.first + self.line.sent as u64;
        packet.put_u8(kind::PUBLISH);
        packet.put_u64(first);
        loop {
            let head = packet.len();
            let piece = self.next_record(now, &mut packet);
            if piece.len() >= SHARED && head == PUBLISH_HEAD {
                return Some(Transmit::new(packet.freeze(), piece));
            }
            util::copy_in_pieces(&piece, |part| packet.extend_from_slice(part));
            let next = self.open.get(self.line.sent);
            let size = next.map_or(0, |open| open.sent_payload().len() + MAX_HEAD);
            let goes_on = self.line.piece == 0 && self.next_fits();
            if !goes_on || packet.len() + size > PACKET_FILL {
                return Some(packet.freeze().into());
            }
        }
    }

    /// Encodes the head of the next record, and returns its payload.
    fn next_record(&mut self, now: Time, packet: &mut BytesMut) -> Bytes {
        let open = &mut self.open[self.line.sent];
        let begin = self.line.piece;
        if begin == 0 {
            self.line.cost += open.sent_cost();
        }
        let payload = open.sent_payload();
        let end = payload.len().min(begin + MAX_RECORD);
        let continues = end < payload.len();
        let topic = if open.void { "" } else { open.topic.as_str() };
        let head = Head {
            kind: open.kind,
            continues,
            is_final: open.is_final,
            first: (begin == 0).then_some((None, topic)),
        };
        head.write(packet, end - begin);
        if continues {
            self.line.piece = end;
        } else {
            // A message that was not sent to its end is not stored.
            if !open.void {
                open.sent.get_or_insert(now);
            }
            self.line.piece = 0;
            self.line.sent += 1;
        }
        payload.slice(begin..end)
    }

    /// All messages, with what is known of them. None is left.
    pub(super) fn give_up(&mut self) -> Vec<Unanswered> {
        let first = self.first;
        self.first += self.open.len() as u64;
        self.cost = 0;
        self.line = Line::new(self.line.window);
        let all = std::mem::take(&mut self.open).into_iter().zip(first..);
        let given = all.map(|(open, number)| Unanswered {
            number,
            topic: open.topic,
            kind: open.kind,
            is_final: open.is_final,
            payload: open.payload,
            may_be_stored: open.sent.is_some(),
        });
        given.collect()
    }
}

const NOT_SENT: ProtocolError = ProtocolError::Inconsistent("an answer to a message not sent");

impl Line {
    fn new(window: u64) -> Line {
        Line {
            begun: false,
            sent: 0,
            piece: 0,
            cost: 0,
            window,
            barrier: 0,
        }
    }
}

impl Open {
    fn sent_payload(&self) -> Bytes {
        match self.void {
            true => Bytes::new(),
            false => self.payload.clone(),
        }
    }

    /// What it costs on the wire.
    fn sent_cost(&self) -> u64 {
        match self.void {
            true => message_cost(0, 0),
            false => self.cost,
        }
    }
}
