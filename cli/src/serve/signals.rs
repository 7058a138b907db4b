//! The signals that end a server, or let it read its files again.

use std::io;

/// Resolves at SIGINT or SIGTERM.
#[cfg(unix)]
pub(crate) fn end_asked() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    // The handlers are installed here, before the future is polled.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves on Ctrl-C, or when the console closes.
#[cfg(windows)]
pub(crate) fn end_asked() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::windows::{ctrl_c, ctrl_close};
    let (mut interrupt, mut close) = (ctrl_c()?, ctrl_close()?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = close.recv() => {}
        }
    })
}

/// Asks a server to read its files again.
#[derive(Debug)]
pub(crate) struct ReloadAsked {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

/// SIGHUP, from now on. Without this, it ends the process.
#[cfg(unix)]
pub(crate) fn reload_asked() -> io::Result<ReloadAsked> {
    use tokio::signal::unix::{SignalKind, signal};
    let hangup = signal(SignalKind::hangup())?;
    Ok(ReloadAsked { hangup })
}

/// Windows has no signal for it.
#[cfg(windows)]
pub(crate) fn reload_asked() -> io::Result<ReloadAsked> {
    Ok(ReloadAsked {})
}

impl ReloadAsked {
    /// Resolves when it is asked again. Several signals while it was not polled count once.
    pub(crate) async fn recv(&mut self) {
        #[cfg(unix)]
        let asked = self.hangup.recv().await.is_some();
        #[cfg(not(unix))]
        let asked = false;
        if !asked {
            std::future::pending::<()>().await;
        }
    }
}
