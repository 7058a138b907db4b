//! What the pump asks of the messages that it moves: plain ones, or the packets of a session.

use std::task::{Context, Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::Reading;
use crate::{
    handles::{CloseRequest, Shared},
    reports::{CloseCode, Report},
    ws::{CowBytes, Failure, WebSocket},
};

/// What a turn is done with and for: the queues and events of the handles, what the turn reports,
/// the pump's task and the time.
pub(crate) struct TurnContext<'a, 'c> {
    pub(crate) shared: &'a Shared,
    pub(crate) report: &'a mut Report,
    pub(crate) cx: &'a mut Context<'c>,
    pub(crate) now: Instant,
}

impl<'a, 'c> TurnContext<'a, 'c> {
    pub(crate) fn new(
        shared: &'a Shared,
        report: &'a mut Report,
        cx: &'a mut Context<'c>,
        now: Instant,
    ) -> Self {
        TurnContext {
            shared,
            report,
            cx,
            now,
        }
    }
}

/// How messages travel over a WebSocket: as they are, or in the packets of a session.
pub(crate) trait Traffic {
    /// How many bytes may be read now. Zero: the application must take something first.
    fn room(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<usize, Failure>;

    /// One message came from the socket.
    fn receive(
        &mut self,
        text: bool,
        payload: CowBytes<'_>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), Failure>;

    /// Everything was received that this turn brings: it is handed over.
    fn deliver(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<(), Failure>;

    /// The write buffer is on the socket: whoever waits for that is told.
    fn settle(&mut self, turn: &mut TurnContext<'_, '_>);

    /// Puts a batch's worth of bytes into the write buffer: how many. Zero: there is nothing to
    /// send now.
    fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<usize, Failure>;

    /// Whether reading waits for the application.
    fn is_paused(&self) -> bool;

    /// Whether the peer reads whatever its application does. Then one from which nothing comes is
    /// gone, even if our bytes wait; else it may be alive and just not read them.
    fn peer_always_reads(&self) -> bool;

    /// Close was asked for, once: what was accepted is written first.
    fn request_close(&mut self, request: &CloseRequest);

    /// Whether nothing that was accepted waits to be written.
    fn is_idle(&self, shared: &Shared) -> bool;

    /// Whether all is said, so that the WebSocket is to be closed.
    fn is_over(&self, shared: &Shared) -> bool;

    /// With which code to close when all is said because the peer broke the protocol.
    fn failed_with(&self) -> Option<CloseCode>;

    /// Ready when this connection has to go, because it holds most of a budget that is used up.
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<Failure>;

    /// When a turn is due though nothing happened.
    fn wake_at(&self) -> Option<Instant>;

    /// What was received and not handed over.
    fn reading(&mut self) -> &mut Reading;

    /// The connection is gone. Returns how many messages may or may not have left.
    fn abandon(&mut self, shared: &Shared) -> u64;
}
