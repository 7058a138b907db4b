//! What differs between plain connections and sessions, as far as the pump is concerned.

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

/// What each step of a turn needs: the state shared with the handles, the turn's report, the context
/// of the pump's task, and the time.
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

/// How messages travel over a WebSocket: one by one, or in the packets of a session.
pub(crate) trait Traffic {
    /// How many bytes may be read now. Zero: the application must receive something first.
    fn room(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<usize, Failure>;

    /// Takes a message from the socket.
    fn receive(
        &mut self,
        text: bool,
        payload: CowBytes<'_>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), Failure>;

    /// Called after the turn has read: hands messages over to the application.
    fn deliver(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<(), Failure>;

    /// The write buffer is on the socket: settles `flush` and frees the room of its messages.
    fn settle(&mut self, turn: &mut TurnContext<'_, '_>);

    /// Fills the write buffer with about a batch. Returns how many bytes. Zero: there is nothing to
    /// send now.
    fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<usize, Failure>;

    /// Frees memory of its own that recent traffic did not need. Called with each ping.
    fn shrink(&mut self) {}

    /// Whether reading waits for the application.
    fn is_paused(&self) -> bool;

    /// Whether the peer reads even if its application does not. Then a silent peer is gone. Otherwise
    /// it may be alive and just not read.
    fn peer_always_reads(&self) -> bool;

    /// The application asks for the close. Accepted messages go first. Called once.
    fn request_close(&mut self, request: &CloseRequest);

    /// Whether every accepted message is written (in a session: accepted by the session).
    fn is_idle(&self, shared: &Shared) -> bool;

    /// Whether nothing is left to say, so that the WebSocket has to be closed.
    fn is_over(&self, shared: &Shared) -> bool;

    /// The code to close with, if the peer broke the session protocol.
    fn failed_with(&self) -> Option<CloseCode>;

    /// Ready when this connection has to end, because it holds most of a budget that is used up.
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<Failure>;

    /// When the next turn is due at the latest.
    fn wake_at(&self) -> Option<Instant>;

    /// The received messages that the inbox has not taken yet.
    fn reading(&mut self) -> &mut Reading;

    /// The connection is lost. Returns how many messages may or may not have been sent.
    fn abandon(&mut self, shared: &Shared) -> u64;
}
