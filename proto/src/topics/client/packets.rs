//! Packets that arrive at a client.

use std::time::Duration;

use bytes::Bytes;

use super::super::hello::ServerWelcome;
use super::super::packet::{TopicPacket, published_runs};
use super::super::position::LogId;
use super::super::terms::{Durability, Refusal};
use super::event::ClientEvent;
use super::publishing::Verdict;
use super::subscription::{Stage, Subscription};
use super::{Client, Phase, SubscriptionId};
use crate::error::ProtocolError;
use crate::limits::MAX_GO_AWAY;
use crate::time::Time;

impl Client {
    /// A packet came: one WebSocket binary message. The messages in it are slices of it.
    ///
    /// After calling this: [`poll_event`](Client::poll_event),
    /// [`poll_transmit`](Client::poll_transmit), [`poll_timeout`](Client::poll_timeout).
    ///
    /// # Errors
    /// The server broke the protocol. Send what `poll_transmit` still gives, close the connection
    /// with the WebSocket code 1002, and call [`detach`](Client::detach). The same would come again
    /// from this node; another node may do better.
    pub fn handle_packet(&mut self, now: Time, packet: Bytes) -> Result<(), ProtocolError> {
        self.handle(now, || TopicPacket::decode(packet))
    }

    /// A WebSocket text message came. Packets are binary messages, so the server broke the protocol.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`], unless the connection is over already.
    pub fn handle_text(&mut self, now: Time) -> Result<(), ProtocolError> {
        self.handle(now, || Err(ProtocolError::Malformed("a text message")))
    }

    fn handle(
        &mut self,
        now: Time,
        packet: impl FnOnce() -> Result<TopicPacket, ProtocolError>,
    ) -> Result<(), ProtocolError> {
        if matches!(self.phase, Phase::Detached | Phase::Over) {
            return Ok(());
        }
        let result = packet().and_then(|packet| self.dispatch(now, packet));
        if let Err(error) = &result {
            self.phase = Phase::Over;
            self.signals.say_farewell(error.code(), &error.to_string());
        }
        result
    }

    fn dispatch(&mut self, now: Time, packet: TopicPacket) -> Result<(), ProtocolError> {
        match packet {
            TopicPacket::Unknown(_) => return Ok(()),
            TopicPacket::Abort { code, reason } => {
                self.phase = Phase::Over;
                self.tell(ClientEvent::Aborted { code, reason });
                return Ok(());
            }
            _ => {}
        }
        match self.phase {
            Phase::HelloSent => self.handle_answer(now, packet),
            Phase::Welcomed => self.handle_welcomed(now, packet),
            _ => Err(ProtocolError::Unexpected("a packet before HELLO")),
        }
    }

    /// The answer to HELLO.
    fn handle_answer(&mut self, now: Time, packet: TopicPacket) -> Result<(), ProtocolError> {
        match packet {
            TopicPacket::Welcome(welcome) => self.handle_welcome(now, welcome),
            TopicPacket::Reject(reject) => {
                self.phase = Phase::Over;
                self.tell(ClientEvent::Rejected(reject));
            }
            _ => return Err(ProtocolError::Unexpected("a packet before WELCOME")),
        }
        Ok(())
    }

    fn handle_welcome(&mut self, now: Time, welcome: ServerWelcome) {
        self.phase = Phase::Welcomed;
        let (window, largest) = (welcome.publish_window, welcome.max_message);
        self.publishing.begin(window, largest, welcome.once());
        self.welcome = Some(welcome.clone());
        self.tell(ClientEvent::Welcomed(welcome));
        self.handle_timeout(now);
    }

    fn handle_welcomed(&mut self, now: Time, packet: TopicPacket) -> Result<(), ProtocolError> {
        match packet {
            TopicPacket::Ping(number) => self.signals.pong = Some(number),
            TopicPacket::Pong(number) => {
                if let Some(round_trip) = self.signals.ping.answer(now, number) {
                    self.tell(ClientEvent::Pong { round_trip });
                }
            }
            TopicPacket::GoAway {
                within_millis,
                reason,
            } => self.handle_go_away(within_millis, reason),
            TopicPacket::Published {
                durability,
                first,
                runs,
            } => return self.handle_published(durability, first, &runs),
            TopicPacket::Refused {
                number,
                reason,
                text,
            } => return self.handle_refused(number, reason, text),
            TopicPacket::Welcome(_) | TopicPacket::Reject(_) => {
                return Err(ProtocolError::Unexpected("a second answer to HELLO"));
            }
            of_subscription => return self.handle_subscription(of_subscription),
        }
        Ok(())
    }

