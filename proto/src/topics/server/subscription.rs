//! One subscription on a server: a cursor, a credit, and what is in hand.

mod packing;

use std::sync::Arc;

use bytes::BytesMut;

use super::super::block::Block;
use super::super::limits::{PROGRESS_OFFSETS, RECORD_OVERHEAD};
use super::super::name::Filter;
use super::super::opening::Opening;
use super::super::packet::TopicPacket;
use super::super::position::{Offset, StoredAt};
use super::super::subscribe::Subscribe;
use super::super::terms::{Gap, GapReason, SubscriptionEnd};
use super::event::{SubscriptionKey, SubscriptionStage};
use crate::transmit::Transmit;
use crate::util::cut_reason;

/// A subscription of a connection.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) key: SubscriptionKey,
    pub(super) filter: Filter,
    /// In milliseconds; 0: none.
    max_lag: u64,
    credit: u64,
    /// The sum of the costs that were sent.
    sent: u64,
    /// The cost of the next record, if the credit was too small for it.
    needs: u64,
    stage: Stage,
    /// Everything up to here is sent, left out, or in a gap.
    pub(super) place: Offset,
    /// CAUGHT_UP is sent for this place when everything up to it is sent, and then for later ones.
    target: (Offset, StoredAt),
    /// The message behind `place` of which some records are sent, and how many.
    begun: Option<(Offset, u32)>,
    /// Invariant: its next record is of a message behind `place`.
    hand: Option<Hand>,
    /// It is sent before what is in hand.
    gap: Option<Gap>,
    /// A read is under way.
    pub(super) reading: bool,
    /// It stands in the line of those that want to read.
    pub(super) in_read_line: bool,
    /// It stands in the line of those that want to send.
    pub(super) in_send_line: bool,
    /// The filter is a topic, so the subscription ends behind a final message.
    is_topic: bool,
}

/// How a subscription stands, for whoever watches. See [`Server::standing`](super::Server::standing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// How far it is.
    pub stage: SubscriptionStage,
    /// Everything up to here is sent, left out, or in a gap.
    pub place: Offset,
    /// What its client still accepts, in bytes.
    pub credit: u64,
    /// The credit is too small for the next message. It waits for its client if there is one.
    pub has_no_credit: bool,
    /// Messages are being read for it, or were read and are not sent yet. The place will change.
    pub is_moving: bool,
}

/// How far a subscription is.
#[derive(Clone, Debug)]
enum Stage {
    /// The caller was asked.
    Asked,
    /// SUBSCRIBED is to be sent.
    Opened(Box<Opening>),
    /// It is sending the latest message of each topic.
    Snapshot,
    /// It is sending what was there when it began.
    History,
    /// CAUGHT_UP was sent.
    Live,
    /// ENDED is to be sent.
    Ending(SubscriptionEnd, Box<str>),
    /// ENDED was sent.
    Over,
}

/// Messages to be sent.
#[derive(Clone, Debug)]
struct Hand {
    block: Arc<Block>,
    /// The next record.
    next: usize,
    /// The record behind the last one.
    end: usize,
    /// Everything of the filter up to here is in the block.
    through: Offset,
}

/// What a client and a moment demand of a subscription.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) now: StoredAt,
    /// The client's largest message.
    pub(super) max_message: u64,
    /// The end of the log.
    pub(super) end: (Offset, StoredAt),
}

impl Subscription {
    pub(super) fn new(key: SubscriptionKey, filter: Filter, subscribe: &Subscribe) -> Subscription {
        Subscription {
            key,
            is_topic: filter.as_topic().is_some(),
            filter,
            max_lag: subscribe.max_lag_millis,
            credit: subscribe.credit,
            sent: 0,
            needs: 0,
            stage: Stage::Asked,
            place: Offset::START,
            target: (Offset::START, StoredAt::UNKNOWN),
            begun: None,
            hand: None,
            gap: None,
            reading: false,
            in_read_line: false,
            in_send_line: false,
        }
    }

    /// The caller's answer.
    pub(super) fn open(&mut self, opening: Opening) {
        if matches!(self.stage, Stage::Asked) {
            self.stage = Stage::Opened(Box::new(opening));
        }
    }

    /// It is over. What is in hand is not sent.
    pub(super) fn end(&mut self, reason: SubscriptionEnd, text: &str) {
        if !self.is_ending() {
            self.stage = Stage::Ending(reason, cut_reason(text).into());
            self.hand = None;
            self.gap = None;
        }
    }

