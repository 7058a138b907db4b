//! A client: its subscriptions and its publications, over any number of connections and nodes.

mod config;
mod credit;
mod delivery;
mod event;
mod packets;
mod publishing;
mod queue;
mod subscription;
mod transmitting;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::hello::{AccessToken, ServerWelcome};
use super::limits::millis;
use super::name::{Filter, Topic};
use super::position::{Offset, Position};
use super::terms::Start;
use crate::payload::Kind;
use crate::time::Time;
use crate::util;
pub use config::ClientConfig;
pub use delivery::{Delivery, MessageBatch, TopicMessage, TopicMessageRef};
pub use event::{ClientEvent, PublishError, Unanswered};
use publishing::Publishing;
use subscription::{Stage, Subscription};
use transmitting::Signals;

/// Names a subscription of a [`Client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u32);

impl SubscriptionId {
    /// Its number on the wire.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What a subscription wants besides its filter and its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// If the next message is older than this, the server may leave out what it has not sent, and go
    /// on at the end of the log, with a gap. `None`, the default: never.
    pub max_lag: Option<Duration>,
}

impl SubscribeOptions {
    /// The defaults.
    pub fn new() -> SubscribeOptions {
        SubscribeOptions::default()
    }

    /// Prefers fresh messages to complete ones. At least 1 ms.
    #[must_use]
    pub fn max_lag(mut self, lag: Duration) -> SubscribeOptions {
        self.max_lag = Some(lag);
        self
    }
}

/// A client of a log: a value that outlives its connections. It keeps the position of each
/// subscription, and each published message until it is answered.
///
/// The front page of this module shows the run loop. Call a client from one place at a time. It
/// holds no lock, task, clock or socket.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
    token: AccessToken,
    phase: Phase,
    /// How many connections there were.
    attachment: u64,
    /// The answer to HELLO on this connection.
    welcome: Option<ServerWelcome>,
    subscriptions: BTreeMap<u32, Box<Subscription>>,
    last_id: u32,
    /// The subscriptions that may have something to send, each at most once.
    line: VecDeque<u32>,
    publishing: Publishing,
    signals: Signals,
    events: VecDeque<ClientEvent>,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Detached,
    HelloOwed,
    HelloSent,
    Welcomed,
    /// The server refused or gave up, or broke the protocol: the connection is to be closed.
    Over,
}

impl Client {
    /// A client without a connection.
    pub fn new(config: ClientConfig) -> Client {
        Client {
            token: AccessToken::NONE,
            phase: Phase::Detached,
            attachment: 0,
            welcome: None,
            subscriptions: BTreeMap::new(),
            last_id: 0,
            line: VecDeque::new(),
            publishing: Publishing::new(config.publisher.is_some(), config.unanswered),
            signals: Signals::default(),
            events: VecDeque::new(),
            config,
        }
    }

    /// The client has a new connection, to any node of the log. HELLO goes out on it, and every
    /// subscription is asked for again, from its position.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit),
    /// [`poll_event`](Client::poll_event).
    pub fn attach(&mut self, now: Time, token: AccessToken) {
        self.detach(now);
        self.token = token;
        self.phase = Phase::HelloOwed;
        self.attachment += 1;
        for (number, subscription) in &mut self.subscriptions {
            if !subscription.in_line {
                subscription.in_line = true;
                self.line.push_back(*number);
            }
        }
    }

    /// The connection is lost, or is to be replaced. Nothing else is: what was not answered is sent
    /// again on the next connection.
    ///
    /// After calling this: [`poll_event`](Client::poll_event),
    /// [`poll_timeout`](Client::poll_timeout).
    pub fn detach(&mut self, now: Time) {
        if self.phase == Phase::Detached {
            return;
        }
        self.phase = Phase::Detached;
        self.welcome = None;
        self.signals = Signals::default();
        self.subscriptions
            .retain(|_, subscription| !matches!(subscription.stage, Stage::Leaving(_)));
        for (number, subscription) in &mut self.subscriptions {
            subscription.detach();
            // A final message has come, and ENDED has not: that ends it.
            if subscription.has_delivery() && !subscription.told {
                subscription.told = true;
                let readable = ClientEvent::Readable(SubscriptionId(*number));
                util::push_back(&mut self.events, readable);
            }
        }
        let first = self.publishing.first();
        let count = self.publishing.detach();
        self.tell_unknown(first, count);
        self.handle_timeout(now);
    }

    /// Whether the server has welcomed this connection.
    pub fn is_welcomed(&self) -> bool {
        self.phase == Phase::Welcomed
    }

    /// What the server of this connection said.
    pub fn welcome(&self) -> Option<&ServerWelcome> {
        self.welcome.as_ref()
    }

