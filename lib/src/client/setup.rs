//! The `on_connect` hook: first on each new connection, over queues of its own.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{Hook, away::Away};
use crate::{
    handles::{Receiver, Sender, Shared},
    messages::{Incoming, IntoMessage, Message, SendError},
    pump::{Ended, Pump, Traffic},
    reports::{BoxError, ConnectionError, FlushError},
    time::later,
};

/// What the `on_connect` hook speaks through: the new connection, before anything queued.
#[derive(Debug)]
pub struct Setup {
    sender: Sender,
    receiver: Receiver,
}

impl Setup {
    /// Sends on the new connection, before what is queued.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Sender::flush`].
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.sender.flush().await
    }

    /// The next message on the new connection. What is not received here goes to the stream.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn recv(&mut self) -> Result<Message, ConnectionError> {
        loop {
            match self.receiver.recv().await? {
                Some(Incoming::Message(message)) => return Ok(message),
                Some(Incoming::Gap(_)) => {}
                None => return Err(ConnectionError::EndOfStream),
            }
        }
    }
}

pub(super) enum SetupFailure {
    /// The connection ended first.
    Ended(Ended),
    Failed(ConnectionError),
}

/// Runs the hook over the queues `own`, which the pump serves; those of the connection are served
/// meanwhile. Done when what the hook sent is on its way.
pub(super) async fn set_up<S, T>(
    hook: &Hook,
    pump: &mut Pump<S, T>,
    own: &Arc<Shared>,
    shared: &Shared,
    mut away: Away<'_>,
) -> Result<(), SetupFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Traffic,
{
    let limit = own.options.setup_timeout;
    let deadline = later(Instant::now(), limit);
    let failed = |why: BoxError| SetupFailure::Failed(ConnectionError::Setup(why.into()));
    let too_long = |_| failed(format!("it took longer than {limit:?}").into());
    // Held, so that the hook may drop its `Setup` and go on.
    let sender = Sender::new(own.clone());
    let setup = Setup {
        sender: sender.clone(),
        receiver: Receiver::borrowed(own.clone()),
    };
    let run_hook = async {
        hook(setup).await?;
        sender.flush().await.map_err(BoxError::from)
    };
    let work = async {
        tokio::select! {
            biased;
            done = timeout_at(deadline, run_hook) => done
                .map_err(too_long)?
                .map_err(failed)?,
            ended = pump.run() => return Err(SetupFailure::Ended(ended)),
        }
        // A `Setup` that outlived the hook must not send into a queue that nobody empties; what it
        // sent until now still goes out.
        own.outbox.refuse(Arc::new(ConnectionError::ClosedHere));
        own.inbox.end(None);
        let idle = timeout_at(deadline, pump.run_until_idle()).await;
        match idle.map_err(too_long)? {
            None => Ok(()),
            Some(ended) => Err(SetupFailure::Ended(ended)),
        }
    };
    away.until(shared, work)
        .await
        .unwrap_or(Err(SetupFailure::Failed(ConnectionError::ClosedHere)))
}
