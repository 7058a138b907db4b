//! A client's sessions. Each may run over many connections, one after another.

use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::{
    away::Away,
    backoff::Life,
    dialer::{Dialed, Dialer, identity},
    setup::{SetUp, leave, set_up},
};
use crate::{
    defaults::FAREWELL_TIMEOUT,
    dial::Wanted,
    handles::Shared,
    pump::{Ended, Pump, Reading},
    reports::{ConnectionError, Event, SessionLoss},
    session::{Packets, Session, SessionGuard, opening::Opening, over_packets},
    ws::{
        Failure, Side,
        transport::{HelloSent, Upgraded},
    },
};

/// What follows the end of a session.
pub(super) enum Next {
    /// The handle has ended too.
    Nothing,
    /// A plain connection, because the server no longer offers sessions.
    Open(Box<Upgraded>),
    /// Another connection has to be dialed.
    Dial,
}

impl Dialer {
    /// Runs one session, over as many connections as it takes.
    pub(super) async fn run_session(
        &mut self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
    ) -> Next {
        let renewed = self.fresh_sessions && self.backoff.is_some();
        let opening = self.opening.take().unwrap_or_else(Opening::new);
        let fresh = Session::client(shared, &opening, renewed);
        let mut guarded = SessionGuard::new(fresh, shared.clone());
        let session = &mut guarded.session;
        let span = session.begin_span().clone();
        let mut next = Some(open);
        let (mut last, mut in_setup) = (false, false);
        while let Some(open) = next.take() {
            if !open.is_session() {
                let why = SessionLoss::NotOffered;
                session.give_up(ConnectionError::SessionLost(why));
                next = Some(open);
                break;
            }
            if !session.attach() {
                break;
            }
            let (ended, life);
            (ended, life, in_setup) = self.one_connection(open, shared, reading, session).await;
            if session.is_over() && session.was_opened() && !in_setup {
                break;
            }
            let why = ended.why.clone().unwrap_or(ConnectionError::EndOfStream);
            let why = self.lost(why, &ended, life, shared);
            last = self.is_last(shared, session, &why, &ended);
            if last {
                session.give_up((*why).clone());
            }
            if session.is_over() {
                break;
            }
            // In a box, so that an open connection does not keep the memory for dialing.
            let redial = self.redial(shared, Away::Session(session, reading));
            match Box::pin(redial.instrument(span.clone())).await {
                Dialed::Open(open) => next = Some(open),
                Dialed::Ended => break,
                Dialed::Failed(why) => {
                    last = true;
                    session.give_up(ConnectionError::Reconnect(why));
                }
            }
        }
        let back_at = session.comes_back_at();
        self.asked = back_at.map(|at| at.saturating_duration_since(Instant::now()));
        let restart = !last && !shared.is_closing();
        match (
            session.end_client(shared, reading, restart, in_setup).await,
            next,
        ) {
            (false, _) => Next::Nothing,
            (true, Some(open)) => Next::Open(open),
            (true, None) => Next::Dial,
        }
    }

    /// Whether the connection that has ended is the last one.
    fn is_last(
        &mut self,
        shared: &Shared,
        session: &mut Session,
        why: &ConnectionError,
        ended: &Ended,
    ) -> bool {
        let Some(backoff) = &self.backoff else {
            return true;
        };
        if session.was_welcomed() {
            self.refused = 0;
            return false;
        }
        self.refused += 1;
        if let ConnectionError::SessionRefused { retry_after, .. } = why {
            self.asked = *retry_after;
        }
        let allowed = backoff.allows(self.refused);
        if session.is_not_spoken(ended) {
            session.give_up(ConnectionError::SessionLost(SessionLoss::NotSpoken));
            if self.dial_options.session == Wanted::Required {
                return true;
            }
            shared.events.push(Event::SessionNotSpoken);
            self.plain_once = true;
        }
        !allowed
    }

    /// Runs one connection of a session, and detaches the session. `true` if the connection ended
    /// before the hook had returned.
    async fn one_connection(
        &self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
        session: &mut Session,
    ) -> (Ended, Life, bool) {
        shared.set_identity(identity(&open));
        let (started, moved) = (Instant::now(), session.moved());
        let (ended, in_setup) = self.converse_session(open, shared, reading, session).await;
        session.detach(shared, Instant::now());
        let life = Life {
            lasted: started.elapsed(),
            received_any: ended.received_any,
            progressed: session.moved() != moved,
        };
        (ended, life, in_setup)
    }

    /// Runs one connection of a session. In a fresh session the hook runs first. `true` if the
    /// connection ended before the hook had returned.
    async fn converse_session(
        &self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
        session: &mut Session,
    ) -> (Ended, bool) {
        let hello = open.hello;
        let mut ws = over_packets(open.unboxed(), Side::Client, &shared.options);
        if hello != HelloSent::Never {
            let taken = hello == HelloSent::Taken;
            if let Err(Failure::Broken(why)) = session.opened_with_request(taken, &mut ws) {
                return (Ended::because(why), false);
            }
        }
        let hook = self.hook.as_ref().filter(|_| !session.was_opened());
        let mut pump = Pump::new(ws, shared.clone(), Packets { session, reading });
        let Some(hook) = hook else {
            return (pump.run().await, false);
        };
        let set_up = Box::pin(set_up(hook, &mut pump, shared)).await;
        let ended = match set_up {
            SetUp::Done => {
                pump.traffic().session.forget_flushes();
                return (pump.run().await, false);
            }
            SetUp::Closing => pump.run().await,
            SetUp::Ended(ended) => {
                let why = ended.why.clone().unwrap_or(ConnectionError::EndOfStream);
                pump.traffic().session.give_up(why);
                ended
            }
            SetUp::Failed(why) => {
                pump.traffic().session.give_up(why.clone());
                // Tell the server that the session ends. Queued messages stay queued for the next
                // session.
                let ended = timeout(FAREWELL_TIMEOUT, pump.run()).await;
                let mut ended = ended.unwrap_or_else(|_| Ended::because(why.clone()));
                ended.why = Some(why);
                ended
            }
        };
        leave(&mut pump, shared);
        (ended, true)
    }
}
