//! Messages as they are, for any WebSocket peer.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Traffic, Turn, TurnContext, flushing::Flushing, reading::Reading, writing::Writing};
use crate::{
    handles::{CloseRequest, Shared},
    ws::{Failure, WebSocket},
};

pub(crate) struct Plain<'r> {
    reading: &'r mut Reading,
    writing: Writing,
    closing: bool,
}

impl<'r> Plain<'r> {
    pub(crate) fn new(reading: &'r mut Reading) -> Plain<'r> {
        Plain {
            reading,
            writing: Writing::default(),
            closing: false,
        }
    }

    /// From now on what is received goes behind what `reading` holds already.
    pub(crate) fn continue_with(&mut self, reading: &'r mut Reading) {
        reading.append(self.reading.take_received());
        self.reading = reading;
    }
}

impl Traffic for Plain<'_> {
    fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        context: TurnContext<'_, '_>,
        unlimited: bool,
    ) -> Turn {
        self.reading.turn(ws, context, unlimited)
    }

    fn write<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        flushing: &mut Flushing,
        context: TurnContext<'_, '_>,
        open: bool,
    ) -> Result<bool, Failure> {
        self.writing.turn(ws, flushing, context, open)
    }

    fn is_paused(&self) -> bool {
        self.reading.is_paused()
    }

    fn peer_always_reads(&self) -> bool {
        false
    }

    fn request_close(&mut self, _: &CloseRequest) {
        self.closing = true;
    }

    fn is_idle(&self, shared: &Shared) -> bool {
        self.writing.is_idle(shared)
    }

    fn is_over(&self, shared: &Shared) -> bool {
        self.closing && self.is_idle(shared)
    }

    fn wake_at(&self) -> Option<Instant> {
        self.writing.wake_at()
    }

    fn report(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        self.reading.report_overflow(shared, now)
    }

    fn abandon(&mut self, shared: &Shared) -> u64 {
        self.writing.abandon(shared)
    }
}
