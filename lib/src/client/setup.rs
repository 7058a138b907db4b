//! The `on_connect` hook: first on each new connection, before anything queued.

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

/// What the `on_connect` hook speaks through: the new connection, before anything queued.
#[derive(Debug)]
pub struct Setup {
    shared: Arc<Shared>,
    connection: u64,
}

impl Setup {
    /// Sends on the new connection, before what is queued. Waits while the outbox is full.
    ///
    /// Cancel safety: dropped before it resolves, the message is not sent.
    ///
    /// # Errors
    /// With the message: it is too large, or the hook has returned, or the connection has ended.
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.shared.outbox.send_setup(message.into()).await
    }

    /// Waits until everything that was sent here is written to the socket.
    ///
    /// # Errors
    /// The hook has returned, or the connection has ended.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.shared.outbox.flush_setup().await
    }

    /// The next message on the new connection. What is not received here goes to the stream.
    ///
    /// Cancel safety: dropped before it resolves, nothing is lost.
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

    /// Which connection of this handle this is: 1 for the first, more after each reconnect.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// The head of the server's answer to the upgrade request.
    pub fn response(&self) -> Option<Arc<http::Response<()>>> {
        self.shared.identity().response
    }
}

/// How the set-up of a connection went.
pub(super) enum SetUp {
    /// The hook has returned, and what it sent is on its way.
    Done,
    /// The application wants the end of the connection.
    Closing,
    /// The connection has ended.
    Ended(Ended),
    /// The hook failed, or took too long.
    Failed(ConnectionError),
}

/// Runs the hook. Until it has returned the pump serves it alone, but for what was received
/// earlier, which goes on to the application. If it is not [`SetUp::Done`], the queues stay with
/// the hook until [`leave`].
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
        // What it sent must be on the socket, also if it did not wait for that.
        shared.outbox.flush_setup().await.map_err(BoxError::from)
    };
    tokio::select! {
        biased;
        done = timeout_at(deadline, work) => match done {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return failed(why),
            Err(_) => return too_long(),
        },
        ended = pump.run() => return SetUp::Ended(ended),
    }
    // A `Setup` that outlives the hook must not send into a queue that nobody empties; what it sent
    // until now still goes out.
    shared.outbox.end_setup();
    match timeout_at(deadline, pump.run_until_idle()).await {
        Ok(None) => SetUp::Done,
        Ok(Some(ended)) => SetUp::Ended(ended),
        Err(_) => too_long(),
    }
}

/// The queues are the application's again, with what the hook did not receive.
pub(super) fn leave<S, T>(pump: &mut Pump<S, T>, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Traffic,
{
    let left = shared.inbox.close_setup();
    pump.traffic().reading().close_setup(left);
    shared.outbox.close_setup();
}
