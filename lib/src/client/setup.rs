//! The `on_connect` hook, which runs on a new connection before queued messages are sent.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{Hook, away::expire_queued};
use crate::{
    handles::Shared,
    messages::{IntoMessage, Message, SendError},
    pump::{Ended, Pump, Traffic},
    reports::{BoxError, ConnectionError, FlushError},
    time::later,
};

/// The new connection, as the `on_connect` hook uses it.
#[derive(Debug)]
pub struct Setup {
    shared: Arc<Shared>,
    connection: u64,
}

impl Setup {
    /// Sends on the new connection, before queued messages. Waits while the outbox is full.
    ///
    /// Cancel safety: if dropped before it resolves, the message is not sent.
    ///
    /// # Errors
    /// The message is too large, the hook has returned, or the connection has ended. The error
    /// gives the message back.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.shared.outbox.send_setup(message.into()).await
    }

    /// Waits until every message that the hook sent is written to the socket.
    ///
    /// # Errors
    /// The hook has returned, or the connection has ended.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.shared.outbox.flush_setup().await
    }

    /// Receives the next message on the new connection. Messages that the hook does not receive go
    /// to the stream.
    ///
    /// Cancel safety: if dropped before it resolves, no message is lost.
    ///
    /// # Errors
    /// The hook has returned, or the connection has ended.
    pub async fn recv(&mut self) -> Result<Message, ConnectionError> {
        let next = std::future::poll_fn(|cx| self.shared.inbox.take_for_setup(cx)).await;
        next.map_err(|end| match end {
            Some(why) => (*why).clone(),
            None => ConnectionError::EndOfStream,
        })
    }

    /// The number of this connection: 1 for the first of this handle, one more after each
    /// reconnect.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// The head of the server's response to the upgrade request.
    pub fn response(&self) -> Option<Arc<http::Response<()>>> {
        self.shared.identity().response
    }
}

/// The result of running the hook on a connection.
pub(super) enum SetUp {
    /// The hook has returned, and its messages are written.
    Done,
    /// The application has requested to close the connection.
    Closing,
    /// The connection has ended.
    Ended(Ended),
    /// The hook failed or took too long.
    Failed(ConnectionError),
}

/// Runs the hook. Until it returns, only the hook sends and receives on this connection. Messages
/// received earlier still go to the application. Unless the result is [`SetUp::Done`], the queues
/// stay with the hook until [`leave`].
pub(super) async fn set_up<S, T>(hook: &Hook, pump: &mut Pump<S, T>, shared: &Arc<Shared>) -> SetUp
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Traffic,
{
    shared.inbox.open_setup();
    shared.outbox.open_setup();
    pump.traffic().reading().open_setup();
    let set_up = tokio::select! {
        biased;
        () = shared.close_requested() => SetUp::Closing,
        set_up = run_hook(hook, pump, shared) => set_up,
        () = expire_queued(shared) => SetUp::Closing,
    };
    if let SetUp::Done = set_up {
        leave(pump, shared);
    }
    set_up
}

async fn run_hook<S, T>(hook: &Hook, pump: &mut Pump<S, T>, shared: &Arc<Shared>) -> SetUp
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Traffic,
{
    let limit = shared.options.setup_timeout;
    let deadline = later(Instant::now(), limit);
    let failed = |why: BoxError| SetUp::Failed(ConnectionError::Setup(why.into()));
    let too_long = || failed(format!("it took longer than {limit:?}").into());
    let setup = Setup {
        shared: shared.clone(),
        connection: shared.meter.counters().connections,
    };
    let work = async {
        hook(setup).await?;
        // The set-up is done when the hook's messages are written, even if the hook did not wait
        // for it.
        shared.outbox.flush_setup().await.map_err(BoxError::from)
    };
    tokio::select! {
        biased;
        done = timeout_at(deadline, work) => match done {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return failed(why),
            Err(_) => return too_long(),
        },
        ended = pump.run_beside() => return SetUp::Ended(ended),
    }
    // A `Setup` that outlives the hook must not send into a queue that is never emptied. Messages
    // sent until now are still written.
    shared.outbox.end_setup();
    match timeout_at(deadline, pump.run_until_idle()).await {
        Ok(None) => SetUp::Done,
        Ok(Some(ended)) => SetUp::Ended(ended),
        Err(_) => too_long(),
    }
}

/// Gives the queues back to the application, with the messages that the hook did not receive.
pub(super) fn leave<S, T>(pump: &mut Pump<S, T>, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Traffic,
{
    let left = shared.inbox.close_setup();
    pump.traffic().reading().close_setup(left);
    shared.outbox.close_setup();
}
