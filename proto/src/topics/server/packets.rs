//! Packets that arrive at a server.

use std::time::Duration;

use bytes::Bytes;

use super::super::hello::{AccessToken, ClientHello};
use super::super::name::Filter;
use super::super::packet::TopicPacket;
use super::super::subscribe::Subscribe;
use super::super::terms::SubscriptionEnd;
use super::event::{PublishRequest, ServerEvent, SubscribeRequest, SubscriptionKey};
use super::publishing::Bounds;
use super::subscription::Subscription;
use super::{Server, Stage};
use crate::error::{ErrorCode, ProtocolError};

impl Server {
    /// A packet came: one WebSocket binary message.
    ///
    /// After calling this: [`poll_event`](Server::poll_event),
    /// [`poll_transmit`](Server::poll_transmit), [`poll_read`](Server::poll_read).
    ///
    /// # Errors
    /// The client broke the protocol. Send what `poll_transmit` still gives, then close the
    /// connection with the WebSocket code 1002.
    pub fn handle_packet(&mut self, packet: Bytes) -> Result<(), ProtocolError> {
        self.handle(|| TopicPacket::decode(packet))
    }

    /// A WebSocket text message came. Packets are binary messages, so the client broke the protocol.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`], unless the connection is over already.
    pub fn handle_text(&mut self) -> Result<(), ProtocolError> {
        self.handle(|| Err(ProtocolError::Malformed("a text message")))
    }

    fn handle(
        &mut self,
        packet: impl FnOnce() -> Result<TopicPacket, ProtocolError>,
    ) -> Result<(), ProtocolError> {
        if self.stage == Stage::Over {
            return Ok(());
        }
        let result = packet().and_then(|packet| self.dispatch(packet));
        if let Err(error) = &result {
            let greeted = self.stage != Stage::Fresh;
            self.finish();
            if greeted {
                self.signals.say_farewell(error.code(), &error.to_string());
            }
        }
        result
    }

    fn dispatch(&mut self, packet: TopicPacket) -> Result<(), ProtocolError> {
        if self.stage == Stage::Fresh {
            let TopicPacket::Hello(hello) = packet else {
                return Err(ProtocolError::Unexpected("the first packet is not HELLO"));
            };
            self.handle_hello(hello);
            return Ok(());
        }
        match packet {
            TopicPacket::Token(token) => self.handle_token(token),
            TopicPacket::Ping(number) => {
                self.signals.pong = Some(number);
                // A client sends them regularly, so one that has stopped holds nothing for long.
                if self.lines.in_hand > 0 {
                    self.release();
                }
            }
            TopicPacket::Pong(number) => self.handle_pong(number),
            TopicPacket::Unknown(_) => {}
            TopicPacket::Abort { code, reason } => {
                self.finish();
                self.tell(ServerEvent::Aborted { code, reason });
            }
            TopicPacket::Subscribe(subscribe) => return self.handle_subscribe(subscribe),
            TopicPacket::Unsubscribe(number) => self.handle_unsubscribe(number),
            TopicPacket::Credit {
                subscription,
                limit,
            } => self.handle_credit(subscription, limit),
            TopicPacket::Publish { first, records } => return self.handle_publish(first, &records),
            TopicPacket::Hello(_) => return Err(ProtocolError::Unexpected("a second HELLO")),
            _ => {
                return Err(ProtocolError::Unexpected("a packet that only servers send"));
            }
        }
        Ok(())
    }

    fn handle_hello(&mut self, hello: ClientHello) {
        self.stage = Stage::Asked;
        self.max_message = hello.max_message;
        self.numbered = hello.publisher.is_some();
        self.tell(ServerEvent::Hello(hello));
    }

    fn handle_token(&mut self, token: AccessToken) {
        self.expired = false;
        // Of tokens in a row only the last one counts.
        if let Some(ServerEvent::Token(last)) = self.events.back_mut() {
            *last = token;
        } else {
            self.tell(ServerEvent::Token(token));
        }
    }

    fn handle_subscribe(&mut self, subscribe: Subscribe) -> Result<(), ProtocolError> {
        let number = subscribe.subscription;
        let Err(index) = self.index(number) else {
            return Err(ProtocolError::Unexpected(
                "a subscription with a number that is in use",
            ));
        };
        self.serial = self.serial.wrapping_add(1);
        let key = SubscriptionKey {
            number,
            serial: self.serial,
        };
        let filter = std::str::from_utf8(&subscribe.filter).ok();
        let filter = filter.and_then(|filter| Filter::new(filter).ok());
        let open = self.subscriptions.len() - self.ending;
        let refused = match () {
            () if filter.is_none() => Some(SubscriptionEnd::InvalidFilter),
            () if open >= self.config.subscriptions as usize => Some(SubscriptionEnd::TooMany),
            () if self.expired => Some(SubscriptionEnd::Expired),
            () => None,
        };
        let filter = filter.unwrap_or_else(Filter::all);
        let subscription = Box::new(Subscription::new(key, filter.clone(), &subscribe));
        if self.subscriptions.is_empty() {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.insert(index, subscription);
        match refused {
            Some(reason) => self.end(key, reason, ""),
            None => self.tell(ServerEvent::Subscribe(SubscribeRequest {
                key,
                filter,
                start: subscribe.start,
                max_lag: match subscribe.max_lag_millis {
                    0 => None,
                    millis => Some(Duration::from_millis(millis)),
                },
            })),
        }
        Ok(())
    }

    fn handle_unsubscribe(&mut self, number: u32) {
        let Ok(index) = self.index(number) else {
            return;
        };
        let subscription = &self.subscriptions[index];
        if !subscription.is_ending() {
            let key = subscription.key;
            let reason = SubscriptionEnd::Unsubscribed;
            self.end(key, reason, "");
            self.tell(ServerEvent::Ended { key, reason });
        }
    }

    fn handle_credit(&mut self, number: u32, limit: u64) {
        let Ok(index) = self.index(number) else {
            return;
        };
        if self.subscriptions[index].raise_credit(limit) {
            self.wake(number);
        }
    }

    fn handle_publish(&mut self, first: u64, records: &Bytes) -> Result<(), ProtocolError> {
        let bounds = Bounds {
            max_message: self.config.max_message,
            window: self.config.publish_window,
            expired: self.expired,
            numbered: self.numbered,
        };
        let publishing = self.publishing.get_or_insert_default();
        let requests = publishing.packet(first, records, bounds)?;
        let requests = publishing.admit(requests);
        self.tell_published(requests);
        Ok(())
    }

    fn handle_pong(&mut self, number: u64) {
        let publishing = self.publishing.as_mut();
        let waited = publishing.map_or_else(Vec::new, |publishing| publishing.pong(number));
        self.tell_published(waited);
    }

    fn tell_published(&mut self, requests: Vec<PublishRequest>) {
        if !requests.is_empty() {
            self.tell(ServerEvent::Publish(requests));
        }
    }

    /// Tells the client that the connection ends at once, and why. Send what
    /// [`poll_transmit`](Server::poll_transmit) gives, then close the connection. At most 123 bytes
    /// of the reason are sent.
    pub fn abort(&mut self, code: ErrorCode, reason: &str) {
        if self.stage != Stage::Over {
            let greeted = self.stage == Stage::Welcomed;
            self.finish();
            if greeted {
                self.signals.say_farewell(code, reason);
            }
        }
    }
}
