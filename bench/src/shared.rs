//! One connection's sender in the hands of several tasks.

use bytes::Bytes;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::mpsc,
    task,
};

use crate::{
    Result,
    contestants::{ezsockets, unstall::send},
    engine::{Batching, Tx, ended},
};

/// Messages that the usual queue before a writing task holds.
const QUEUE_MESSAGES: usize = 1024;

#[derive(Clone)]
pub(crate) enum Shared {
    /// The usual way: a bounded queue, and one task that writes what comes out of it.
    Queue(mpsc::Sender<Bytes>),
    Unstall(unstall::Sender),
    /// Without a bound.
    EzSockets(ezsockets::Handle),
}

impl Shared {
    /// Puts a queue and a task in front of `tx`.
    pub(crate) fn queue(tx: impl Tx, batching: Batching) -> Shared {
        let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
        let writing = async move {
            if let Err(error) = write(tx, queue, batching).await {
                eprintln!("the writing task: {error}");
            }
        };
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => task::spawn_local(writing),
            _ => task::spawn(writing),
        };
        Shared::Queue(sender)
    }

    pub(crate) async fn send(&self, payload: &Bytes) -> Result<()> {
        match self {
            Shared::Queue(queue) => queue.send(payload.clone()).await.map_err(|_| ended()),
            Shared::Unstall(sender) => send(sender, payload).await,
            Shared::EzSockets(handle) => handle.send(payload).map(drop),
        }
    }

    /// Returns whether the queue accepted it.
    pub(crate) fn try_send(&self, payload: &Bytes) -> Result<bool> {
        use tokio::sync::mpsc::error::TrySendError::Full;
        let full = match self {
            Shared::Queue(queue) => match queue.try_send(payload.clone()) {
                Ok(()) => false,
                Err(Full(_)) => true,
                Err(_) => return Err(ended()),
            },
            Shared::Unstall(sender) => match sender.try_send(payload.clone()) {
                Ok(()) => false,
                Err(unstall::TrySendError::Full(_)) => true,
                Err(error) => return Err(error.into()),
            },
            Shared::EzSockets(handle) => handle.send(payload).map(|_| false)?,
        };
        Ok(!full)
    }
}

async fn write(
    mut tx: impl Tx,
    mut queue: mpsc::Receiver<Bytes>,
    batching: Batching,
) -> Result<()> {
    let mut flushing = batching.flushing();
    while let Some(payload) = queue.recv().await {
        tx.feed(&payload).await?;
        if flushing.due(payload.len()) || queue.is_empty() {
            tx.flush().await?;
        }
    }
    Ok(())
}
