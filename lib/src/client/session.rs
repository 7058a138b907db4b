//! A client's sessions: each over as many connections as it takes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Hook,
    away::Away,
    backoff::Life,
    dialer::{Dialed, Dialer, identity},
    setup::{SetupFailure, set_up},
};
use crate::{
    dial::Wanted,
    handles::Shared,
    pump::{Ended, Pump, Reading},
    reports::{ConnectionError, SessionLoss},
    session::{Kept, Link, Packets, client::NotSpoken, over_packets},
    ws::{
        Side, WebSocket,
        transport::{Transport, Upgraded},
    },
};

impl Dialer {
    /// A session, over as many connections as it takes. `None`: it was the last; else what there
    /// is to go on with.
    pub(super) async fn run_session(
        &mut self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
    ) -> Option<Option<Box<Upgraded>>> {
        let renewed = self.fresh_sessions && self.backoff.is_some();
        let mut kept = Kept::new(Link::client(shared, renewed), shared.clone());
        let link = &mut kept.link;
        if self.hook.is_none() {
            link.put_before(reading.take_received());
        }
        let mut next = Some(open);
        let mut last = false;
        while let Some(open) = next.take() {
            if !open.is_session() {
                let why = SessionLoss::NotOffered;
                link.give_up(ConnectionError::SessionLost(why));
                next = Some(open);
                break;
            }
            if !link.attach() {
                break;
            }
            shared.set_identity(identity(&open));
            let (started, moved) = (Instant::now(), link.moved());
            let ended = self.converse_session(open, shared, reading, link).await;
            link.detach(shared, Instant::now());
            if link.is_over() && link.was_opened() && !link.is_set_up() {
                break;
            }
            let why = ended.why.clone().unwrap_or(ConnectionError::EndOfStream);
            let life = Life {
                lasted: started.elapsed(),
                received_any: ended.received_any,
                progressed: link.moved() != moved,
            };
            let why = self.lost(why, &ended, life, shared);
            last = self.is_last(link, &why, &ended);
            if last {
                link.give_up((*why).clone());
            }
            if link.is_over() {
                break;
            }
            // In a box: an open connection does not hold the room that dialing takes.
            match Box::pin(self.redial(shared, Away::Session(link))).await {
                Dialed::Open(open) => next = Some(open),
                Dialed::Over => break,
                Dialed::Failed(why) => {
                    last = true;
                    link.give_up(ConnectionError::Reconnect(why));
                }
            }
        }
        let back_at = link.comes_back_at();
        self.asked = back_at.map(|at| at.saturating_duration_since(Instant::now()));
        let restart = !last && !shared.is_closing();
        link.end_client(shared, reading, restart)
            .await
            .then_some(next)
    }

    /// Whether no further connection is to be made after one that has ended.
    fn is_last(&mut self, link: &mut Link, why: &ConnectionError, ended: &Ended) -> bool {
        let Some(backoff) = &self.backoff else {
            return true;
        };
        if link.was_welcomed() {
            self.refused = 0;
            return false;
        }
        self.refused += 1;
        if let ConnectionError::SessionRefused { retry_after, .. } = why {
            self.asked = *retry_after;
        }
        let allowed = backoff.allows(self.refused);
        if let Some(how) = link.not_spoken(ended) {
            link.give_up(ConnectionError::SessionLost(SessionLoss::NotSpoken));
            match (self.dial_options.session, how) {
                (Wanted::Offered, NotSpoken::Misunderstood) => {
                    self.dial_options.session = Wanted::Never;
                }
                (Wanted::Offered, NotSpoken::Silent) => self.plain_once = true,
                (_, NotSpoken::Silent) => {}
                (_, NotSpoken::Misunderstood) => return true,
            }
        }
        !allowed
    }

    /// One connection of a session: for a fresh one the hook, then everything else.
    async fn converse_session(
        &self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
        link: &mut Link,
    ) -> Ended {
        let ws = over_packets(*open, Side::Client, &shared.options);
        let hook = self.hook.as_ref().filter(|_| !link.was_opened());
        match hook {
            None => Pump::new(ws, shared.clone(), Packets(link)).run().await,
            Some(hook) => Box::pin(self.begin_session(hook, ws, shared, reading, link)).await,
        }
    }

    /// The connection that a fresh session begins with.
    async fn begin_session(
        &self,
        hook: &Hook,
        ws: WebSocket<Transport>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
        link: &mut Link,
    ) -> Ended {
        let own = shared.for_setup();
        link.bind(&own);
        link.set_up(true);
        let mut pump = Pump::new(ws, own.clone(), Packets(link));
        let done = set_up(hook, &mut pump, &own, shared, Away::Busy).await;
        let failure = match done {
            Ok(()) => {
                pump.rebind(shared.clone(), |packets| {
                    packets.0.rebind(&own, shared);
                    packets.0.put_before(reading.take_received());
                    packets.0.set_up(false);
                });
                return pump.run().await;
            }
            Err(failure) => failure,
        };
        let why = match &failure {
            SetupFailure::Failed(why) => why.clone(),
            SetupFailure::Ended(ended) => ended.why.clone().unwrap_or(ConnectionError::EndOfStream),
        };
        let link = &mut *pump.traffic().0;
        link.give_up(why.clone());
        link.rebind(&own, shared);
        match failure {
            SetupFailure::Ended(ended) => ended,
            SetupFailure::Failed(_) => {
                // The farewell, within a moment: what waits for the session waits on.
                let farewell = tokio::time::timeout(FAREWELL, pump.run()).await;
                let mut ended = farewell.unwrap_or_else(|_| Ended::because(why.clone()));
                ended.why = Some(why);
                ended
            }
        }
    }
}

/// For telling a server that the set-up failed. A server that reads takes it in a round trip.
const FAREWELL: Duration = Duration::from_secs(1);
