//! The listening task: takes connections from the kernel, whatever happens.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::admit::{self, Admitted};
use super::{Life, State};
use crate::defaults;
use crate::time::later;

/// Runs until the server stops. Handshakes under way end with it.
pub(super) async fn run(listener: TcpListener, state: Arc<State>) {
    let mut handshakes = JoinSet::new();
    let mut pause = Duration::ZERO;
    let mut resume = Instant::now();
    // Until then, arrivals wait in the kernel's queue for a place among the handshakes.
    let mut patience = Instant::now();
    loop {
        tokio::select! {
            () = state.reached(Life::Draining) => return,
            Some(ended) = handshakes.join_next() => reap(&state, ended),
            accepted = accept_from(&listener, &state, resume, patience) => match accepted {
                Ok((tcp, peer)) => {
                    pause = Duration::ZERO;
                    if admit(&state, &mut handshakes, tcp, peer) {
                        patience = later(Instant::now(), defaults::SERVER_HANDSHAKE_PATIENCE);
                    }
                }
                Err(error) => {
                    pause = failed(&state, &error, pause);
                    resume = later(Instant::now(), pause);
                }
            },
        }
    }
}

/// The next connection. Not before `resume`, so that an accept that fails again and again does not
/// spin; and not before a handshake may begin or `patience` ends.
async fn accept_from(
    listener: &TcpListener,
    state: &State,
    resume: Instant,
    patience: Instant,
) -> io::Result<(TcpStream, SocketAddr)> {
    if resume > Instant::now() {
        sleep_until(resume).await;
    }
    let _ = timeout_at(patience, state.admission.room()).await;
    listener.accept().await
}

/// Whether it was let in.
fn admit(
    state: &Arc<State>,
    handshakes: &mut JoinSet<()>,
    tcp: TcpStream,
    peer: SocketAddr,
) -> bool {
    state.counters.arrived.add();
    match state.admission.ask() {
        Admitted::In(entry) => {
            handshakes.spawn(admit::open(tcp, peer, entry, state.clone()));
            true
        }
        Admitted::Refused(full, permit) => {
            full.counter(&state.counters).add();
            // Without a permit there is nobody to say it: the connection is closed at once.
            if let Some(permit) = permit {
                handshakes.spawn(admit::refuse(tcp, full, permit, state.clone()));
            }
            false
        }
    }
}

/// Counts the failure; how long to pause before the next try.
fn failed(state: &State, error: &io::Error, pause: Duration) -> Duration {
    state.counters.accept_errors.add();
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        // That connection's own trouble; the next one may be fine.
        return Duration::ZERO;
    }
    // Want of descriptors or memory: only time, and connections that end, can help.
    let next = (pause * 2).clamp(defaults::ACCEPT_BACKOFF_FIRST, defaults::ACCEPT_BACKOFF_MAX);
    tracing::warn!(%error, ?next, "cannot accept connections; trying again after a pause");
    next
}

fn reap(state: &State, ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        state.counters.handshakes_failed.add();
        tracing::error!("the authentication hook panicked; its handshake was broken off");
    }
}
