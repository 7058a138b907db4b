//! Connections come and go, and the session continues (SPEC.md, "Resume").

use std::time::Duration;

use crate::connection::Phase;
use crate::error::ProtocolError;
use crate::event::{EndReason, Event};
use crate::limits::{Config, MIN_WINDOW};
use crate::number::{Generation, Offset, Seq};
use crate::resume::{Epoch, Hello, Rejection, SessionId, Token, Tokens, Welcome};
use crate::session::{HandleError, Session, Side};
use crate::state::State;
use crate::time::Time;
use crate::timer::Timer;

/// What the two sides have agreed on.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    /// The server's epoch. `None` on a client that was never welcomed.
    pub(super) epoch: Option<Epoch>,
    pub(super) tokens: Tokens,
    /// How long the session lives without a connection.
    pub(super) life: Duration,
    /// The largest message that the peer accepts, once it is known.
    pub(super) peer_max_message: Option<u64>,
}

impl Agreement {
    pub(super) fn new(token: Token, life: Duration) -> Agreement {
        Agreement {
            epoch: None,
            tokens: Tokens::new(token),
            life,
            peer_max_message: None,
        }
    }
}

impl Session {
    /// A client's session that has no connection yet. `id` and `token` are random bytes from a
    /// cryptographic generator, drawn anew for each session.
    ///
    /// After calling this: [`send`](Session::send) what there is already, and
    /// [`attach`](Session::attach) a connection.
    pub fn client(config: Config, id: SessionId, token: Token) -> Session {
        Session::new(Side::Client, config, id, token)
    }

    /// A server's session for a HELLO whose session the server does not have. The connection of
    /// that HELLO carries it. `epoch` is the server's. `next_token` is drawn anew from a
    /// cryptographic generator.
    ///
    /// After calling this: keep the session so that [`Hello::id`] finds it, and call
    /// [`poll_transmit`](Session::poll_transmit) with the generation.
    ///
    /// # Errors
    /// [`Rejection::Expired`] or [`Rejection::Unknown`] when the client resumes a session that is
    /// not here; [`Rejection::Inconsistent`] when a new session does not begin at the beginning. A
    /// server without room for another session answers [`Rejection::Full`] itself.
    pub fn server(
        config: Config,
        hello: &Hello,
        epoch: Epoch,
        next_token: Token,
    ) -> Result<(Session, Generation), Rejection> {
        match hello.epoch {
            Some(known) if known == epoch => return Err(Rejection::Expired),
            Some(_) => return Err(Rejection::Unknown),
            None => {}
        }
        if hello.received != Seq::ZERO || hello.credit < Offset::new(MIN_WINDOW) {
            return Err(Rejection::Inconsistent);
        }
        let mut session = Session::new(Side::Server, config, hello.id, hello.token);
        session.agreement.epoch = Some(epoch);
        session.agreement.peer_max_message = Some(hello.max_message);
        session.events.push(Event::Opened);
        let generation = session.resume(hello, next_token)?;
        Ok((session, generation))
    }

    /// Server: another connection of this session has sent `hello`. It replaces the older
    /// connection, if there still is one: packets of that one are refused from now on, so wake its
    /// task and close it. `next_token` is drawn anew.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) with the new generation.
    ///
    /// # Errors
    /// A [`Rejection`]: send it on the new connection, and close that one. The session and its
    /// older connection do not change. [`Rejection::Full`] is not among them.
    pub fn resume(&mut self, hello: &Hello, next_token: Token) -> Result<Generation, Rejection> {
        let tokens = &mut self.agreement.tokens;
        if self.side == Side::Client || hello.id != self.id || !tokens.allows(&hello.token) {
            return Err(Rejection::NotYours);
        }
        if self.is_over() || self.state.is_ended() {
            return Err(Rejection::Expired);
        }
        if hello.generation <= self.connection.generation {
            return Err(Rejection::Superseded);
        }
        let outbox = &self.sending.outbox;
        if outbox.check_resume(hello.received, hello.acked).is_err() {
            return Err(Rejection::Inconsistent);
        }
        let generation = hello.generation;
        let first = self.connection.generation == Generation::ZERO;
        self.agreement.tokens.rotate(hello.token, next_token);
        self.connection.replace(generation, Phase::WelcomeOwed);
        let replayed = self.continue_from(hello.received, hello.acked, hello.credit);
        if !first {
            self.events.push(Event::Resumed {
                generation,
                replayed,
            });
        }
        Ok(generation)
    }

