//! When the pump must look again though nothing happened.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep_until};

/// One timer of the runtime for all of a pump's deadlines. Deadlines that move away, as they do
/// with every received byte, do not touch it: it fires early once and is set again.
#[derive(Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Wakes the task at `deadline` at the latest; `true` if that is already past.
    pub(crate) fn set(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.is_elapsed() || deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if sleep.deadline() >= deadline => return true,
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}
