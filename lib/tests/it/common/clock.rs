//! Waits that need not last: the runtime's clock, put forward.

use std::time::Duration;

use futures_util::FutureExt;

/// Puts the clock of this thread's runtime forward. Every timer that falls into the time is due at
/// once, as after a sleep of the machine; sockets notice nothing of it. For tests that wait for a
/// timer of the library behind a real connection, on a runtime of one thread. The clock goes on
/// wherever this future is dropped.
pub(crate) async fn leap(time: Duration) {
    tokio::time::pause();
    // The first poll does it; the rest is a yield.
    tokio::time::advance(time).now_or_never();
    tokio::time::resume();
    tokio::task::yield_now().await;
}

/// Lets the clock of this thread's runtime run twenty times as fast while the work lasts: so much
/// faster come its timers, while sockets are as quick as ever. For waits of seconds behind a real
/// connection, on a runtime of one thread.
pub(crate) async fn hurried<T>(work: impl Future<Output = T>) -> T {
    const REAL: Duration = Duration::from_millis(5);
    let hurry = async {
        loop {
            tokio::time::sleep(REAL).await;
            leap(REAL * 19).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = hurry => unreachable!(),
    }
}
