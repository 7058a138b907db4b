//! Promises that need thousands of sockets or exact times. They run one after the other, while no other
//! test runs.

#[path = "../it/common/mod.rs"]
#[expect(
    dead_code,
    reason = "a few of the helpers are used here, all of them in `it`"
)]
mod common;

mod five_thousand_sessions;
mod recovery_is_quick;
mod ten_thousand_connections;
mod thousand_clients_come_back;

use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other test of this process runs. Others wait while the guard is held.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// How many files this process may have open. `None` where the system does not say.
fn descriptors() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    files.split_whitespace().next()?.parse().ok()
}
