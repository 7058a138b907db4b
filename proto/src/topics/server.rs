//! The server's side of one connection (SPEC-TOPICS.md), as a value without I/O.

mod config;
mod event;
mod packets;
mod publishing;
mod reading;
mod subscription;
mod transmitting;

use std::collections::VecDeque;
use std::sync::Arc;

use super::hello::{LogInfo, ServerReject, ServerWelcome};
use super::limits::{MAX_WAITING, millis};
use super::name::Filter;
use super::opening::Opening;
use super::position::{Offset, StoredAt};
use super::terms::{Durability, SubscriptionEnd};
use crate::util;
pub use config::ServerConfig;
pub use event::{
    Outcome, PublishRequest, ReadRequest, ServerEvent, SubscribeRequest, SubscriptionKey,
    SubscriptionStage,
};
use publishing::Publishing;
pub use subscription::Standing;
use subscription::Subscription;
use transmitting::Signals;

/// The server's side of one connection: it answers a [`Client`](super::Client).
///
/// It keeps nothing that another connection or node needs: a cursor and a credit for each
/// subscription, and the answers that are not sent. The front page of this module shows the run
/// loop.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    stage: Stage,
    /// The client's largest message.
    max_message: u64,
    /// Sorted by number. Boxed, so that one takes little and many are sorted fast.
    #[expect(clippy::vec_box, reason = "they are moved within the list")]
    subscriptions: Vec<Box<Subscription>>,
    /// How many of them wait for ENDED to be sent.
    ending: usize,
    /// The serial number of the next subscription.
    serial: u32,
    /// The last message of the log.
    end: (Offset, StoredAt),
    lines: Lines,
    publishing: Option<Box<Publishing>>,
    /// The client has a publisher's id.
    numbered: bool,
    durability: Durability,
    /// The token has expired.
    expired: bool,
    signals: Signals,
    events: VecDeque<ServerEvent>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// HELLO has not come.
    Fresh,
    /// The caller was asked whether to welcome the client.
    Asked,
    /// The client is welcome.
    Welcomed,
    /// The client was rejected, broke the protocol, or gave up. Nothing that it sends matters.
    Over,
}

/// Who is next. A subscription stands at most once in each line.
#[derive(Clone, Debug, Default)]
struct Lines {
    /// Those that want to read.
    read: VecDeque<u32>,
    /// Those that have something to send.
    send: VecDeque<u32>,
    /// How many reads are under way.
    reading: u32,
    /// The sum of what subscriptions have in hand, in bytes.
    in_hand: u64,
}

impl Server {
    /// A connection on which nothing has come yet.
    ///
    /// After calling this: [`handle_packet`](Server::handle_packet).
    pub fn new(config: Arc<ServerConfig>) -> Server {
        Server {
            config,
            stage: Stage::Fresh,
            max_message: 0,
            subscriptions: Vec::new(),
            ending: 0,
            serial: 0,
            end: (Offset::START, StoredAt::UNKNOWN),
            lines: Lines::default(),
            publishing: None,
            numbered: false,
            durability: Durability::Memory,
            expired: false,
            signals: Signals::default(),
            events: VecDeque::new(),
        }
    }

