//! Messages that a client publishes, and their answers (SPEC-TOPICS.md, "Publishing").

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::assembly::Assembly;
use super::super::code::Code;
use super::super::limits::ANSWERS_FILL;
use super::super::name::Topic;
use super::super::packet::{TopicPacket, kind, write_run};
use super::super::position::Offset;
use super::super::record::{FirstRecord, TopicRecord};
use super::super::terms::{Durability, Refusal};
use super::event::{Outcome, PublishRequest};
use crate::error::ProtocolError;
use crate::number::{Offset as Cost, Seq};
use crate::payload::Kind;
use crate::util;

/// The published messages of one connection that have no answer yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Publishing {
    /// The number of the next message that begins. `None` before the first PUBLISH.
    next: Option<u64>,
    /// The message that is not whole yet.
    partial: Option<Partial>,
    /// The whole messages whose answers are not sent, in order. The last has the number before
    /// `next`.
    open: VecDeque<Open>,
    /// The cost of `open` and of what is there of `partial`.
    cost: u64,
    halt: Option<Halt>,
    /// What came since then.
    parked: Vec<PublishRequest>,
    pings: u64,
}

/// A message was refused, and the client may not know it. A later one must not be stored before it
/// does: if the answer is lost, the client sends the refused one again, and its number would count
/// as stored before.
#[derive(Clone, Debug)]
struct Halt {
    /// The last message that was refused.
    through: u64,
    /// The PING behind that answer. Its PONG shows that the client has the answer.
    ping: Option<u64>,
}

#[derive(Clone, Debug)]
struct Partial {
    assembly: Assembly,
    topic: Result<Topic, Refusal>,
}

#[derive(Clone, Debug)]
struct Open {
    cost: u64,
    outcome: Option<Outcome>,
}

/// What a client is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_message: u64,
    pub(super) window: u64,
    /// All messages are refused.
    pub(super) expired: bool,
    /// The client has a publisher's id, so its numbers are remembered.
    pub(super) numbered: bool,
}

impl Publishing {
    /// A PUBLISH packet has come. Returns the messages that are whole and have valid topics.
    pub(super) fn packet(
        &mut self,
        first: u64,
        packet: &Bytes,
        bounds: Bounds,
    ) -> Result<Vec<PublishRequest>, ProtocolError> {
        self.check_number(first)?;
        let mut requests = Vec::new();
        let mut last_topic: Option<Topic> = None;
        let mut at = 0;
        while at < packet.len() {
            let record = TopicRecord::read_published(&packet[at..], self.partial.is_none())?;
            at += record.size;
            self.spend(record.cost(), bounds.window)?;
            let begun = match record.first {
                Some(first) => Partial::begin(&record, first, &mut last_topic, bounds),
                None => self.partial.take().ok_or(NO_MESSAGE)?,
            };
            let payload = packet.slice(at - record.payload.len()..at);
            if let Some(request) = self.take(begun, &record, payload, bounds)? {
                requests.push(request);
            }
        }
        Ok(requests)
    }

    fn check_number(&mut self, first: u64) -> Result<(), ProtocolError> {
        let next = *self.next.get_or_insert(first);
        let expected = if self.partial.is_some() {
            next - 1
        } else {
            next
        };
        if first != expected {
            return Err(ProtocolError::SequenceGap {
                expected: Seq::new(expected),
                first: Seq::new(first),
            });
        }
        Ok(())
    }

    /// A record may come if all messages without an answer stay within the window, or if its
    /// message is the only one.
    fn spend(&mut self, cost: u64, window: u64) -> Result<(), ProtocolError> {
        self.cost += cost;
        if self.cost > window && !self.open.is_empty() {
            return Err(ProtocolError::CreditExceeded {
                sent: Cost::new(self.cost),
                granted: Cost::new(window),
            });
        }
        Ok(())
    }

