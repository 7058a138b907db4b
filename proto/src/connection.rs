//! Connections come and go; the session stays (SPEC.md, "Resume").

use std::time::Duration;

use crate::error::{HandleError, ProtocolError};
use crate::event::{EndReason, Event};
use crate::limits::{Config, MIN_WINDOW};
use crate::number::{Generation, Offset, Seq};
use crate::resume::{Epoch, Hello, Rejection, SessionId, Token, Welcome};
use crate::session::{Session, Side};
use crate::state::{LinkState, State};
use crate::time::Time;
use crate::timer::Timer;

impl Session {
    /// A client's session, without a connection yet. `id` and `token` are random bytes from a
    /// cryptographic generator, drawn anew for each session.
    ///
    /// After calling this: [`send`](Session::send) what there is already, and
    /// [`attach`](Session::attach) a connection.
    pub fn client(config: Config, id: SessionId, token: Token) -> Session {
        Session::new(Side::Client, config, id, token)
    }

    /// A server's session for a HELLO whose session the server does not hold, with the
    /// connection that HELLO came on attached. `epoch` is the server's; `next_token` is drawn
    /// anew from a cryptographic generator.
    ///
    /// After calling this: keep the session where [`Hello::id`] finds it, and call
    /// [`poll_transmit`](Session::poll_transmit) with the generation.
    ///
    /// # Errors
    /// [`Rejection::Expired`] or [`Rejection::Unknown`] when the client means to resume a session
    /// that is not here, [`Rejection::Inconsistent`] when a new session does not begin at the
    /// beginning. A server without room for another session answers
    /// [`Rejection::Full`] of its own accord.
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
        session.epoch = Some(epoch);
        session.peer_max_message = Some(hello.max_message);
        session.events.push(Event::Opened);
        let generation = session.resume(hello, next_token)?;
        Ok((session, generation))
    }

    /// Server: another connection of this session has sent `hello`. It takes the place of the
    /// older one, if there still is one: what comes from that is refused from now on, so its
    /// carrier is to be woken and closed. `next_token` is drawn anew.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) with the new generation.
    ///
    /// # Errors
    /// A [`Rejection`] to be sent on the new connection, which is then closed. The session, and
    /// an older connection, are untouched. Only [`Rejection::Full`] may be tried again, and this
    /// does not give it.
    pub fn resume(&mut self, hello: &Hello, next_token: Token) -> Result<Generation, Rejection> {
        if self.side == Side::Client || hello.id != self.id || !self.tokens.allows(&hello.token) {
            return Err(Rejection::NotYours);
        }
        if self.is_over() || self.state.is_ended() {
            return Err(Rejection::Expired);
        }
        if hello.generation <= self.link.generation {
            return Err(Rejection::Superseded);
        }
        if self
            .outbox
            .check_resume(hello.received, hello.acked)
            .is_err()
        {
            return Err(Rejection::Inconsistent);
        }
        let first = self.link.generation == Generation::ZERO;
        self.tokens.rotate(hello.token, next_token);
        self.link.replace(hello.generation, LinkState::WelcomeOwed);
        let replayed = self
            .continue_from(hello.received, hello.acked, hello.credit)
            .map_err(|_| Rejection::Inconsistent)?;
        if !first {
            let generation = hello.generation;
            self.events.push(Event::Resumed {
                generation,
                replayed,
            });
        }
        Ok(hello.generation)
    }

    /// Client: a connection is there. It takes the place of the older one, if there still is
    /// one. `None` when the session is over and wants no connection.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) with the generation gives
    /// HELLO; nothing else is sent until the server has answered.
    pub fn attach(&mut self, now: Time) -> Option<Generation> {
        if self.side == Side::Server || !self.wants_connection() {
            return None;
        }
        let generation = self.link.generation.next()?;
        self.link.replace(generation, LinkState::HelloOwed);
        self.timers
            .set(Timer::Handshake, now, self.config.handshake_timeout);
        Some(generation)
    }

    /// The connection is lost, or was closed by this side. An older one than the current is of no
    /// effect. The session lives on for its life.
    ///
    /// After calling this: [`attach`](Session::attach) another one if
    /// [`wants_connection`](Session::wants_connection); a server waits for the client.
    pub fn detach(&mut self, now: Time, generation: Generation) {
        if !self.link.is_current(generation) {
            return;
        }
        self.link.detach();
        self.timers.stop(Timer::Handshake);
        if let State::Ended { farewell, .. } = &mut self.state {
            *farewell = None;
        }
        // A client that was never welcomed has nothing that could expire.
        if self.epoch.is_some() && !self.is_over() {
            self.timers.start(Timer::Expiry, now, self.life);
        }
        self.forget_unopened();
        self.rest_if_over();
    }

    /// The server consents: go on from its position.
    pub(crate) fn handle_welcome(&mut self, welcome: &Welcome) -> Result<(), ProtocolError> {
        if self.link.state != LinkState::HelloSent {
            return Err(ProtocolError::Unexpected("WELCOME without HELLO"));
        }
        if welcome.generation != self.link.generation {
            return Err(ProtocolError::Inconsistent("WELCOME to another connection"));
        }
        if self.epoch.is_some_and(|epoch| epoch != welcome.epoch) {
            return Err(ProtocolError::Inconsistent("WELCOME from another epoch"));
        }
        self.outbox.check_resume(welcome.received, welcome.acked)?;
        let opened = self.epoch.is_none();
        if opened {
            if welcome.credit < Offset::new(MIN_WINDOW) {
                return Err(ProtocolError::Inconsistent(
                    "a first window below the smallest",
                ));
            }
            self.epoch = Some(welcome.epoch);
            self.peer_max_message = Some(welcome.max_message);
        }
        self.life = self
            .config
            .session_life
            .min(Duration::from_millis(welcome.life_millis));
        self.tokens.replace(welcome.token);
        self.link.state = LinkState::Attached;
        self.timers.stop(Timer::Handshake);
        let replayed = self.continue_from(welcome.received, welcome.acked, welcome.credit)?;
        self.acks.confirm();
        let generation = self.link.generation;
        self.events.push(match opened {
            true => Event::Opened,
            false => Event::Resumed {
                generation,
                replayed,
            },
        });
        Ok(())
    }

    /// Both sides agree on a connection: begin after what the peer has.
    fn continue_from(
        &mut self,
        received: Seq,
        acked: Seq,
        credit: Offset,
    ) -> Result<u64, ProtocolError> {
        self.timers.stop(Timer::Expiry);
        self.send_credit.reconnect();
        self.send_credit.raise(credit);
        let replayed = self.outbox.rewind(received);
        self.counters.replayed += replayed;
        self.handle_ack(acked)?;
        self.check_writable();
        Ok(replayed)
    }

    /// The server rejects: whether that ends the session is up to the reason.
    pub(crate) fn handle_reject(&mut self, now: Time, rejection: Rejection) -> HandleError {
        if self.link.state != LinkState::HelloSent {
            return ProtocolError::Unexpected("REJECT without HELLO").into();
        }
        let generation = self.link.generation;
        if !rejection.is_retryable() || matches!(self.state, State::Finished { .. }) {
            self.end(EndReason::Rejected(rejection), None);
        }
        self.detach(now, generation);
        HandleError::Rejected(rejection)
    }
}