    fn handle_go_away(&mut self, within_millis: u64, reason: String) {
        let within = Duration::from_millis(within_millis).min(MAX_GO_AWAY);
        // Only the last one counts, so a server cannot make them many.
        self.events
            .retain(|event| !matches!(event, ClientEvent::GoAway { .. }));
        self.tell(ClientEvent::GoAway { within, reason });
    }

    fn handle_published(
        &mut self,
        durability: Durability,
        first: u64,
        runs: &[u8],
    ) -> Result<(), ProtocolError> {
        let events = &mut self.events;
        self.publishing
            .stored(first, published_runs(runs), |first, run| {
                events.push_back(ClientEvent::Published {
                    first,
                    count: run.count,
                    offset: run.offset,
                    durability,
                });
            })?;
        self.tell_room();
        Ok(())
    }

    fn handle_refused(
        &mut self,
        number: u64,
        reason: Refusal,
        text: String,
    ) -> Result<(), ProtocolError> {
        match self.publishing.refused(number, reason)? {
            Verdict::Refused {
                reason,
                may_be_stored,
            } => self.tell(ClientEvent::Refused {
                number,
                reason,
                may_be_stored,
                text,
            }),
            Verdict::Unknown => self.tell_unknown(number, 1),
        }
        self.tell_room();
        Ok(())
    }

    fn handle_subscription(&mut self, packet: TopicPacket) -> Result<(), ProtocolError> {
        let (number, log) = (number_of(&packet)?, self.log());
        let Some(subscription) = self.subscriptions.get_mut(&number) else {
            return Err(NEVER_MADE);
        };
        match subscription.stage {
            Stage::Idle | Stage::Over => return Err(NEVER_MADE),
            Stage::Leaving(_) => {
                if matches!(packet, TopicPacket::Ended { .. }) {
                    self.subscriptions.remove(&number);
                }
                return Ok(());
            }
            Stage::Asked | Stage::Open => {}
        }
        apply(subscription, log, packet, self.config.max_message)?;
        if subscription.has_delivery() && !subscription.told {
            subscription.told = true;
            self.tell(ClientEvent::Readable(SubscriptionId(number)));
        }
        if self.subscriptions[&number].owes_credit() {
            self.wake(number);
        }
        Ok(())
    }

    fn log(&self) -> LogId {
        let welcome = self.welcome.as_ref();
        welcome.map_or(LogId::NONE, |welcome| welcome.log)
    }
}

const NEVER_MADE: ProtocolError =
    ProtocolError::Unexpected("a packet of a subscription that does not exist");

fn number_of(packet: &TopicPacket) -> Result<u32, ProtocolError> {
    match packet {
        TopicPacket::Subscribed { subscription, .. }
        | TopicPacket::Messages { subscription, .. }
        | TopicPacket::Gap { subscription, .. }
        | TopicPacket::CaughtUp { subscription, .. }
        | TopicPacket::Ended { subscription, .. } => Ok(*subscription),
        _ => Err(ProtocolError::Unexpected("a packet that only clients send")),
    }
}

fn apply(
    subscription: &mut Subscription,
    log: LogId,
    packet: TopicPacket,
    max_message: u64,
) -> Result<(), ProtocolError> {
    match packet {
        TopicPacket::Subscribed {
            after,
            time,
            end,
            end_time,
            ..
        } => subscription.handle_subscribed(log, (after, time), (end, end_time)),
        TopicPacket::Messages { records, .. } => {
            subscription.handle_messages(&records, max_message)
        }
        TopicPacket::Gap { gap, .. } => subscription.handle_gap(gap),
        TopicPacket::CaughtUp { offset, time, .. } => subscription.handle_caught_up(offset, time),
        TopicPacket::Ended { reason, text, .. } => {
            subscription.handle_ended(reason, text);
            Ok(())
        }
        _ => Ok(()),
    }
}