    /// ENDED is to be sent, or was sent.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending(..) | Stage::Over)
    }

    /// Why it is over, before ENDED is sent.
    pub(super) fn end_reason(&self) -> Option<SubscriptionEnd> {
        match self.stage {
            Stage::Ending(reason, _) => Some(reason),
            _ => None,
        }
    }

    /// ENDED was sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            stage: match self.stage {
                Stage::Asked | Stage::Opened(_) => SubscriptionStage::Opening,
                Stage::Snapshot | Stage::History => SubscriptionStage::History,
                Stage::Live => SubscriptionStage::Live,
                Stage::Ending(..) | Stage::Over => SubscriptionStage::Ending,
            },
            place: self.place,
            credit: self.credit_left(),
            has_no_credit: !self.has_credit(),
            is_moving: self.reading || self.hand.is_some() || self.gap.is_some(),
        }
    }

    /// The bytes of the block in hand.
    pub(super) fn hand_bytes(&self) -> u64 {
        let hand = self.hand.as_ref();
        hand.map_or(0, |hand| hand.block.memory() as u64)
    }

    /// Raises the credit. Whether that may let it go on.
    pub(super) fn raise_credit(&mut self, credit: u64) -> bool {
        let raised = credit > self.credit;
        self.credit = self.credit.max(credit);
        raised
    }

    fn credit_left(&self) -> u64 {
        self.credit.saturating_sub(self.sent)
    }

    fn has_credit(&self) -> bool {
        self.credit_left() >= self.needs.max(RECORD_OVERHEAD + 1)
    }

    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self.stage, Stage::Snapshot)
    }

    /// How far to read and how many bytes, if it wants to read.
    pub(super) fn wants_read(&self, end: Offset, max_bytes: usize) -> Option<(Offset, usize)> {
        let through = match self.stage {
            Stage::Snapshot => self.target.0,
            Stage::History | Stage::Live => end,
            _ => return None,
        };
        let busy = self.reading || self.hand.is_some() || self.gap.is_some();
        if busy || self.place >= through || !self.has_credit() {
            return None;
        }
        let credit = usize::try_from(self.credit_left()).unwrap_or(usize::MAX);
        Some((through, max_bytes.min(credit)))
    }

    /// Messages were read: everything of the filter behind `place` and up to `through` is in the
    /// block, if the first message that is left in the log is `first`.
    pub(super) fn take(&mut self, block: Arc<Block>, through: Offset, first: Offset) {
        if !self.is_snapshot() && first.before() > self.place {
            self.leave_out(GapReason::Removed, false, first.before());
        }
        if self.is_ending() {
            return;
        }
        let next = block.find(self.place);
        let end = block.find(through);
        if next < end {
            self.hand = Some(Hand {
                block,
                next,
                end,
                through,
            });
        } else {
            self.pass(through);
        }
    }

    /// Everything up to `through` is not sent, for this reason. A gap that is to be sent already has
    /// the same reason, and then they are one.
    pub(super) fn leave_out(&mut self, reason: GapReason, certain: bool, through: Offset) {
        if through <= self.place {
            return;
        }
        if self.begun.is_some() {
            return self.lose_begun();
        }
        match &mut self.gap {
            Some(gap) => {
                debug_assert_eq!(gap.reason, reason);
                gap.through = through;
                gap.certain |= certain;
            }
            None => {
                self.gap = Some(Gap {
                    reason,
                    certain,
                    after: self.place,
                    through,
                });
            }
        }
        self.place = through;
        if let Some(hand) = &mut self.hand {
            hand.next = hand.block.find(through);
        }
    }

    /// A message of which records are sent is no longer in the log. Within a message only ENDED may
    /// come. The client asks again from its position, and then gets the gap.
    fn lose_begun(&mut self) {
        self.end(
            SubscriptionEnd::Unavailable,
            "the message was removed from the log while it was being sent",
        );
    }

    /// Gives up what is in hand, if it waits for credit. It is read again.
    pub(super) fn release(&mut self) {
        if self.hand.is_some() && !self.has_credit() {
            self.hand = None;
        }
    }

    /// The next packet. `buf` is for what is encoded.
    pub(super) fn transmit(&mut self, context: Context, buf: &mut BytesMut) -> Option<Transmit> {
        if let Some(packet) = self.next_control(context) {
            packet.encode(buf);
            return Some(buf.split().freeze().into());
        }
        self.next_messages(context, buf)
    }

    /// What is sent before messages.
    fn next_control(&mut self, context: Context) -> Option<TopicPacket> {
        let subscription = self.key.number;
        match &self.stage {
            Stage::Asked | Stage::Over => return None,
            Stage::Opened(opening) => {
                let opening = **opening;
                return Some(self.begin(opening));
            }
            Stage::Snapshot | Stage::History | Stage::Live if self.gap.is_none() => {
                self.skip(context);
            }
            _ => {}
        }
        if let Some(gap) = self.gap.take() {
            self.told(gap.through);
            return Some(TopicPacket::Gap { subscription, gap });
        }
        if let Stage::Ending(reason, text) = &mut self.stage {
            let (reason, text) = (*reason, std::mem::take(text).into());
            self.stage = Stage::Over;
            return Some(TopicPacket::Ended {
                subscription,
                reason,
                text,
            });
        }
        let (offset, time) = self.caught_up(context)?;
        Some(TopicPacket::CaughtUp {
            subscription,
            offset,
            time,
        })
    }

    /// The client knows this place, so CAUGHT_UP need not tell it again.
    fn told(&mut self, place: Offset) {
        if matches!(self.stage, Stage::Live) {
            self.target = (place, StoredAt::UNKNOWN);
        }
    }

    /// SUBSCRIBED, and the place behind which delivery begins.
    fn begin(&mut self, opening: Opening) -> TopicPacket {
        self.place = opening.after;
        self.target = (opening.end, opening.end_time);
        self.stage = Stage::History;
        if let Some(behind) = opening.snapshot {
            self.place = behind;
            self.stage = Stage::Snapshot;
        }
        self.gap = opening.gap;
        if let Some(gap) = opening.gap {
            self.place = gap.through;
        }
        TopicPacket::Subscribed {
            subscription: self.key.number,
            after: opening.after,
            time: opening.time,
            end: opening.end,
            end_time: opening.end_time,
        }
    }

    /// Everything up to `through` is done with.
    fn pass(&mut self, through: Offset) {
        if self.begun.is_some_and(|(message, _)| message <= through) {
            return self.lose_begun();
        }
        self.place = self.place.max(through);
    }

    /// Up to here messages may be sent now: CAUGHT_UP comes before what is behind the target.
    fn bound(&self) -> Offset {
        match self.stage {
            Stage::Live => Offset::MAX,
            _ => self.target.0,
        }
    }

    /// Passes by what is in hand and is not to be sent, up to the next message that is.
    fn skip(&mut self, context: Context) {
        let bound = self.bound();
        while let Some(hand) = &mut self.hand {
            let (block, next, through) = (hand.block.clone(), hand.next, hand.through);
            if next >= hand.end {
                self.hand = None;
                return self.pass(through);
            }
            let offset = block.offset(next);
            if !block.begins_message(next) || offset > bound {
                return;
            }
            if !block.all_match(&self.filter) && !self.filter.matches(block.topic(next)) {
                hand.next = block.message_end(next);
                self.place = offset;
                continue;
            }
            match self.begun {
                Some((message, records)) if message == offset => {
                    let end = block.message_end(next);
                    hand.next = end.min(next + records as usize);
                    return;
                }
                Some(_) => return self.lose_begun(),
                None => {}
            }
            if block.largest() > context.max_message && block.length(next) > context.max_message {
                self.leave_out(GapReason::TooLarge, true, offset);
                self.end_if_final(block.is_final(next));
                continue;
            }
            if self.gap.is_none() && self.lags(context.now, block.time(next)) {
                self.hand = None;
                self.leave_out(GapReason::MovedAhead, true, context.end.0.max(offset));
            }
            return;
        }
    }

    /// Whether the next message is older than the client wants.
    fn lags(&self, now: StoredAt, time: StoredAt) -> bool {
        let age = now.millis().saturating_sub(time.millis());
        let limited = self.max_lag > 0 && time != StoredAt::UNKNOWN && !self.is_snapshot();
        limited && age > self.max_lag
    }

    /// A message that ends its topic is sent, or told in a gap.
    fn end_if_final(&mut self, is_final: bool) {
        if self.is_topic && is_final {
            let gap = self.gap.take();
            self.end(SubscriptionEnd::Final, "");
            self.gap = gap;
        }
    }

    /// The place for the next CAUGHT_UP, if it is time for it.
    fn caught_up(&mut self, context: Context) -> Option<(Offset, StoredAt)> {
        let behind_target = match &self.hand {
            Some(hand) => hand.block.offset(hand.next) > self.target.0,
            None => self.place >= self.target.0,
        };
        let mut place = self.place;
        match self.stage {
            Stage::Snapshot | Stage::History if behind_target => {
                place = place.max(self.target.0);
            }
            Stage::Live if self.hand.is_none() && self.progressed() => {}
            _ => return None,
        }
        let time = match place {
            _ if place == self.target.0 => self.target.1,
            _ if place == context.end.0 => context.end.1,
            _ => StoredAt::UNKNOWN,
        };
        self.stage = Stage::Live;
        self.place = place;
        self.target = (place, time);
        Some((place, time))
    }

    /// Whether so much was left out that the client should know its place.
    fn progressed(&self) -> bool {
        self.place.get() >= self.target.0.get() + PROGRESS_OFFSETS
    }
}