    /// Adds a record to its message. Returns the message if it is whole now and is to be stored.
    fn take(
        &mut self,
        mut begun: Partial,
        record: &TopicRecord<'_>,
        payload: Bytes,
        bounds: Bounds,
    ) -> Result<Option<PublishRequest>, ProtocolError> {
        begun.assembly.cost += record.cost();
        if record.first.is_some() {
            let Some(next) = self.next.and_then(|next| next.checked_add(1)) else {
                return Err(ProtocolError::SequenceExhausted);
            };
            self.next = Some(next);
        }
        let single = record.first.is_some() && !record.continues;
        if !single {
            let (kind, is_final) = (record.kind, record.is_final);
            begun
                .assembly
                .push(kind, is_final, record.payload, bounds.max_message)?;
        }
        if record.continues {
            self.partial = Some(begun);
            return Ok(None);
        }
        let Partial { assembly, topic } = begun;
        let outcome = topic
            .as_ref()
            .err()
            .map(|refusal| Outcome::refused(*refusal));
        util::push_back(
            &mut self.open,
            Open {
                cost: assembly.cost,
                outcome,
            },
        );
        let topic = match topic {
            Ok(topic) => topic,
            Err(refusal) => {
                self.halt_after(self.last_number(), refusal, bounds.numbered);
                return Ok(None);
            }
        };
        let (kind, is_final) = (assembly.kind, assembly.is_final);
        let payload = match single {
            true => payload,
            false => assembly.finish()?,
        };
        if single && kind == Kind::Text && !super::super::name::is_utf8(&payload) {
            return Err(ProtocolError::InvalidText);
        }
        Ok(Some(PublishRequest {
            number: self.last_number(),
            topic,
            kind,
            is_final,
            payload,
        }))
    }

    /// The number of the last message that began.
    fn last_number(&self) -> u64 {
        self.next.map_or(0, |next| next - 1)
    }

    /// The number of the first message in `open`.
    fn first_open(&self) -> u64 {
        let begun = u64::from(self.partial.is_some());
        self.last_number() + 1 - begun - self.open.len() as u64
    }

    /// The caller's answer to a message. One that is answered already, or was never published, is
    /// left alone.
    pub(super) fn answer(&mut self, number: u64, outcome: Outcome, numbered: bool) {
        let Some(index) = number.checked_sub(self.first_open()) else {
            return;
        };
        let open = usize::try_from(index).ok();
        let open = open.and_then(|index| self.open.get_mut(index));
        let Some(open) = open.filter(|open| open.outcome.is_none()) else {
            return;
        };
        let refusal = match &outcome {
            Outcome::Refused { reason, .. } => Some(*reason),
            Outcome::Stored(_) => None,
        };
        open.outcome = Some(outcome);
        if let Some(refusal) = refusal {
            self.halt_after(number, refusal, numbered);
        }
    }

    /// Nothing more is stored for now, unless the refusal would come again with the same message.
    fn halt_after(&mut self, number: u64, refusal: Refusal, numbered: bool) {
        let passes = matches!(
            refusal,
            Refusal::Full | Refusal::Unknown | Refusal::Unavailable
        );
        if passes && numbered {
            let before = self.halt.as_ref().map_or(0, |halt| halt.through);
            self.halt = Some(Halt {
                through: before.max(number),
                ping: None,
            });
        }
    }

    /// Returns the messages that may be stored now. The others wait.
    pub(super) fn admit(&mut self, requests: Vec<PublishRequest>) -> Vec<PublishRequest> {
        match self.halt {
            None => requests,
            Some(_) => {
                self.parked.extend(requests);
                Vec::new()
            }
        }
    }

    /// Whether a PING is to be sent, because messages wait for its PONG.
    pub(super) fn wants_ping(&self) -> bool {
        let halt = self.halt.as_ref();
        let answered = |halt: &Halt| halt.ping.is_none() && self.first_open() > halt.through;
        !self.parked.is_empty() && halt.is_some_and(answered)
    }