    /// Client: there is a connection. It replaces the older one, if there still is one. `None` when
    /// the session wants no connection any more.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) with the generation gives
    /// HELLO. Nothing else is sent until the server has answered.
    pub fn attach(&mut self, now: Time) -> Option<Generation> {
        if self.side == Side::Server || !self.wants_connection() {
            return None;
        }
        let generation = self.connection.generation.next()?;
        self.connection.replace(generation, Phase::HelloOwed);
        self.timers
            .set(Timer::Handshake, now, self.config.handshake_timeout);
        Some(generation)
    }

    /// The connection is lost, or this side has closed it. Without effect when a newer one has
    /// replaced it. The session lives on for a while: see [`Config::session_life`].
    ///
    /// After calling this: [`attach`](Session::attach) another one if
    /// [`wants_connection`](Session::wants_connection). A server waits for its client.
    pub fn detach(&mut self, now: Time, generation: Generation) {
        if !self.connection.is_current(generation) {
            return;
        }
        self.connection.detach();
        self.timers.stop(Timer::Handshake);
        if let State::Ended { farewell, .. } = &mut self.state {
            *farewell = None;
        }
        // The session of a client that was never welcomed is nowhere else, so it need not expire.
        if self.agreement.epoch.is_some() && !self.is_over() {
            self.timers.start(Timer::Expiry, now, self.agreement.life);
        }
        self.forget_unopened();
        self.rest_if_over();
    }

    /// The server accepts. The session continues from its position.
    pub(super) fn handle_welcome(&mut self, welcome: &Welcome) -> Result<(), ProtocolError> {
        let opened = self.agreement.epoch.is_none();
        self.check_welcome(welcome, opened)?;
        let agreement = &mut self.agreement;
        if opened {
            agreement.epoch = Some(welcome.epoch);
            agreement.peer_max_message = Some(welcome.max_message);
        }
        let life = Duration::from_millis(welcome.life_millis);
        agreement.life = self.config.session_life.min(life);
        agreement.tokens.replace(welcome.token);
        self.connection.phase = Phase::Attached;
        self.timers.stop(Timer::Handshake);
        let replayed = self.continue_from(welcome.received, welcome.acked, welcome.credit);
        self.receiving.acks.confirm();
        let generation = self.connection.generation;
        self.events.push(match opened {
            true => Event::Opened,
            false => Event::Resumed {
                generation,
                replayed,
            },
        });
        Ok(())
    }

    fn check_welcome(&self, welcome: &Welcome, first: bool) -> Result<(), ProtocolError> {
        if self.connection.phase != Phase::HelloSent {
            return Err(ProtocolError::Unexpected("WELCOME without HELLO"));
        }
        if welcome.generation != self.connection.generation {
            return Err(ProtocolError::Inconsistent("WELCOME to another connection"));
        }
        let epoch = self.agreement.epoch;
        if epoch.is_some_and(|epoch| epoch != welcome.epoch) {
            return Err(ProtocolError::Inconsistent("WELCOME from another epoch"));
        }
        if first && welcome.credit < Offset::new(MIN_WINDOW) {
            return Err(ProtocolError::Inconsistent(
                "a first window below the smallest",
            ));
        }
        self.sending
            .outbox
            .check_resume(welcome.received, welcome.acked)
    }

    /// Both sides have agreed on a connection. This side continues after what the peer has
    /// received; the outbox has allowed that. Returns how many records are sent again.
    fn continue_from(&mut self, received: Seq, acked: Seq, credit: Offset) -> u64 {
        self.timers.stop(Timer::Expiry);
        self.sending.credit.reconnect();
        self.sending.credit.raise(credit);
        let replayed = self.sending.outbox.rewind(received);
        self.counters.replayed += replayed;
        let acknowledged = self.handle_ack(acked);
        debug_assert_eq!(acknowledged, Ok(()), "checked before");
        self.check_writable();
        replayed
    }

    /// The server rejects. The reason says whether that ends the session.
    pub(super) fn handle_reject(&mut self, now: Time, rejection: Rejection) -> HandleError {
        if self.connection.phase != Phase::HelloSent {
            return ProtocolError::Unexpected("REJECT without HELLO").into();
        }
        let generation = self.connection.generation;
        if !rejection.is_retryable() || matches!(self.state, State::Finished { .. }) {
            self.end(EndReason::Rejected(rejection), None);
        }
        self.detach(now, generation);
        HandleError::Rejected(rejection)
    }
}
