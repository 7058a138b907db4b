//! The listening task: accepts connections until the server stops.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    ServerState, Stage, admit, door::Arrival, listener::Listener, places::Over, proxies::PeerAddr,
};
use crate::{defaults, time::later, ws::transport::Transport};

/// Says when it is dropped that the listener is closed.
struct Closed(Arc<ServerState>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.advance(Stage::Closed);
    }
}

/// Runs until the server stops. Handshakes under way are dropped with it.
pub(super) async fn run<L: Listener>(listener: L, state: Arc<ServerState>) {
    // Dropped after the listener, which was declared later.
    let _closed = Closed(state.clone());
    let mut listener = listener;
    let mut handshakes = JoinSet::new();
    let mut pause = Duration::ZERO;
    let mut resume = Instant::now();
    let mut tick = interval(defaults::SERVER_LINE_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let somebody_waits = state.door.waiting() > 0;
        tokio::select! {
            () = state.reached(Stage::Draining) => return,
            Some(ended) = handshakes.join_next() => {
                reap(&state, ended);
                while let Some(ended) = handshakes.try_join_next() {
                    reap(&state, ended);
                }
            }
            () = state.door.freed() => {}
            _ = tick.tick(), if somebody_waits => look_around(&state, &mut handshakes),
            accepted = accept_from(&mut listener, resume) => match accepted {
                Ok(arrival) => {
                    pause = Duration::ZERO;
                    state.counters.arrived.add();
                    let leaves = state.door.arrived(arrival);
                    leaves.into_iter().for_each(|it| refuse(&state, &mut handshakes, it));
                }
                Err(error) => {
                    pause = failed(&state, &error, pause);
                    resume = later(Instant::now(), pause);
                }
            },
        }
        begin(&state, &mut handshakes);
    }
}

/// Accepts the next connection, not before `resume`: a failing accept must not spin.
async fn accept_from(listener: &mut impl Listener, resume: Instant) -> io::Result<Arrival> {
    if resume > Instant::now() {
        sleep_until(resume).await;
    }
    let (stream, peer) = listener.accept().await?;
    Ok(Arrival {
        stream: Transport::of(stream),
        peer: PeerAddr::of(peer),
        since: Instant::now(),
    })
}

/// Begins handshakes as long as there are slots.
fn begin(state: &Arc<ServerState>, handshakes: &mut JoinSet<()>) {
    while let Some((arrival, slot)) = state.door.next(Instant::now()) {
        let id = slot.id;
        let task = handshakes.spawn(admit::open(arrival, slot, state.clone()));
        state.door.started(id, task);
    }
}

/// Runs at intervals while clients wait. Closes handshakes that stall, and refuses clients that
/// have waited too long.
fn look_around(state: &Arc<ServerState>, handshakes: &mut JoinSet<()>) {
    let now = Instant::now();
    state.door.look_again(now);
    begin(state, handshakes);
    for arrival in state
        .door
        .overdue(now, state.config.limits.handshake_timeout)
    {
        refuse(state, handshakes, arrival);
    }
}

fn refuse(state: &Arc<ServerState>, handshakes: &mut JoinSet<()>, arrival: Arrival) {
    state.counters.refused.handshakes.add();
    // Only a bounded number is told at once. Others are closed without an answer.
    if let Ok(permit) = state.refusals.clone().try_acquire_owned() {
        let over = Over::Handshakes;
        handshakes.spawn(admit::refuse(arrival, over, permit, state.clone()));
    }
}

/// Counts a failed accept, and returns the pause before the next one.
fn failed(state: &ServerState, error: &io::Error, pause: Duration) -> Duration {
    state.counters.accept_errors.add();
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        // Only that connection failed. The next one may succeed.
        return Duration::ZERO;
    }
    // File descriptors or memory are exhausted. Closing a handshake that stalls frees some.
    if state.door.relieve(Instant::now()).is_some() {
        state.counters.refused.handshakes.add();
    }
    let next = (pause * 2).clamp(defaults::ACCEPT_BACKOFF_FIRST, defaults::ACCEPT_BACKOFF_MAX);
    tracing::warn!(%error, ?next, "cannot accept connections; trying again after a pause");
    next
}

fn reap(state: &ServerState, ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        state.counters.handshakes_failed.add();
        tracing::error!("the authentication hook panicked; its handshake was cut");
    }
}
