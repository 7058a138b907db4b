//! A server that comes back after many clients lost it is not overrun.
//!
//! The bound: a client that lost its connection draws its k-th wait evenly from zero to
//! `w(k) = min(first * 2^k, max)`, from k = 0, so at no moment do n clients make their k-th attempt
//! at a higher rate than `n / w(k)` a second. Over all k up to the longest wait that is at most
//! `n / first * (1 + 1/2 + 1/4 + …) = 2 n / first`. Once every client draws from the longest wait,
//! attempts are a renewal process of even waits: its rate is never above `e n / max`, and `2 n / max`
//! in the long run. So the documentation says `3 n / max`.

use crate::common::{
    frames::{listen, read_head, switching},
    limit, until,
};
use crate::{alone, descriptors};
use futures_util::{StreamExt, stream};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use unstall::{Client, Options, Reconnect};

const MAX: Duration = Duration::from_secs(3);
const FIRST: Duration = Duration::from_nanos(3_000_000_000 / 16);

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Connections are upgraded and held.
    Up,
    /// Connections are lost, and new ones are closed immediately.
    Down,
}

async fn serve(mut tcp: TcpStream, mut state: watch::Receiver<State>) {
    tcp.set_zero_linger().unwrap();
    if *state.borrow_and_update() == State::Down {
        return;
    }
    let head = read_head(&mut tcp).await;
    tcp.write_all(switching(&head, "").as_bytes())
        .await
        .unwrap();
    let mut forgotten = [0; 1024];
    let hold = async { while tcp.read(&mut forgotten).await.is_ok_and(|read| read > 0) {} };
    tokio::select! {
        _ = state.changed() => {}
        () = hold => {}
    }
}

/// How many clients the limit of file descriptors allows. Each takes two here.
fn clients() -> usize {
    // If the limit is not known, this is what the strictest system allows.
    let descriptors = descriptors().unwrap_or(256);
    (descriptors.saturating_sub(100) / 2).min(1000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_per_second_stay_under_the_bound_when_a_server_comes_back() {
    let _alone = alone().await;
    let count = clients();
    assert!(
        count >= 50,
        "{count} clients prove nothing: raise the limit of open files"
    );
    let (listener, address) = listen().await;
    let (state, watcher) = watch::channel(State::Up);
    let attempts = Arc::new(Mutex::new(Vec::<Instant>::new()));
    let seen = attempts.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            seen.lock().unwrap().push(Instant::now());
            tokio::spawn(serve(tcp, watcher.clone()));
        }
    });
    let reconnect = Reconnect::default().first(FIRST).max(MAX);
    let connect = |_| {
        let client = Client::new(format!("ws://{address}"))
            .reconnect(reconnect.clone())
            .options(Options::default().connect_timeout(Duration::from_secs(30)));
        async move { client.connect().await.unwrap() }
    };
    // Not all at once, because the kernel resets connections when the listener's queue overflows.
    let connecting = stream::iter((0..count).map(connect)).buffer_unordered(100);
    let clients: Vec<_> = limit(connecting.collect()).await;

    attempts.lock().unwrap().clear();
    state.send_replace(State::Down);
    let lost = Instant::now();
    // The length of the outage. The k-th wait ends at the latest after first * 2^(k+1). So by then all
    // clients draw from the longest wait (1/16 + 1/8 + 1/4 + 1/2 of it came before).
    tokio::time::sleep(MAX + MAX / 2).await;
    state.send_replace(State::Up);
    let back = Instant::now();
    until("everyone is back", || {
        clients.iter().all(|client| client.stats().connections > 1)
    })
    .await;
    let took = back.elapsed();

    let attempts = std::mem::take(&mut *attempts.lock().unwrap());
    let within = |from: Instant, to: Instant| {
        attempts
            .iter()
            .filter(|at| from <= **at && **at < to)
            .count() as f64
    };
    // The most attempts in a window that begins in this time.
    let busiest = |from: Instant, to: Instant, window: Duration| {
        (0..)
            .map(|step| from + window / 10 * step)
            .take_while(|from| *from < to)
            .map(|from| within(from, from + window))
            .fold(0.0, f64::max)
    };
    // The bound is an average, around which a count scatters by its root. Six times that is never seen.
    // The windows are so short that all clients at once would exceed it.
    let bound = |a_second: f64, window: Duration| {
        let average = a_second * window.as_secs_f64();
        average + 6.0 * average.sqrt()
    };
    // From the longest wait on: by then every client has drawn from it at least once.
    let quarter = Duration::from_millis(250);
    let (most, allowed) = (
        busiest(lost + MAX, back + took, quarter),
        bound(3.0 * count as f64 / MAX.as_secs_f64(), quarter),
    );
    // The first wave is spread over the first wait too, rather than arriving at once.
    let (first_most, first_allowed) = (
        busiest(lost, lost + FIRST, FIRST / 3),
        bound(2.0 * count as f64 / FIRST.as_secs_f64(), FIRST / 3),
    );
    println!(
        "{count} clients: {} attempts in all; at most {most} in {quarter:?} while the server came \
         back (bound {allowed:.0}), {first_most} in {:?} at first (bound {first_allowed:.0}); all \
         back after {took:?}",
        attempts.len(),
        FIRST / 3,
    );
    assert!(0.0 < most && most <= allowed, "{most} attempts at once");
    assert!(first_most <= first_allowed, "{first_most} at once");
    // Each came back with one attempt more, within its one wait.
    assert!(within(back, back + took * 2) <= count as f64 * 1.05);
}
