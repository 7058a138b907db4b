//! The session: its state in groups, its timers, and what can be asked of it. Its other verbs are
//! in the files below: sending, receiving, packets that arrive, connections, ending, and what is
//! sent next.

mod ending;
mod fingerprint;
mod packets;
mod receiving;
mod resuming;
mod sending;
mod transmitting;

use crate::connection::Connection;
use crate::event::{EndReason, Event, Events};
use crate::limits::{CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, Config};
use crate::number::Generation;
use crate::resume::{SessionId, Token};
use crate::state::State;
use crate::stats::{Counters, Stats};
use crate::time::Time;
use crate::timer::{Timer, Timers};

pub use packets::HandleError;
use receiving::Receiving;
use resuming::Agreement;
pub use sending::SendError;
use sending::Sending;
use transmitting::Signals;

/// The side of a session. The two differ in the resume exchange and in GOAWAY only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two sides")]
pub enum Side {
    /// The side that connects, and opens or resumes the session.
    Client,
    /// The side that answers.
    Server,
}

/// One session of `unstall.v1`: a value that outlives its connections.
///
/// The front page of this crate shows the run loop. Call a session from one place at a time. It
/// holds no lock, task, clock or socket.
#[derive(Clone, Debug)]
pub struct Session {
    side: Side,
    config: Config,
    id: SessionId,
    agreement: Agreement,
    state: State,
    connection: Connection,
    sending: Sending,
    receiving: Receiving,
    signals: Signals,
    timers: Timers,
    events: Events,
    counters: Counters,
}

impl Session {
    fn new(side: Side, config: Config, id: SessionId, token: Token) -> Session {
        let config = config.settled();
        Session {
            side,
            id,
            agreement: Agreement::new(token, config.session_life),
            state: State::Open,
            connection: Connection::default(),
            sending: Sending::new(&config),
            receiving: Receiving::new(&config),
            signals: Signals::default(),
            timers: Timers::default(),
            events: Events::default(),
            counters: Counters::default(),
            config,
        }
    }

    /// The time that [`poll_timeout`](Session::poll_timeout) gave has come. Calling this too early
    /// or too often does no harm.
    ///
    /// After calling this: [`poll_event`](Session::poll_event),
    /// [`poll_transmit`](Session::poll_transmit), [`poll_timeout`](Session::poll_timeout).
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::AckDelay => self.receiving.acks.hurry(),
                Timer::Handshake => {
                    let generation = self.connection.generation;
                    self.detach(now, generation);
                    self.events.push(Event::HandshakeTimedOut(generation));
                }
                Timer::Expiry => self.end(EndReason::Expired, None),
                Timer::Close => self.close_timed_out(),
            }
        }
    }

    /// The moment at which to call [`handle_timeout`](Session::handle_timeout) next. `None`: no
    /// timer runs until another call starts one.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The next thing that happened. Call this after any other call, until it gives `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Which side of the session this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The name of the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The number of the newest connection.
    pub fn generation(&self) -> Generation {
        self.connection.generation
    }

    /// Whether `generation` is the connection that carries the session. Close it if it is not.
    pub fn is_current(&self, generation: Generation) -> bool {
        self.connection.is_current(generation)
    }

    /// Whether a connection carries the session and the resume exchange is done.
    pub fn is_attached(&self) -> bool {
        self.connection.is_attached()
    }

    /// The WebSocket close code with which to close the session's connection (RFC 6455, section
    /// 7.4.1): 1002 when the session ended because the peer broke the protocol, otherwise 1000.
    ///
    /// After an error of [`handle_packet`](Session::handle_packet) use [`HandleError::close_code`]:
    /// not every such error ends the session.
    pub fn close_code(&self) -> u16 {
        match &self.state {
            State::Ended {
                reason: EndReason::Protocol(_),
                ..
            } => CLOSE_PROTOCOL_ERROR,
            _ => CLOSE_NORMAL,
        }
    }

    /// The counters, and how full everything is now.
    pub fn stats(&self) -> Stats {
        let (sending, receiving) = (&self.sending, &self.receiving);
        let progress = receiving.inbox.progress();
        Stats {
            counters: self.counters,
            duplicates: receiving.inbox.duplicates(),
            send_memory: sending.outbox.memory(),
            receive_memory: receiving.inbox.memory(),
            unacknowledged_cost: sending.outbox.cost(),
            untaken_cost: progress.received.since(progress.taken),
            window: receiving.credit.window(),
            credit: sending.credit.limit().since(sending.outbox.sent_end()),
            granted: receiving.credit.granted().since(progress.received),
        }
    }
}
