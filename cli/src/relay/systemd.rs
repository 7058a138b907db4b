//! systemd: a socket that it opened, and what it is told. Elsewhere there is nothing to do.

use tokio::{net::TcpListener, task::JoinSet};

use crate::failure::Failure;

/// The socket that a `.socket` unit opened for this process.
pub(super) fn listener() -> Result<Option<TcpListener>, Failure> {
    #[cfg(unix)]
    {
        let mut passed = listenfd::ListenFd::from_env();
        let failed = |error| {
            Failure::work(format_args!(
                "the socket that systemd passed cannot be used, it has to be one of TCP: {error}"
            ))
        };
        let Some(listener) = passed.take_tcp_listener(0).map_err(failed)? else {
            return Ok(None);
        };
        listener.set_nonblocking(true).map_err(failed)?;
        TcpListener::from_std(listener).map(Some).map_err(failed)
    }
    #[cfg(not(unix))]
    Ok(None)
}

/// Says that connections are accepted, and feeds the watchdog as long as the result lives. The task that
/// feeds it runs on the same runtime as the connections: if that hangs, systemd restarts the relay.
pub(super) fn ready() -> JoinSet<()> {
    #[allow(unused_mut, reason = "only Linux has systemd")]
    let mut tasks = JoinSet::new();
    #[cfg(target_os = "linux")]
    {
        tell(&[sd_notify::NotifyState::Ready]);
        if let Some(within) = sd_notify::watchdog_enabled() {
            tasks.spawn(async move {
                let mut turn = tokio::time::interval(within / 3);
                loop {
                    turn.tick().await;
                    tell(&[sd_notify::NotifyState::Watchdog]);
                }
            });
        }
    }
    tasks
}

/// Says that a reload begins. `Type=notify-reload` wants the time with it, in the same message.
pub(super) fn reloading() {
    #[cfg(target_os = "linux")]
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("systemd cannot be told of a reload: {error}"),
    }
}

/// Says that a reload has ended, with what became of it. A failed one ends too: the relay goes on as it was.
#[allow(unused_variables, reason = "only Linux has systemd")]
pub(super) fn reloaded(status: &str) {
    #[cfg(target_os = "linux")]
    {
        // A line is a variable of its own.
        let status = status.replace('\n', " ");
        tell(&[
            sd_notify::NotifyState::Ready,
            sd_notify::NotifyState::Status(&status),
        ]);
    }
}

/// Says that the relay drains its connections and will end.
pub(super) fn stopping() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Stopping]);
}

#[cfg(target_os = "linux")]
fn tell(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd cannot be told: {error}");
    }
}
