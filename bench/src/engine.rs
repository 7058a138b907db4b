//! What a contestant must be able to do.

use std::{future::Future, net::SocketAddr};

use bytes::Bytes;
use tokio::net::TcpListener;

use crate::{
    Result,
    payload::{Payloads, Tally},
    shared::Shared,
};

/// When fed messages are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batching {
    /// After each message, as a loop over `send().await` does.
    Naive,
    Messages(u64),
    /// After so many bytes of payload.
    Bytes(usize),
    /// The engine gathers by itself.
    Own,
}

impl Batching {
    pub(crate) fn flushing(self) -> Flushing {
        Flushing {
            batching: self,
            messages: 0,
            bytes: 0,
        }
    }
}

/// Tells when to flush.
pub(crate) struct Flushing {
    batching: Batching,
    messages: u64,
    bytes: usize,
}

impl Flushing {
    /// Whether to flush after one more payload of `bytes`.
    #[inline]
    pub(crate) fn due(&mut self, bytes: usize) -> bool {
        self.messages += 1;
        self.bytes += bytes;
        let due = match self.batching {
            Batching::Naive => true,
            Batching::Messages(limit) => self.messages >= limit,
            Batching::Bytes(limit) => self.bytes >= limit,
            Batching::Own => false,
        };
        if due {
            self.messages = 0;
            self.bytes = 0;
        }
        due
    }
}

/// 64 KiB. Larger batches gain nothing.
pub(crate) const BATCH_BYTES: usize = 64 << 10;

/// One way to send messages over TCP.
#[allow(async_fn_in_trait)]
pub(crate) trait Engine: 'static {
    const NAME: &'static str;
    /// How it is used.
    const HOW: &'static str;
    const BATCHING: Batching;
    type Server;
    type Link: Link;

    async fn bind(listener: TcpListener) -> Result<Self::Server>;
    async fn accept(server: &mut Self::Server) -> Result<Self::Link>;
    async fn connect(address: SocketAddr) -> Result<Self::Link>;

    /// Why it cannot take part in a workload.
    fn cannot(_workload: &str) -> Option<&'static str> {
        None
    }
}

/// An open connection. It may be used on any thread, as may its halves.
pub(crate) trait Link: Tx + Rx {
    type Tx: Tx;
    type Rx: Rx;
    fn split(self) -> (Self::Tx, Self::Rx);

    /// A sender for several tasks, and the receiver.
    fn share(self, batching: Batching) -> (Shared, Self::Rx)
    where
        Self: Sized,
    {
        let (tx, rx) = self.split();
        (Shared::queue(tx, batching), rx)
    }
}

pub(crate) trait Tx: Send + 'static {
    fn feed(&mut self, payload: &Bytes) -> impl Future<Output = Result<()>> + Send;
    /// Afterwards everything fed is with the kernel.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Many messages, flushed as `batching` says.
    fn feed_all(
        &mut self,
        batching: Batching,
        payloads: &mut Payloads,
        count: u64,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            let mut flushing = batching.flushing();
            for payload in payloads.next_many(count) {
                self.feed(payload).await?;
                if flushing.due(payload.len()) {
                    self.flush().await?;
                }
            }
            Ok(())
        }
    }

    /// One message at once.
    fn send(&mut self, payload: &Bytes) -> impl Future<Output = Result<()>> + Send {
        async move {
            self.feed(payload).await?;
            self.flush().await
        }
    }
}

pub(crate) trait Rx: Send + 'static {
    /// Waits for a message and hands it over, with those that lie there anyway if the engine has a
    /// way to hand out several. The end of the connection is an error.
    fn receive(
        &mut self,
        take: &mut (impl FnMut(&[u8]) + Send),
    ) -> impl Future<Output = Result<()>> + Send;

    /// Receives until the tally has what is waited for.
    fn receive_until(
        &mut self,
        tally: &mut Tally,
        enough: impl Fn(&Tally) -> bool + Send,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            while !enough(tally) {
                self.receive(&mut |payload| tally.take(payload)).await?;
            }
            Ok(())
        }
    }
}

/// Sends `count` payloads and flushes.
pub(crate) async fn send_all<T: Tx>(
    tx: &mut T,
    batching: Batching,
    payloads: &mut Payloads,
    count: u64,
) -> Result<()> {
    tx.feed_all(batching, payloads, count).await?;
    tx.flush().await
}

pub(crate) fn ended() -> crate::Failure {
    "the connection ended".into()
}