    /// The next thing to answer or to know. Call this after any other call, until it gives `None`.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        let event = self.events.pop_front();
        util::trim(&mut self.events);
        event
    }

    fn tell(&mut self, event: ServerEvent) {
        util::push_back(&mut self.events, event);
    }

    /// Whether to read from the connection. It is `false` while answers wait that the client does
    /// not read, so a client that only sends is stopped by TCP. Packets that were read already may
    /// still be handed over.
    pub fn wants_input(&self) -> bool {
        let waiting = self.events.len() + self.ending;
        self.stage != Stage::Over && waiting < MAX_WAITING
    }

    /// Answers [`ServerEvent::Hello`]: the client may go on.
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit).
    pub fn welcome(&mut self, log: &LogInfo) {
        if self.stage != Stage::Asked {
            return;
        }
        self.stage = Stage::Welcomed;
        self.durability = log.durability;
        self.set_end(log.last, StoredAt::UNKNOWN);
        self.signals.welcome = Some(Box::new(ServerWelcome {
            log: log.id,
            first: log.first,
            last: log.last,
            max_message: self.config.max_message,
            publish_window: self.config.publish_window,
            once_millis: log.once.map_or(0, |once| millis(once).max(1)),
            subscriptions: self.config.subscriptions,
            durability: log.durability,
            name: self.config.name.clone(),
        }));
    }

    /// Answers [`ServerEvent::Hello`]: the client may not go on. Send what
    /// [`poll_transmit`](Server::poll_transmit) gives, then close the connection.
    pub fn reject(&mut self, reject: ServerReject) {
        if self.stage == Stage::Asked {
            self.finish();
            self.signals.reject = Some(Box::new(reject));
        }
    }

    /// Nothing that comes from the client matters any more.
    fn finish(&mut self) {
        self.stage = Stage::Over;
        self.subscriptions = Vec::new();
        self.lines = Lines::default();
        self.publishing = None;
        self.events.clear();
        self.signals = Signals::default();
    }

    /// Whether the connection is to be closed once [`poll_transmit`](Server::poll_transmit) gives
    /// nothing.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// The subscriptions that have not ended, with their filters.
    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionKey, &Filter)> {
        let open = self.subscriptions.iter().filter(|it| !it.is_ending());
        open.map(|subscription| (subscription.key, &subscription.filter))
    }

    /// How a subscription stands now. `None` if there is none.
    pub fn standing(&self, key: SubscriptionKey) -> Option<Standing> {
        let index = self.index(key.number).ok()?;
        let subscription = &self.subscriptions[index];
        (subscription.key == key).then(|| subscription.standing())
    }

    /// Answers [`ServerEvent::Subscribe`]: where delivery begins. An answer to a subscription that
    /// has ended meanwhile has no effect, as with all calls that name one.
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit),
    /// [`poll_read`](Server::poll_read).
    pub fn subscribed(&mut self, key: SubscriptionKey, opening: Opening) {
        self.set_end(opening.end, opening.end_time);
        if let Some(subscription) = self.find(key) {
            subscription.open(opening);
            self.wake(key.number);
        }
    }

    /// Ends a subscription, or answers [`ServerEvent::Subscribe`] with a refusal. At most 123 bytes
    /// of the text are sent.
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit).
    pub fn end(&mut self, key: SubscriptionKey, reason: SubscriptionEnd, text: &str) {
        let Some(subscription) = self.find(key) else {
            return;
        };
        if !subscription.is_ending() {
            let held = subscription.hand_bytes();
            subscription.end(reason, text);
            self.lines.in_hand -= held;
            self.ending += 1;
            self.wake(key.number);
        }
    }

    /// The token has expired: every subscription ends, and messages are refused until the client
    /// sends another [`Token`](ServerEvent::Token).
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit).
    pub fn expire(&mut self) {
        self.expired = true;
        self.end_all(SubscriptionEnd::Expired, "");
    }

    /// Ends every subscription.
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit).
    pub fn end_all(&mut self, reason: SubscriptionEnd, text: &str) {
        let keys: Vec<_> = self.subscriptions().map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, reason, text);
        }
    }

    /// Answers a message of [`ServerEvent::Publish`]. The answers may come in any order; they are
    /// sent in the order of the numbers. A second answer has no effect.
    ///
    /// After a refusal of the store (full, unknown, unavailable) refuse what you have of this
    /// connection behind that message too, if the store remembers only a publisher's highest number:
    /// see [`ServerEvent::Publish`].
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit).
    pub fn published(&mut self, number: u64, outcome: Outcome) {
        if let Some(publishing) = &mut self.publishing {
            publishing.answer(number, outcome, self.numbered);
        }
    }

    /// The memory that this value takes, in bytes, without the blocks in hand, which are shared.
    pub fn memory(&self) -> u64 {
        let subscriptions = self.subscriptions.len() * size_of::<Subscription>()
            + self.subscriptions.capacity() * size_of::<usize>();
        let lines = (self.lines.read.capacity() + self.lines.send.capacity()) * size_of::<u32>();
        let events = self.events.capacity() * size_of::<ServerEvent>();
        let publishing = self.publishing.as_ref();
        let publishing = publishing.map_or(0, |publishing| publishing.memory());
        (size_of::<Server>() + subscriptions + lines + events) as u64 + publishing
    }

    /// The bytes of blocks that subscriptions have in hand.
    pub fn in_hand(&self) -> u64 {
        self.lines.in_hand
    }

    fn index(&self, number: u32) -> Result<usize, usize> {
        self.subscriptions
            .binary_search_by_key(&number, |subscription| subscription.key.number)
    }

    fn find(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        let index = self.index(key.number).ok()?;
        let subscription = &mut self.subscriptions[index];
        (subscription.key == key).then_some(subscription)
    }

    /// The subscription may have something to send or to read: it gets into both lines.
    fn wake(&mut self, number: u32) {
        let Ok(index) = self.index(number) else {
            return;
        };
        self.want_read(index);
        let subscription = &mut self.subscriptions[index];
        if !subscription.in_send_line {
            subscription.in_send_line = true;
            util::push_back(&mut self.lines.send, number);
        }
    }
}
