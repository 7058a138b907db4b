//! What a server sends next. The order is the priority: answers never wait for messages.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::hello::{ServerReject, ServerWelcome};
use super::super::limits::{CONTROL_BLOCK, millis};
use super::super::packet::TopicPacket;
use super::super::position::StoredAt;
use super::event::ServerEvent;
use super::subscription::Context;
use super::{Server, Stage};
use crate::error::ErrorCode;
use crate::transmit::Transmit;
use crate::util::{self, cut_reason};

/// What is to be sent besides answers and subscriptions.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    pub(super) welcome: Option<Box<ServerWelcome>>,
    pub(super) reject: Option<Box<ServerReject>>,
    pub(super) pong: Option<u64>,
    go_away: Option<Box<(u64, String)>>,
    farewell: Option<Box<(ErrorCode, String)>>,
    /// A block into which packets are encoded.
    block: BytesMut,
}

impl Signals {
    pub(super) fn say_farewell(&mut self, code: ErrorCode, reason: &str) {
        self.farewell = Some(Box::new((code, cut_reason(reason).to_owned())));
    }

    fn next(&mut self, stage: Stage) -> Option<TopicPacket> {
        if stage == Stage::Over {
            if let Some(reject) = self.reject.take() {
                return Some(TopicPacket::Reject(*reject));
            }
            let (code, reason) = *self.farewell.take()?;
            return Some(TopicPacket::Abort { code, reason });
        }
        if let Some(welcome) = self.welcome.take() {
            return Some(TopicPacket::Welcome(*welcome));
        }
        if let Some(number) = self.pong.take() {
            return Some(TopicPacket::Pong(number));
        }
        let (within_millis, reason) = *self.go_away.take()?;
        Some(TopicPacket::GoAway {
            within_millis,
            reason,
        })
    }

    fn is_empty(&self, stage: Stage) -> bool {
        match stage {
            Stage::Over => self.reject.is_none() && self.farewell.is_none(),
            _ => self.welcome.is_none() && self.pong.is_none() && self.go_away.is_none(),
        }
    }

    fn block(&mut self) -> &mut BytesMut {
        if self.block.capacity() < CONTROL_BLOCK / 2 {
            self.block.reserve(CONTROL_BLOCK);
        }
        &mut self.block
    }

    fn encode(&mut self, packet: &TopicPacket) -> Bytes {
        let block = self.block();
        packet.encode(block);
        block.split().freeze()
    }
}

impl Server {
    /// The next packet to send, as one WebSocket binary message. `None` when there is none now.
    /// `now` is the time by the clock of the store, for subscriptions with a largest lag.
    ///
    /// Call this after any other call, whenever the connection can take a packet, until it gives
    /// `None`. After calling this: [`poll_read`](Server::poll_read), because sending may have made
    /// room.
    pub fn poll_transmit(&mut self, now: StoredAt) -> Option<Transmit> {
        if matches!(self.stage, Stage::Fresh | Stage::Asked) {
            return None;
        }
        if let Some(packet) = self.signals.next(self.stage) {
            return Some(self.signals.encode(&packet).into());
        }
        if let Some(publishing) = self.publishing.as_mut().filter(|it| it.has_answer()) {
            let block = self.signals.block();
            publishing.next_answer(self.durability, block);
            return Some(block.split().freeze().into());
        }
        if let Some(publishing) = self.publishing.as_mut().filter(|it| it.wants_ping()) {
            let ping = TopicPacket::Ping(publishing.ping());
            return Some(self.signals.encode(&ping).into());
        }
        while let Some(number) = self.lines.send.pop_front() {
            if let Some(packet) = self.transmit_of(number, now) {
                return Some(packet);
            }
        }
        util::trim(&mut self.lines.send);
        // An idle connection keeps no memory for the next packet.
        self.signals.block = BytesMut::new();
        None
    }

    /// Whether [`poll_transmit`](Server::poll_transmit) may give a packet.
    pub fn wants_transmit(&self) -> bool {
        let publishing = self.publishing.as_ref();
        match self.stage {
            Stage::Fresh | Stage::Asked => false,
            Stage::Over => !self.signals.is_empty(self.stage),
            Stage::Welcomed => {
                !self.signals.is_empty(self.stage)
                    || !self.lines.send.is_empty()
                    || publishing.is_some_and(|it| it.has_answer() || it.wants_ping())
            }
        }
    }

    /// The next packet of a subscription.
    fn transmit_of(&mut self, number: u32, now: StoredAt) -> Option<Transmit> {
        let index = self.index(number).ok()?;
        let context = Context {
            now,
            max_message: self.max_message,
            end: self.end,
        };
        let subscription = &mut self.subscriptions[index];
        subscription.in_send_line = false;
        let (held, was_ending) = (subscription.hand_bytes(), subscription.is_ending());
        let packet = subscription.transmit(context, self.signals.block());
        self.lines.in_hand = self.lines.in_hand - held + subscription.hand_bytes();
        if !was_ending && subscription.is_ending() {
            self.count_ending(index);
        }
        let subscription = &self.subscriptions[index];
        if subscription.is_over() {
            self.ending -= 1;
            self.subscriptions.remove(index);
            if self.subscriptions.is_empty() {
                self.subscriptions = Vec::new();
            }
        } else if packet.is_some() {
            self.wake(number);
        } else {
            self.want_read(index);
        }
        packet
    }

    /// A subscription has ended by what it sent or read.
    pub(super) fn count_ending(&mut self, index: usize) {
        let subscription = &self.subscriptions[index];
        let (key, reason) = (subscription.key, subscription.end_reason());
        self.ending += 1;
        if let Some(reason) = reason {
            self.tell(ServerEvent::Ended { key, reason });
        }
    }

    /// Puts a subscription into the line of readers, if it wants to read.
    pub(super) fn want_read(&mut self, index: usize) {
        let subscription = &mut self.subscriptions[index];
        let wants = subscription.wants_read(self.end.0, self.config.read_bytes);
        if wants.is_some() && !subscription.in_read_line {
            subscription.in_read_line = true;
            util::push_back(&mut self.lines.read, subscription.key.number());
        }
    }

    /// Asks the client to connect again, elsewhere or later, at a random moment within `within`. The
    /// connection goes on meanwhile.
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit).
    pub fn go_away(&mut self, within: Duration, reason: &str) {
        if self.stage != Stage::Over {
            let reason = cut_reason(reason).to_owned();
            self.signals.go_away = Some(Box::new((millis(within), reason)));
        }
    }
}
