//! The sending half of a connection.

use std::{future::Future, sync::Arc, task::Poll, time::Duration};

use crate::{
    handles::{MessageSink, Shared},
    messages::{
        CloseReport, IntoMessage, Message, SendError, SendRefusal, TrySendError, Undelivered,
    },
    reports::{CloseCode, DeliveryError, Events, FlushError, Stats},
};

/// The sending half. Clones share one outbox; messages of one clone keep their order.
#[derive(Debug)]
pub struct Sender {
    pub(crate) shared: Arc<Shared>,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Sender {
        shared.outbox.add_sender();
        Sender { shared }
    }

    /// Queues a message; waits while the outbox is full. It is written when the socket is
    /// writable, without further calls.
    ///
    /// Cancel safety: dropped before it resolves, the message is not queued and is dropped with
    /// the future. The order among those who wait is kept.
    ///
    /// # Errors
    /// With the message: it is too large, or the connection has ended or is closing. A client that
    /// reconnects goes on accepting while it is away, up to the outbox's limit.
    #[inline]
    pub fn send(&self, message: impl IntoMessage) -> impl Future<Output = Result<(), SendError>> {
        let outbox = &self.shared.outbox;
        let mut message = Some(message);
        let mut waiting = None;
        std::future::poll_fn(move |cx| {
            if let Some(message) = message.take() {
                if outbox.push_short(message.is_text(), message.payload()) {
                    return Poll::Ready(Ok(()));
                }
                match outbox.try_send(message.into()) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(TrySendError::Full(message)) => {
                        waiting = Some(Box::pin(outbox.send(message, None)));
                    }
                    Err(TrySendError::Refused(error)) => return Poll::Ready(Err(error)),
                }
            }
            match &mut waiting {
                Some(waiting) => waiting.as_mut().poll(cx),
                None => Poll::Pending,
            }
        })
    }

    /// Queues one message after the other, each as [`send`](Self::send) does, at a fraction of the
    /// cost for short ones. No lock is held while messages are drawn. If the iterator panics, what it
    /// gave before is queued.
    ///
    /// Cancel safety: dropped before it resolves, what was drawn is queued, except for a message
    /// that waited for room, which is dropped with the future.
    ///
    /// # Errors
    /// As [`send`](Self::send), with the message that was refused: those before it are queued, those
    /// behind it not drawn. If the connection ended while short messages were drawn, the first of
    /// them is in the error, and the others come back from
    /// [`take_undelivered`](Self::take_undelivered).
    pub async fn send_many<M: IntoMessage>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), SendError> {
        let mut messages = messages.into_iter();
        let outbox = &self.shared.outbox;
        loop {
            let next = match outbox.push_run(&mut messages) {
                Ok(next) => next.or_else(|| messages.next()),
                Err(refused) => return Err(self.refused_run(refused)),
            };
            match next {
                Some(message) => self.send(message).await?,
                None => return Ok(()),
            }
        }
    }

    /// The connection ended before drawn messages were queued.
    fn refused_run(&self, refused: Vec<Message>) -> SendError {
        let mut refused = refused.into_iter();
        let first = refused.next().unwrap_or_else(|| Message::from(&[][..]));
        let rest = refused.map(Undelivered::unsent).collect();
        self.shared.board.give_back(rest, usize::MAX);
        let why = self.shared.outbox.why_ended();
        SendError {
            message: first,
            reason: SendRefusal::Ended(why),
        }
    }

    /// As [`send`](Self::send), for a message that is worthless after `time_to_live`: if it was not
    /// begun by then it is dropped, counted in [`Stats::expired`] and an
    /// [`Event::Expired`](crate::Event::Expired). The time counts from this call.
    pub async fn send_within(
        &self,
        message: impl IntoMessage,
        time_to_live: Duration,
    ) -> Result<(), SendError> {
        self.shared
            .outbox
            .send(message.into(), Some(time_to_live))
            .await
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// With the message. [`TrySendError::Full`] may be tried again.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        let outbox = &self.shared.outbox;
        if outbox.push_short(message.is_text(), message.payload()) {
            return Ok(());
        }
        outbox.try_send(message.into())
    }

    /// Waits until everything accepted before this call is written to the socket and, under TLS,
    /// out of the TLS buffer. It does not say that the peer read it. Safe to cancel.
    ///
    /// # Errors
    /// The connection ended first. Over reconnects it goes on waiting.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.shared.outbox.flush().await
    }

    /// Closes the connection (RFC 6455 §7.1.2): refuses further messages, writes those accepted,
    /// exchanges close frames. Ends within [`Options::close_timeout`](crate::Options::close_timeout), whatever the peer does; the
    /// report tells what was not written. A reason over 123 bytes is cut.
    ///
    /// Cancel safety: dropped, the closing goes on; calling again waits for the same end. What the
    /// peer sent before is still received.
    pub async fn close(&self, code: CloseCode, reason: &str) -> CloseReport {
        self.shared.request_close(code, reason);
        self.shared.wait_ended().await;
        self.shared.report()
    }

    /// Whether the peer agreed to a session.
    pub fn is_session(&self) -> bool {
        self.shared.is_session()
    }

    /// Of a session: waits until the peer's application has taken (or acknowledged by hand)
    /// everything accepted before this call. Safe to cancel.
    ///
    /// # Errors
    /// This is no session, or it ended first: then the messages come back from
    /// [`take_undelivered`](Self::take_undelivered) or the close report.
    pub async fn delivered(&self) -> Result<(), DeliveryError> {
        let board = &self.shared.board;
        let (_, lost_before) = board.progress();
        self.shared
            .outbox
            .flush()
            .await
            .map_err(|error| DeliveryError::Ended(error.reason))?;
        if !self.shared.is_session() {
            return Err(DeliveryError::NotASession);
        }
        let (target, _) = board.progress();
        loop {
            let changed = board.changed();
            tokio::pin!(changed);
            // Registered before looking, so that no change falls in between.
            changed.as_mut().enable();
            let (sent, lost) = board.progress();
            if lost > lost_before {
                let messages = lost - lost_before;
                return Err(DeliveryError::Lost { messages });
            }
            // Another session follows when everything of this one was delivered or is lost.
            if sent.session != target.session || sent.acknowledged >= target.accepted {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Messages of sessions that ended before the peer's application had taken them, in order.
    /// Each comes back once: here, or in the report of [`close`](Self::close). What was still in
    /// the outbox is not among them: it goes on with the next session.
    ///
    /// Bounded: of what earlier sessions left, the latest
    /// [`Options::replay_bytes`](crate::Options::replay_bytes) (at least 32 MiB) are kept beside
    /// those of the last session; older ones are dropped with
    /// [`Event::UndeliveredDropped`](crate::Event::UndeliveredDropped).
    pub fn take_undelivered(&self) -> Vec<Undelivered> {
        self.shared.board.take_undelivered()
    }

    /// Waits until the connection has ended for good, and reports as [`close`](Self::close) does.
    /// Safe to cancel.
    pub async fn ended(&self) -> CloseReport {
        self.shared.wait_ended().await;
        self.shared.report()
    }

    /// A snapshot of the counters, queues and stalls.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What happens to the connection, from the oldest event that is kept.
    pub fn events(&self) -> Events {
        self.shared.events()
    }

    /// A [`Sink`](futures_sink::Sink) of messages. Its flush is [`flush`](Self::flush). Its close
    /// closes the connection with 1000, and fails with
    /// [`ConnectionError::Undelivered`](crate::ConnectionError::Undelivered) if accepted messages were
    /// not delivered: they come back from [`ended`](Self::ended). Where the outbox is full, one message waits in the sink itself until
    /// it is polled again: flush the sink before dropping it.
    pub fn sink(&self) -> MessageSink {
        MessageSink::new(self.clone())
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        Sender::new(self.shared.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.shared.outbox.remove_sender() {
            self.shared.handle_dropped();
        }
    }
}
