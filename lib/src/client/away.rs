//! What goes on while a client has no connection.

use std::future::Future;

use tokio::time::{Instant, sleep_until};

use crate::{
    defaults::EXPIRY_INTERVAL, handles::Shared, pump::Reading, reports::Event, session::Link,
    time::later,
};

/// What goes on being served while there is no connection.
pub(super) enum Away<'a> {
    Plain(&'a mut Reading),
    Session(&'a mut Link),
    /// The pump of a session serves: only the handles' wishes are left.
    Busy,
}

impl Away<'_> {
    /// Does `work` meanwhile; `None` if it is over before: for a plain connection when close is
    /// requested, for a session when it has ended.
    pub(super) async fn until<T>(
        &mut self,
        shared: &Shared,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let serve = async {
            match self {
                Away::Session(link) => link.serve_detached(shared).await,
                Away::Plain(reading) => tokio::select! {
                    () = shared.close_requested() => {}
                    () = async { reading.drain(shared).await; std::future::pending().await } => {}
                },
                Away::Busy => shared.close_requested().await,
            }
        };
        tokio::select! {
            biased;
            () = serve => None,
            done = work => Some(done),
            () = report_while_away(shared) => None,
        }
    }
}

/// Reports what waits too long, and drops what has passed its time. Never resolves.
async fn report_while_away(shared: &Shared) {
    loop {
        let now = Instant::now();
        let expired = shared.outbox.expire(now);
        if expired > 0 {
            shared.events.push(Event::Expired { messages: expired });
        }
        let next = later(now, EXPIRY_INTERVAL);
        sleep_until(shared.meter.report(now).map_or(next, |at| at.min(next))).await;
    }
}
