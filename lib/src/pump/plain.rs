//! The traffic of a plain connection: one WebSocket message for each message.

use std::task::{Context, Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Traffic, TurnContext, WhenFull, reading::Reading, writing::Writing};
use crate::{
    handles::{CloseRequest, Shared},
    reports::{CloseCode, ConnectionError},
    settings::{Account, Evictable},
    ws::{CowBytes, Failure, WebSocket},
};

pub(crate) struct Plain<'r> {
    reading: &'r mut Reading,
    writing: Writing,
    closing: bool,
    evictable: Evictable,
}

impl<'r> Plain<'r> {
    pub(crate) fn new(reading: &'r mut Reading, account: &Account) -> Plain<'r> {
        Plain {
            reading,
            writing: Writing::default(),
            closing: false,
            evictable: account.evictable(),
        }
    }
}

impl Traffic for Plain<'_> {
    fn room(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<usize, Failure> {
        self.writing.begin_turn();
        let handed_over = self.reading.hand_over(WhenFull::Policy, turn);
        handed_over.map_err(Failure::Broken)?;
        Ok(self.reading.room(turn))
    }

    fn receive(
        &mut self,
        text: bool,
        payload: CowBytes<'_>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), Failure> {
        let counters = &mut turn.report.counters;
        counters.messages_received += 1;
        counters.bytes_received += payload.len() as u64;
        self.reading.receive(text, payload);
        Ok(())
    }

    fn deliver(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<(), Failure> {
        let delivered = self.reading.end_turn(turn).map_err(Failure::Broken);
        self.reading.tell_overflow_in_time(turn.shared, turn.now);
        delivered
    }

    fn settle(&mut self, turn: &mut TurnContext<'_, '_>) {
        self.writing.settle(turn);
    }

    fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<usize, Failure> {
        self.writing.fill(ws, turn)
    }

    fn shrink(&mut self) {
        self.reading.shrink();
        self.writing.shrink();
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

    fn failed_with(&self) -> Option<CloseCode> {
        None
    }

    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let evicted = self.evictable.poll_evicted(cx);
        evicted.map(|held| Failure::Broken(ConnectionError::Evicted { held }))
    }

    fn wake_at(&self) -> Option<Instant> {
        let times = [self.writing.wake_at(), self.reading.overflow_at()];
        times.into_iter().flatten().min()
    }

    fn reading(&mut self) -> &mut Reading {
        self.reading
    }

    fn abandon(&mut self, shared: &Shared) -> u64 {
        self.writing.abandon(shared)
    }
}