    /// From now on the client is somebody else, or for longer: the server asks again what it may.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    pub fn set_token(&mut self, token: AccessToken) {
        self.token = token;
        self.signals.token = matches!(self.phase, Phase::HelloSent | Phase::Welcomed);
        if self.signals.token {
            self.publishing.change_token();
        }
    }

    /// Subscribes to the topics of a filter.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    pub fn subscribe(
        &mut self,
        filter: Filter,
        start: Start,
        options: SubscribeOptions,
    ) -> SubscriptionId {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.subscriptions.contains_key(&self.last_id) {
                break;
            }
        }
        let max_lag = options.max_lag.map_or(0, |lag| millis(lag).max(1));
        let subscription = Subscription::new(filter, start, max_lag, self.config.window);
        self.subscriptions
            .insert(self.last_id, Box::new(subscription));
        self.wake(self.last_id);
        SubscriptionId(self.last_id)
    }

    /// Ends a subscription. What it has delivered and was not taken is gone.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(&id.0) else {
            return;
        };
        match subscription.stage {
            Stage::Idle | Stage::Over => {
                self.subscriptions.remove(&id.0);
            }
            Stage::Asked | Stage::Open => {
                subscription.leave();
                self.wake(id.0);
            }
            Stage::Leaving(_) => {}
        }
    }

    /// Asks again for a subscription that the server has ended, from its position. Without effect
    /// on one that has not ended. Whether it was ended on the connection that is there now: if it was
    /// on an earlier one, the next server may already be a better one.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    pub fn resubscribe(&mut self, id: SubscriptionId) -> bool {
        let subscription = self.subscriptions.get_mut(&id.0);
        let Some(over) = subscription.filter(|it| it.stage == Stage::Over) else {
            return false;
        };
        over.stage = Stage::Idle;
        let here = over.attachment == self.attachment && self.phase != Phase::Detached;
        self.wake(id.0);
        here
    }

    /// The place up to which everything of a subscription has come, delivered or waiting for
    /// [`poll_delivery`](Client::poll_delivery). `None` before a server has said where it begins.
    pub fn position(&self, id: SubscriptionId) -> Option<Position> {
        self.subscriptions.get(&id.0)?.place()
    }

    /// The next thing in a subscription. Call this after [`ClientEvent::Readable`], until it gives
    /// `None`.
    ///
    /// After calling this: [`taken`](Client::taken), once the application has the messages.
    pub fn poll_delivery(&mut self, id: SubscriptionId) -> Option<Delivery> {
        let subscription = self.open(id)?;
        let delivery = subscription.next_delivery();
        if delivery.is_none() {
            subscription.told = false;
        }
        delivery
    }

    /// The application has taken messages that cost so much, so the server may send as much again.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    pub fn taken(&mut self, id: SubscriptionId, cost: u64) {
        if let Some(subscription) = self.open(id) {
            subscription.taken(cost);
            if subscription.owes_credit() || subscription.stage == Stage::Idle {
                self.wake(id.0);
            }
        }
    }

    fn open(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        let subscription = self.subscriptions.get_mut(&id.0)?;
        let open = !matches!(subscription.stage, Stage::Leaving(_));
        open.then_some(subscription)
    }

    /// Publishes a message, and returns its number. It is sent once there is a connection. The bytes
    /// of text have to be UTF-8: a server closes the connection over text that is not.
    ///
    /// After calling this: [`poll_transmit`](Client::poll_transmit).
    ///
    /// # Errors
    /// [`PublishError`] when the message is not taken. Nothing has changed then.
    pub fn publish(
        &mut self,
        topic: Topic,
        kind: Kind,
        is_final: bool,
        payload: Bytes,
    ) -> Result<u64, PublishError> {
        self.publishing.push(topic, kind, is_final, payload)
    }

    /// Gives up every message without an answer, and the connection. Returns what is known of them:
    /// each was not sent, or may be stored. The client may attach again afterwards.
    pub fn give_up(&mut self, now: Time) -> Vec<Unanswered> {
        let given = self.publishing.give_up();
        self.detach(now);
        given
    }

    /// How many published messages have no answer, and what they cost.
    pub fn unanswered(&self) -> (usize, u64) {
        (self.publishing.count(), self.publishing.cost())
    }

    /// The cost of what a subscription has delivered and the application has not taken, and the
    /// memory of its message that is not whole yet.
    pub fn held(&self, id: SubscriptionId) -> (u64, u64) {
        let subscription = self.subscriptions.get(&id.0);
        subscription.map_or((0, 0), |it| (it.held(), it.partial_memory()))
    }

    /// What the server may still send of a subscription on this connection, as far as the client has
    /// received.
    pub fn credit(&self, id: SubscriptionId) -> u64 {
        self.subscriptions
            .get(&id.0)
            .map_or(0, |it| it.credit_left())
    }

    /// The end of the log that the server named when the subscription began or went on, until
    /// everything up to it has come.
    pub fn end(&self, id: SubscriptionId) -> Option<Offset> {
        self.subscriptions.get(&id.0)?.target()
    }

    /// The next thing that happened. Call this after any other call, until it gives `None`.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        let event = self.events.pop_front();
        util::trim(&mut self.events);
        event
    }

    fn tell(&mut self, event: ClientEvent) {
        util::push_back(&mut self.events, event);
    }

    fn tell_unknown(&mut self, first: u64, count: u64) {
        if count > 0 {
            self.tell(ClientEvent::Unknown { first, count });
            self.tell_room();
        }
    }

    fn tell_room(&mut self) {
        if self.publishing.has_room_again() {
            self.tell(ClientEvent::Room);
        }
    }

    /// The moment at which [`handle_timeout`](Client::handle_timeout) is to be called next. `None`:
    /// no timer runs.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.publishing.deadline()
    }

    /// The time that [`poll_timeout`](Client::poll_timeout) gave has come: messages that wait to be
    /// sent again, and were sent first too long ago, are [unknown](ClientEvent::Unknown).
    ///
    /// After calling this: [`poll_event`](Client::poll_event),
    /// [`poll_timeout`](Client::poll_timeout).
    pub fn handle_timeout(&mut self, now: Time) {
        let first = self.publishing.first();
        let count = self.publishing.expire(now);
        self.tell_unknown(first, count);
    }

    fn wake(&mut self, number: u32) {
        let subscription = self.subscriptions.get_mut(&number);
        if let Some(outside) = subscription.filter(|it| !it.in_line) {
            outside.in_line = true;
            util::push_back(&mut self.line, number);
        }
    }
}
