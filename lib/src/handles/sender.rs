//! The sending half of a connection.

use std::{future::Future, ops::ControlFlow, sync::Arc, task::Poll, time::Duration};

use tokio::time::Instant;

use crate::{
    handles::{Batch, MessageSink, Shared, facts::tells_of_its_connection},
    messages::{
        CloseReport, Gap, Incoming, IntoMessage, Message, MessageRef, SendError, SendRefusal,
        TrySendError, Undelivered,
    },
    queues::outbox::Manner,
    reports::{CloseCode, DeliveryError, FlushError},
    time::later,
};

const UNCOMPRESSED: Manner = Manner {
    expires: None,
    uncompressed: true,
};

/// The sending half of a connection, from [`Connection::split`](crate::Connection::split).
///
/// Clone it for as many tasks as send. All clones share one outbox, which is bounded by
/// [`Options::outbox_bytes`](crate::Options::outbox_bytes). The messages of one task keep their
/// order. When the last handle of the connection is dropped, the connection closes.
#[derive(Debug)]
pub struct Sender {
    pub(crate) shared: Arc<Shared>,
}

tells_of_its_connection!(Sender, shared);

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Sender {
        shared.outbox.add_sender();
        Sender { shared }
    }

    /// Queues a message, and waits while the outbox is full. The pump writes it as soon as the socket
    /// takes it: no further call is needed.
    ///
    /// `Ok` means queued, and neither written nor received. [`flush`](Self::flush) waits until it is
    /// written, and [`delivered`](Self::delivered) until the peer's application has it.
    ///
    /// Cancel safety: if dropped before it resolves, the message is not queued and is dropped with
    /// the future. Those that wait keep their order.
    ///
    /// # Errors
    /// The message is too large, or the connection has ended or is closing: see [`SendRefusal`]. The
    /// error has the message. While a client is without a connection and will reconnect, `send` still
    /// queues messages, up to the outbox's limit.
    #[inline]
    pub fn send(&self, message: impl IntoMessage) -> impl Future<Output = Result<(), SendError>> {
        let outbox = &self.shared.outbox;
        let mut message = Some(message);
        let mut waiting = None;
        std::future::poll_fn(move |cx| {
            if let Some(message) = message.take() {
                if outbox.push_short(message.is_text(), message.payload()) {
                    self.write_if_filled();
                    return Poll::Ready(Ok(()));
                }
                match self.try_send_twice(message.into()) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(TrySendError::Full(message)) => {
                        waiting = Some(Box::pin(outbox.send(message, Manner::default())));
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

    /// Writes a batch, if one is queued: its bytes are still in this processor's cache.
    #[inline]
    fn write_if_filled(&self) {
        if self.shared.outbox.take_filled() {
            self.shared.driver.drive_once();
        }
    }

    /// If the outbox is full, writes, and tries again.
    fn try_send_twice(&self, message: Message) -> Result<(), TrySendError> {
        let Shared { outbox, driver, .. } = &*self.shared;
        let sent = match outbox.try_send(message) {
            Err(TrySendError::Full(message)) if driver.is_due() => {
                driver.drive_once();
                outbox.try_send(message)
            }
            sent => sent,
        };
        self.write_if_filled();
        sent
    }

    /// Queues one message after the other, as [`send`](Self::send) does, at a fraction of the cost
    /// for short ones.
    ///
    /// No lock is held while the iterator is asked for messages. If the iterator panics, what it gave
    /// before is queued.
    ///
    /// Cancel safety: if dropped before it resolves, the messages that the iterator gave are queued.
    /// A message that waited for room is not: it is dropped with the future.
    ///
    /// # Errors
    /// As [`send`](Self::send), with the message that was refused. Those before it are queued, and
    /// the iterator was not asked for those after it. If the connection ended while the iterator gave
    /// short messages, the error has the first of them, and the others come back from
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

    /// Passes on what a batch has, up to a gap, which it returns. This is how a proxy sends what it
    /// receives: short messages go from packet to packet, and longer ones are not copied.
    ///
    /// `each` is shown each message before it is queued, for example to count it. If it breaks, that
    /// message is the last one, and the rest stays in the batch.
    ///
    /// No lock is held while `each` runs. If it panics, what was passed on before is queued.
    ///
    /// Cancel safety: if dropped before it resolves, what was not passed on stays with the receiver. A
    /// message that waited for room is dropped with the future.
    ///
    /// # Errors
    /// As [`send`](Self::send), with the message that was refused. If the connection ended while short
    /// messages were passed on, the error has the first of them, and the others come back from
    /// [`take_undelivered`](Self::take_undelivered).
    ///
    /// ```no_run
    /// # use std::ops::ControlFlow;
    /// # async fn f(from: &mut unstall::Receiver, to: unstall::Sender) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut passed = 0;
    /// while let Some(mut batch) = from.recv_batch().await? {
    ///     let gap = to.send_batch(&mut batch, |_message| {
    ///         passed += 1;
    ///         ControlFlow::Continue(())
    ///     });
    ///     if let Some(gap) = gap.await? {
    ///         println!("something is missing here: {gap:?}");
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn send_batch(
        &self,
        batch: &mut Batch<'_>,
        mut each: impl FnMut(MessageRef<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Gap>, SendError> {
        loop {
            let (left, flow) = match self.shared.outbox.push_batch(batch, &mut each) {
                Ok(passed) => passed,
                Err(refused) => return Err(self.refused_run(refused)),
            };
            match left {
                None => return Ok(None),
                Some(Incoming::Gap(gap)) => return Ok(Some(gap)),
                Some(Incoming::Message(message)) => self.send(message).await?,
            }
            if flow.is_break() {
                return Ok(None);
            }
        }
    }

    /// The connection ended before messages that the iterator gave were queued.
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

    /// Queues a message that is worthless after `time_to_live`, as [`send`](Self::send) does.
    ///
    /// If writing it has not begun by then, it is dropped, counted in
    /// [`Stats::expired`](crate::Stats::expired), and reported as an
    /// [`Event::Expired`](crate::Event::Expired). The time counts from this call. `Duration::MAX` is
    /// never. A message that is in a session's replay buffer does not expire any more.
    ///
    /// Cancel safety: as [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send), with the message.
    pub async fn send_within(
        &self,
        message: impl IntoMessage,
        time_to_live: Duration,
    ) -> Result<(), SendError> {
        let manner = Manner {
            expires: Some(later(Instant::now(), time_to_live)),
            ..Manner::default()
        };
        self.shared.outbox.send(message.into(), manner).await
    }

    /// Queues a message that is not compressed, as [`send`](Self::send) does. For what holds a secret
    /// next to something that others may choose: the length of such a message in compressed form gives
    /// the secret away, bit by bit.
    ///
    /// It changes nothing where [compression](crate::Options::compression) was not agreed. In a session
    /// it is `send`: packets are compressed as a whole, with all messages in them.
    ///
    /// Cancel safety: as [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send), with the message.
    pub async fn send_uncompressed(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.shared.outbox.send(message.into(), UNCOMPRESSED).await
    }

    /// Queues a message that is [not compressed](Self::send_uncompressed) if there is room now, and
    /// never waits.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), with the message.
    pub fn try_send_uncompressed(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        self.shared.outbox.try_send_in(message.into(), UNCOMPRESSED)
    }

    /// Queues a message if there is room now, and never waits.
    ///
    /// # Errors
    /// Each has the message. [`TrySendError::Full`] may be tried again. After
    /// [`TrySendError::Refused`] no later attempt will fare better.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        let outbox = &self.shared.outbox;
        if outbox.push_short(message.is_text(), message.payload()) {
            return Ok(());
        }
        outbox.try_send(message.into())
    }

    /// Waits until everything that was queued before this call is written to the socket and, with
    /// TLS, has left the TLS buffer. It does not say that the peer has received it.
    ///
    /// If the connection is lost and made again, it goes on waiting.
    ///
    /// Cancel safety: it can be dropped and called again.
    ///
    /// # Errors
    /// The connection ended first. What was not written comes back from [`close`](Self::close).
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.shared.outbox.flush().await
    }

    /// Closes the connection (RFC 6455 section 7.1.2). It refuses further messages, writes those that
    /// were queued, and exchanges close frames.
    ///
    /// It takes at most [`Options::close_timeout`](crate::Options::close_timeout), whatever the peer
    /// does. The report says what was not delivered, and gives it back. What the peer sent before its
    /// own close frame can still be received. A `reason` of more than 123 bytes is cut.
    ///
    /// Cancel safety: if dropped, the closing goes on. A second call waits for the same end: the code
    /// and reason of the first count.
    pub async fn close(&self, code: CloseCode, reason: &str) -> CloseReport {
        self.shared.request_close(code, reason);
        self.shared.wait_ended().await;
        self.shared.report()
    }

    /// In a session, waits until the peer's application has received everything that was queued
    /// before this call, or has acknowledged it, if it
    /// [acknowledges by hand](crate::Options::acknowledge_by_hand).
    ///
    /// Cancel safety: it can be dropped and called again.
    ///
    /// # Errors
    /// - [`DeliveryError::NotASession`]: a plain peer never says what its application received.
    /// - The session or the connection ended first. The messages come back from
    ///   [`take_undelivered`](Self::take_undelivered) or [`close`](Self::close).
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
            // Registers before it looks, so that it misses no change in between.
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

    /// The messages that were queued and cannot be delivered any more, in order: those of ended
    /// sessions that the peer's application did not acknowledge, and those that turned out to be
    /// longer than the peer takes.
    ///
    /// Each comes back once: here, or in the report of [`close`](Self::close) or
    /// [`ended`](Self::ended). Messages that were still in the outbox are not among them, because the
    /// next session sends those.
    ///
    /// They are bounded. Those of the session that ended last are all kept. Of earlier ones, the
    /// latest [`Options::replay_bytes`](crate::Options::replay_bytes) are kept, or 32 MiB if that is
    /// more. Older ones are dropped, with an
    /// [`Event::UndeliveredDropped`](crate::Event::UndeliveredDropped).
    #[must_use = "these messages come back only once"]
    pub fn take_undelivered(&self) -> Vec<Undelivered> {
        self.shared.board.take_undelivered()
    }

    /// Waits until the connection has ended for good, and reports as [`close`](Self::close) does.
    ///
    /// It resolves even if nobody receives. If the connection breaks while the inbox is full, that takes
    /// two ping intervals and the [silence timeout](crate::Options::silence_timeout). What is in the
    /// inbox then can still be received; what did not fit is lost. A program that wants to receive
    /// nothing drops the [`Receiver`](crate::Receiver).
    ///
    /// Cancel safety: it can be dropped and called again.
    pub async fn ended(&self) -> CloseReport {
        self.shared.wait_ended().await;
        self.shared.report()
    }

    /// A [`Sink`](futures_sink::Sink) of messages, which is another handle of the connection.
    ///
    /// Its flush is [`flush`](Self::flush). Its close closes the connection with code 1000. If
    /// messages were not delivered, its close fails with
    /// [`ConnectionError::Undelivered`](crate::ConnectionError::Undelivered), and they come back from
    /// [`ended`](Self::ended). While the outbox is full, one message waits in the sink itself until
    /// the sink is polled again: flush the sink before dropping it.
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