    /// PING is sent, with this number.
    pub(super) fn ping(&mut self) -> u64 {
        self.pings += 1;
        if let Some(halt) = &mut self.halt {
            halt.ping = Some(self.pings);
        }
        self.pings
    }

    /// PONG has come. Returns the messages that waited for it.
    pub(super) fn pong(&mut self, number: u64) -> Vec<PublishRequest> {
        if self
            .halt
            .as_ref()
            .is_some_and(|halt| halt.ping == Some(number))
        {
            self.halt = None;
            return std::mem::take(&mut self.parked);
        }
        Vec::new()
    }

    /// Whether an answer can be sent.
    pub(super) fn has_answer(&self) -> bool {
        let first = self.open.front();
        first.is_some_and(|open| open.outcome.is_some())
    }

    /// The memory of the message that is not whole, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let partial = self.partial.as_ref();
        partial.map_or(0, |partial| partial.assembly.memory())
    }

    /// Encodes the next answer: PUBLISHED for a run of messages, or REFUSED for one.
    pub(super) fn next_answer(&mut self, durability: Durability, buf: &mut BytesMut) {
        let number = self.first_open();
        match self.pop() {
            Some(Outcome::Refused { reason, text }) => {
                let text = util::cut_reason(&text).to_owned();
                TopicPacket::Refused {
                    number,
                    reason,
                    text,
                }
                .encode(buf);
            }
            Some(Outcome::Stored(offset)) => {
                buf.put_u8(kind::PUBLISHED);
                buf.put_u8(durability.code());
                buf.put_u64(number);
                self.encode_runs(offset, buf);
            }
            None => {}
        }
        util::trim(&mut self.open);
    }

    fn encode_runs(&mut self, first: Option<Offset>, buf: &mut BytesMut) {
        let end = buf.len() + ANSWERS_FILL;
        let (mut offset, mut count) = (first, 1);
        while let Some(next) = self.next_stored() {
            let follows = match (offset, next) {
                (Some(offset), Some(next)) => offset.checked_add(count) == Some(next),
                (None, None) => true,
                _ => false,
            };
            if !follows {
                if buf.len() >= end {
                    break;
                }
                write_run(buf, count, offset);
                (offset, count) = (next, 0);
            }
            count += 1;
            self.pop();
        }
        write_run(buf, count, offset);
    }

    /// The answer to the first message, if it is stored.
    fn next_stored(&self) -> Option<Option<Offset>> {
        match self.open.front()?.outcome {
            Some(Outcome::Stored(offset)) => Some(offset),
            _ => None,
        }
    }

    fn pop(&mut self) -> Option<Outcome> {
        self.open.front()?.outcome.as_ref()?;
        let open = self.open.pop_front()?;
        self.cost -= open.cost;
        open.outcome
    }
}

const NO_MESSAGE: ProtocolError = ProtocolError::Malformed("a record without its message");

impl Partial {
    fn begin(
        record: &TopicRecord<'_>,
        first: FirstRecord<'_>,
        last_topic: &mut Option<Topic>,
        bounds: Bounds,
    ) -> Partial {
        let topic = match bounds.expired {
            true => Err(Refusal::Expired),
            false => topic(first.topic, last_topic),
        };
        Partial {
            assembly: Assembly::new(record.kind, record.is_final, topic.is_ok()),
            topic,
        }
    }
}

/// The topic. Neighbours often have the same, and then share the name.
fn topic(name: &[u8], last: &mut Option<Topic>) -> Result<Topic, Refusal> {
    if let Some(last) = last
        .as_ref()
        .filter(|last| last.as_str().as_bytes() == name)
    {
        return Ok(last.clone());
    }
    let name = std::str::from_utf8(name).map_err(|_| Refusal::InvalidTopic)?;
    let topic = Topic::new(name).map_err(|_| Refusal::InvalidTopic)?;
    *last = Some(topic.clone());
    Ok(topic)
}
