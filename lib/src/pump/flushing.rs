//! Flushing the write buffer, and how long the socket has taken no bytes.

use std::task::{Context, Poll};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    reports::{Report, StallCause},
    ws::{Failure, WebSocket},
};

#[derive(Default)]
pub(crate) struct Flushing {
    /// Since when the socket takes no bytes, and how many it had taken by then.
    blocked: Option<(Instant, u64)>,
}

impl Flushing {
    pub(crate) fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        report: &mut Report,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<(), Failure>> {
        let flushed = ws.poll_flush(cx);
        let pending = flushed.is_pending();
        let written = ws.bytes_written();
        let still = pending && self.blocked.is_some_and(|(_, before)| before == written);
        if !still {
            if self.blocked.take().is_some() {
                report.wait(StallCause::SocketFull, false);
            }
            if pending {
                self.blocked = Some((now, written));
                report.wait(StallCause::SocketFull, true);
            }
        }
        flushed
    }

    /// Since when the socket takes no bytes. `None`: it is not full.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked.map(|(since, _)| since)
    }
}
