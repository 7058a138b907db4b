//! Waiting without waiting: moves the runtime's clock forward.

use std::time::Duration;

use futures_util::FutureExt;

/// Moves the clock of this thread's runtime forward. Every timer in that time is due immediately, as
/// after the machine was suspended. Sockets do not notice.
///
/// For tests that wait for a timer of the library over a real connection, on a runtime of one thread.
/// The clock runs again even if this future is dropped.
pub(crate) async fn leap(time: Duration) {
    tokio::time::pause();
    // The first poll moves the clock; the rest is a yield.
    tokio::time::advance(time).now_or_never();
    tokio::time::resume();
    tokio::task::yield_now().await;
}

/// Lets the clock of this thread's runtime run twenty times as fast during `work`. Timers come faster,
/// and sockets are as fast as always. For waits of seconds over a real connection, on a runtime of one
/// thread.
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
