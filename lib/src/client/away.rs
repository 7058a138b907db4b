//! The work of a client while it has no connection.

use std::future::Future;

use tokio::time::{Instant, sleep_until};

use crate::{
    defaults::EXPIRY_INTERVAL, handles::Shared, pump::Reading, reports::Event, session::Session,
    time::later,
};

/// The state that is served while there is no connection.
pub(super) enum Away<'a> {
    Plain(&'a mut Reading),
    Session(&'a mut Session, &'a mut Reading),
}

impl Away<'_> {
    /// Runs `work` and serves the handles in the meantime. `None` if the handle ends first: a plain
    /// one when close is requested, a session when it has ended.
    pub(super) async fn until<T>(
        &mut self,
        shared: &Shared,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let serve = async {
            match self {
                Away::Session(session, reading) => session.serve_detached(shared, reading).await,
                Away::Plain(reading) => tokio::select! {
                    () = shared.close_requested() => {}
                    () = async { reading.drain(shared).await; std::future::pending().await } => {}
                },
            }
        };
        tokio::select! {
            biased;
            () = serve => None,
            done = work => Some(done),
            () = tell_stalls(shared) => None,
            () = expire_queued(shared) => None,
        }
    }
}

/// Sends events about waits that last too long. Never resolves.
async fn tell_stalls(shared: &Shared) {
    loop {
        let now = Instant::now();
        let next = later(now, EXPIRY_INTERVAL);
        sleep_until(shared.meter.report(now).map_or(next, |at| at.min(next))).await;
    }
}

/// Drops queued messages whose time to live has passed. Never resolves.
pub(super) async fn expire_queued(shared: &Shared) {
    loop {
        let now = Instant::now();
        let messages = shared.outbox.expire(now);
        if messages > 0 {
            shared.events.push(Event::Expired { messages });
        }
        sleep_until(later(now, EXPIRY_INTERVAL)).await;
    }
}
