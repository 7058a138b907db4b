//! What a client sends next. The order is the priority.

use bytes::{Bytes, BytesMut};

use super::super::hello::ClientHello;
use super::super::limits::CONTROL_BLOCK;
use super::super::packet::TopicPacket;
use super::super::subscribe::Subscribe;
use super::subscription::Stage;
use super::{Client, Phase};
use crate::error::ErrorCode;
use crate::ping::Ping;
use crate::time::Time;
use crate::transmit::Transmit;
use crate::util::cut_reason;

/// What is to be sent besides subscriptions and publications.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    /// TOKEN.
    pub(super) token: bool,
    pub(super) pong: Option<u64>,
    pub(super) ping: Ping,
    farewell: Option<Box<(ErrorCode, String)>>,
    /// A block into which packets are encoded.
    block: BytesMut,
}

impl Signals {
    pub(super) fn say_farewell(&mut self, code: ErrorCode, reason: &str) {
        self.farewell = Some(Box::new((code, cut_reason(reason).to_owned())));
    }

    fn encode(&mut self, packet: &TopicPacket) -> Bytes {
        if self.block.capacity() < CONTROL_BLOCK / 2 {
            self.block.reserve(CONTROL_BLOCK);
        }
        packet.encode(&mut self.block);
        self.block.split().freeze()
    }
}

impl Client {
    /// The next packet to send, as one WebSocket binary message. `None` when there is none now.
    ///
    /// Call this after any other call, whenever the connection can take a packet, until it gives
    /// `None`. After calling this: [`poll_timeout`](Client::poll_timeout).
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        if let Some(packet) = self.next_control(now) {
            return Some(self.signals.encode(&packet).into());
        }
        if self.phase != Phase::Welcomed {
            return None;
        }
        self.publishing.transmit(now)
    }

    /// Whether [`poll_transmit`](Client::poll_transmit) may give a packet.
    pub fn wants_transmit(&self) -> bool {
        let signals = &self.signals;
        match self.phase {
            Phase::Detached => false,
            Phase::HelloOwed => true,
            Phase::Over => signals.farewell.is_some(),
            Phase::HelloSent => signals.token || !self.line.is_empty(),
            Phase::Welcomed => {
                let signalled = signals.token || signals.pong.is_some() || signals.ping.is_owed();
                signalled || !self.line.is_empty() || self.publishing.wants_transmit()
            }
        }
    }

    fn next_control(&mut self, now: Time) -> Option<TopicPacket> {
        match self.phase {
            Phase::Detached => return None,
            Phase::HelloOwed => {
                self.phase = Phase::HelloSent;
                return Some(TopicPacket::Hello(ClientHello {
                    publisher: self.config.publisher,
                    max_message: self.config.max_message,
                    token: self.token.clone(),
                }));
            }
            Phase::Over => {
                let (code, reason) = *self.signals.farewell.take()?;
                return Some(TopicPacket::Abort { code, reason });
            }
            Phase::HelloSent | Phase::Welcomed => {}
        }
        if self.phase == Phase::Welcomed {
            if let Some(number) = self.signals.pong.take() {
                return Some(TopicPacket::Pong(number));
            }
            if self.signals.ping.is_owed() {
                return Some(TopicPacket::Ping(self.signals.ping.send(now)));
            }
        }
        if std::mem::take(&mut self.signals.token) {
            return Some(TopicPacket::Token(self.token.clone()));
        }
        while let Some(number) = self.line.pop_front() {
            if let Some(packet) = self.next_of(number) {
                return Some(packet);
            }
        }
        None
    }

    /// The next packet of a subscription.
    fn next_of(&mut self, number: u32) -> Option<TopicPacket> {
        let subscription = self.subscriptions.get_mut(&number)?;
        subscription.in_line = false;
        match subscription.stage {
            Stage::Idle => {
                let credit = subscription.first_credit()?;
                let start = subscription.start();
                subscription.asked(credit);
                subscription.attachment = self.attachment;
                Some(TopicPacket::Subscribe(Subscribe {
                    subscription: number,
                    credit,
                    max_lag_millis: subscription.max_lag_millis,
                    start,
                    filter: Bytes::copy_from_slice(subscription.filter.as_str().as_bytes()),
                }))
            }
            Stage::Leaving(false) => {
                subscription.stage = Stage::Leaving(true);
                Some(TopicPacket::Unsubscribe(number))
            }
            Stage::Asked | Stage::Open if subscription.owes_credit() => Some(TopicPacket::Credit {
                subscription: number,
                limit: subscription.renew_credit(),
            }),
            _ => None,
        }
    }

    /// Sends PING. [`ClientEvent::Pong`](super::ClientEvent::Pong) brings the time until it is
    /// answered. An older PING that is not answered is forgotten.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    pub fn ping(&mut self) {
        if matches!(
            self.phase,
            Phase::HelloOwed | Phase::HelloSent | Phase::Welcomed
        ) {
            self.signals.ping.ask();
        }
    }
}
