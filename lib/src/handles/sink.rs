//! A connection's sending half as a [`Sink`].

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_sink::Sink;

use crate::{
    handles::Sender,
    messages::{Message, SendError, SendRefusal, TrySendError},
    reports::{CloseCode, ConnectionError, FlushError},
};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The [`Sink`] over a [`Sender`], from [`Sender::sink`].
#[must_use = "a sink does nothing unless it is polled"]
pub struct MessageSink {
    sender: Sender,
    sending: Option<BoxFuture<Result<(), SendError>>>,
    flushing: Option<BoxFuture<Result<(), FlushError>>>,
    closing: Option<BoxFuture<Result<(), ConnectionError>>>,
}

impl MessageSink {
    pub(crate) fn new(sender: Sender) -> MessageSink {
        MessageSink {
            sender,
            sending: None,
            flushing: None,
            closing: None,
        }
    }
}

impl std::fmt::Debug for MessageSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageSink")
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl Sink<Message> for MessageSink {
    type Error = ConnectionError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(sending.as_mut().poll(cx));
        self.sending = None;
        Poll::Ready(result.map_err(|error| refused(error.reason)))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Self::Error> {
        // A flush that began earlier does not cover this message.
        self.flushing = None;
        let earlier = self.sending.take();
        let message = match &earlier {
            Some(_) => message,
            None => match self.sender.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(message)) => message,
                Err(TrySendError::Refused(error)) => return Err(refused(error.reason)),
            },
        };
        let sender = self.sender.clone();
        self.sending = Some(Box::pin(async move {
            if let Some(earlier) = earlier {
                earlier.await?;
            }
            sender.send(message).await
        }));
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_ready(cx))?;
        let sender = self.sender.clone();
        let flushing = self
            .flushing
            .get_or_insert_with(|| Box::pin(async move { sender.flush().await }));
        let result = ready!(flushing.as_mut().poll(cx));
        self.flushing = None;
        Poll::Ready(result.map_err(|error| (*error.reason).clone()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_ready(cx))?;
        let sender = self.sender.clone();
        let closing = self.closing.get_or_insert_with(|| {
            Box::pin(async move {
                sender.shared.request_close(CloseCode::NORMAL, "");
                sender.shared.wait_ended().await;
                // Undelivered messages stay for `Sender::close` and `Sender::ended`.
                sender.shared.outcome()
            })
        });
        let outcome = ready!(closing.as_mut().poll(cx));
        self.closing = None;
        Poll::Ready(outcome)
    }
}

fn refused(reason: SendRefusal) -> ConnectionError {
    match reason {
        SendRefusal::Ended(why) => (*why).clone(),
        SendRefusal::TooLarge { size, limit } => ConnectionError::MessageTooLarge { size, limit },
    }
}
