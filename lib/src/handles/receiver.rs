//! The receiving half of a connection, message by message or in batches.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::{
    defaults::{DRIVE_TURNS, RECEIVE_YIELD_EVERY},
    handles::{Shared, facts::tells_of_its_connection},
    messages::{Incoming, IncomingRef, Message, Position},
    queues::{
        inbox::End,
        items::{Draw, Drawn, Item, Items, Packet},
    },
    reports::ConnectionError,
};

/// The receiving half of a connection, from [`Connection::split`](crate::Connection::split). It is a
/// [`Stream`] of [`Incoming`]s too.
///
/// If it is dropped while a [`Sender`](crate::Sender) is left, what arrives is discarded and counted
/// in [`Stats::discarded`](crate::Stats::discarded).
///
/// In a session, a discarded message counts as received by the application, but only after
/// [`DISCARD_AFTER`](crate::defaults::DISCARD_AFTER) (1 s). A handler that returns early drops both
/// halves within that time. Then what it did not receive goes back to the peer's application.
#[must_use = "if the receiver is dropped, what arrives is discarded"]
pub struct Receiver {
    pub(super) shared: Arc<Shared>,
    hand: Hand,
    /// The message or gap that a batch lends to the application.
    lent: Option<Incoming>,
    handed_out: u32,
    end: Option<End>,
}

tells_of_its_connection!(Receiver, shared);

/// What was taken from the inbox at once, and is handed out message by message.
struct Hand {
    /// The packet that is being cut into messages. It comes before `items`.
    packet: Option<Packet>,
    items: Items,
    /// The cost of `items`, in bytes as the inbox counts.
    cost: usize,
    /// How much is left of it, as the inbox was last told.
    reported: usize,
    /// Where the session's message ends that was handed out last, not counting those of `packet`.
    reached: Position,
}

impl Hand {
    fn is_empty(&self) -> bool {
        self.packet.is_none() && self.items.is_empty()
    }

    /// Where the session's message ends that was handed out last.
    fn position(&self) -> Position {
        match &self.packet {
            Some(packet) if !packet.is_plain() => packet.position(),
            _ => self.reached,
        }
    }

    /// How much is left, in bytes as the inbox counts.
    fn left(&self) -> usize {
        self.cost + self.packet.as_ref().map_or(0, Packet::cost)
    }

    /// The next item. `Some(None)` is a packet, which is to be cut now.
    fn next(&mut self) -> Option<Option<Incoming>> {
        let item = self.items.pop_front()?;
        self.cost -= item.cost();
        Some(match item {
            Item::One(incoming) => Some(incoming),
            Item::Packet(packet) => {
                self.packet = Some(packet);
                None
            }
        })
    }

    /// Drops the packet after its last message. Returns whether it did.
    fn end_packet(&mut self) -> bool {
        let ended = self.packet.take_if(|packet| packet.batch.is_finished());
        if let Some(packet) = ended.as_ref().filter(|packet| !packet.is_plain()) {
            self.reached = packet.end();
        }
        ended.is_some()
    }
}

impl Receiver {
    pub(crate) fn new(shared: Arc<Shared>) -> Receiver {
        Receiver {
            shared,
            hand: Hand {
                packet: None,
                items: Items::new(),
                cost: 0,
                reported: 0,
                reached: Position::START,
            },
            lent: None,
            handed_out: 0,
            end: None,
        }
    }

    /// The next message, or the place where some are missing.
    ///
    /// It returns `Ok(None)` after a normal end: a close by this side, or by the peer with code 1000,
    /// 1001 or none. Everything that was received before the end comes first.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    ///
    /// # Errors
    /// Why the connection ended, if it did not end normally. Later calls return the same. A
    /// [`Client`](crate::Client) that reconnects has then given up.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Incoming>, ConnectionError>> {
        std::future::poll_fn(move |cx| match self.cut_now() {
            Some(message) => Poll::Ready(Ok(Some(Incoming::Message(message)))),
            None => self.poll_recv(cx),
        })
    }

    /// What is there now, without waiting. `None`: nothing is there now, or nothing more will come;
    /// [`recv`](Self::recv) tells which.
    ///
    /// It is made for draining what came together after a `recv`, for example to pass it on. It does not
    /// read from the socket, and does not yield to other tasks: a loop needs a `recv` that it awaits.
    #[inline]
    pub fn try_recv(&mut self) -> Option<Incoming> {
        match self.cut() {
            Some(message) => Some(Incoming::Message(message)),
            None => self.take_now(),
        }
    }

    /// As [`cut`](Self::cut), if the runtime's budget need not be looked at yet.
    #[inline(always)]
    fn cut_now(&mut self) -> Option<Message> {
        if self.handed_out + 1 >= RECEIVE_YIELD_EVERY {
            return None;
        }
        let message = self.cut()?;
        self.handed_out += 1;
        Some(message)
    }

    /// The next message of the packet, if it is short.
    #[inline(always)]
    fn cut(&mut self) -> Option<Message> {
        let packet = self.hand.packet.as_mut()?;
        let message = Message::cut_short(&mut packet.batch)?;
        if packet.batch.is_finished() {
            self.end_packet();
        }
        Some(message)
    }

    #[inline(never)]
    fn take_now(&mut self) -> Option<Incoming> {
        if self.hand.is_empty() {
            // The next `recv` looks at the runtime's budget, which this does not.
            self.handed_out = RECEIVE_YIELD_EVERY;
            let Hand { items, reached, .. } = &mut self.hand;
            let cost = self.shared.inbox.take_now(items, *reached)?;
            self.shared.driver.come_back();
            (self.hand.cost, self.hand.reported) = (cost, cost);
        }
        self.next_there()
    }

    /// Everything that is there to be received, borrowed and not copied. It is made for streams of
    /// many small messages. It waits and ends as [`recv`](Self::recv) does.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost. What a dropped [`Batch`] did not
    /// yield comes with the next call.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// ```no_run
    /// # async fn f(mut receiver: unstall::Receiver) -> Result<(), unstall::ConnectionError> {
    /// let mut bytes = 0;
    /// while let Some(mut batch) = receiver.recv_batch().await? {
    ///     while let Some(incoming) = batch.next() {
    ///         match incoming {
    ///             unstall::IncomingRef::Message(message) => bytes += message.as_bytes().len(),
    ///             unstall::IncomingRef::Gap(gap) => println!("something is missing: {gap:?}"),
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn recv_batch(&mut self) -> Result<Option<Batch<'_>>, ConnectionError> {
        let there = std::future::poll_fn(|cx| self.poll_there(cx)).await?;
        Ok(there.then_some(Batch { receiver: self }))
    }

    #[inline(never)]
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, ConnectionError>> {
        self.handed_out += 1;
        if self.handed_out >= RECEIVE_YIELD_EVERY {
            ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
            self.handed_out = 0;
        }
        Poll::Ready(match ready!(self.poll_there(cx)) {
            Ok(true) => Ok(self.next_there()),
            Ok(false) => Ok(None),
            Err(why) => Err(why),
        })
    }

    /// Waits until there is something to hand out. `false` means that nothing more will come.
    fn poll_there(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ConnectionError>> {
        if !self.hand.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.end.is_none() {
            match ready!(self.poll_take(cx)) {
                Ok(cost) => {
                    (self.hand.cost, self.hand.reported) = (cost, cost);
                    return Poll::Ready(Ok(true));
                }
                Err(end) => self.end = Some(end),
            }
        }
        Poll::Ready(match self.end.as_ref().and_then(Option::as_ref) {
            Some(error) => Err((**error).clone()),
            None => Ok(false),
        })
    }

    /// Takes what is in the inbox. While it is empty, this reads from the socket.
    fn poll_take(&mut self, cx: &Context<'_>) -> Poll<Result<usize, End>> {
        let Hand { items, reached, .. } = &mut self.hand;
        let (inbox, driver) = (&self.shared.inbox, &self.shared.driver);
        driver.set_waits(false);
        if driver.is_due() {
            for _ in 0..DRIVE_TURNS {
                if let Some(cost) = inbox.take_now(items, *reached) {
                    driver.come_back();
                    return Poll::Ready(Ok(cost));
                }
                if !driver.drive() {
                    break;
                }
            }
        }
        let taken = inbox.take(items, *reached, cx);
        match &taken {
            Poll::Pending => {
                driver.set_waits(true);
                driver.leave_to_task();
            }
            Poll::Ready(_) => driver.come_back(),
        }
        taken
    }

    /// The next message or gap in the hand.
    fn next_there(&mut self) -> Option<Incoming> {
        loop {
            let packet = self.hand.packet.as_mut().map(|packet| &mut packet.batch);
            if let Some(message) = packet.and_then(Message::cut) {
                self.end_packet();
                return Some(Incoming::Message(message));
            }
            if let Some(incoming) = self.next_item()? {
                return Some(incoming);
            }
        }
    }

    /// Goes on to the next item. `Some(None)` is a packet, which is to be cut now.
    fn next_item(&mut self) -> Option<Option<Incoming>> {
        let next = self.hand.next()?;
        if next.is_some() {
            self.report_in_time();
        }
        #[cfg(feature = "metrics")]
        if let Some(Incoming::Gap(gap)) = &next {
            crate::reports::counted::gap(gap.reason());
        }
        Some(next)
    }

    /// The next item of a batch, if it lies in no packet. `Some(None)`: the packet has the next message.
    #[inline(always)]
    fn next_of_its_own(&mut self) -> Option<Option<Incoming>> {
        let packet = self.hand.packet.as_ref();
        if packet.is_some_and(|packet| !packet.batch.is_finished()) {
            return Some(None);
        }
        self.end_packet();
        self.next_item()
    }

    /// Drops the packet after its last message.
    #[inline(never)]
    fn end_packet(&mut self) {
        if self.hand.end_packet() {
            self.report_in_time();
        }
    }

    /// Reports in steps, and once when nothing is left: the peer may be waiting for that, and the
    /// application may not ask for more before it comes.
    fn report_in_time(&mut self) {
        let left = self.hand.left();
        let freed = self.hand.reported - left;
        if self.hand.items.is_empty() || freed >= self.shared.inbox.report_step() {
            self.hand.reported = left;
            self.shared.inbox.report(left, self.hand.position());
        }
    }

    /// Tells the session what was handed out, although the application does not ask for more.
    pub(crate) fn report_taken(&self) {
        self.shared
            .inbox
            .report(self.hand.left(), self.hand.position());
    }

    /// Acknowledges everything received so far: it counts as delivered to this application, and the
    /// peer forgets it.
    ///
    /// It has an effect in sessions with
    /// [`Options::acknowledge_by_hand`](crate::Options::acknowledge_by_hand) only. In others,
    /// receiving a message acknowledges it, and plain connections have no acknowledgements.
    pub fn acknowledge(&self) {
        self.acknowledge_to(self.position());
    }

    /// Where the message ends that was received last, for [`acknowledge_to`](Self::acknowledge_to).
    ///
    /// Plain messages and gaps have no position: after one of them it is what it was before.
    pub fn position(&self) -> Position {
        self.hand.position()
    }

    /// Acknowledges everything up to an earlier [`position`](Self::position), as
    /// [`acknowledge`](Self::acknowledge) does.
    ///
    /// A position of an earlier session or of another connection has no effect. Neither has one that
    /// is acknowledged already.
    pub fn acknowledge_to(&self, position: Position) {
        self.shared.board.acknowledge(position);
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.report_taken();
        let mut rest = std::mem::take(&mut self.hand.items);
        let packet = self.hand.packet.take().map(Item::Packet);
        packet.into_iter().for_each(|it| rest.push_front(it));
        // A task that panics has not received it, and neither has one that dropped all senders.
        let gone = std::thread::panicking() || !self.shared.outbox.has_senders();
        self.shared.inbox.receiver_gone(rest, gone);
        self.shared.handle_dropped();
    }
}

/// Everything that is there to be received, from [`Receiver::recv_batch`]. Nothing in it is copied.
/// If it is dropped early, the rest stays with the receiver.
#[must_use = "the messages of a batch are yielded by `next`"]
#[derive(Debug)]
pub struct Batch<'r> {
    receiver: &'r mut Receiver,
}

impl Batch<'_> {
    /// The next message, or the place where some are missing. It returns `None` when everything that
    /// was there is yielded. A message that was yielded counts as received.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<IncomingRef<'_>> {
        let receiver = &mut *self.receiver;
        if let Some(incoming) = receiver.next_of_its_own()? {
            return Some(match receiver.lent.insert(incoming) {
                Incoming::Message(message) => IncomingRef::Message((&*message).into()),
                Incoming::Gap(gap) => IncomingRef::Gap(gap),
            });
        }
        let message = receiver.hand.packet.as_mut()?.batch.next_ref()?;
        Some(IncomingRef::Message(message.into()))
    }
}

impl Draw for Batch<'_> {
    /// As [`next`](Batch::next), but what need not be copied to be kept is taken out.
    #[inline(always)]
    fn draw(&mut self) -> Option<Drawn<'_>> {
        let receiver = &mut *self.receiver;
        if let Some(incoming) = receiver.next_of_its_own()? {
            return Some(Drawn::Own(incoming));
        }
        let batch = &mut receiver.hand.packet.as_mut()?.batch;
        if batch.is_assembled() {
            return Message::cut(batch).map(|message| Drawn::Own(Incoming::Message(message)));
        }
        Some(Drawn::Packed(batch.next_ref()?.into()))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.receiver.lent = None;
        self.receiver.end_packet();
    }
}

impl Stream for Receiver {
    type Item = Result<Incoming, ConnectionError>;

    /// As [`recv`](Receiver::recv). The stream ends after an error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let result = ready!(self.poll_recv(cx));
        if result.is_err() {
            self.end = Some(None);
        }
        Poll::Ready(result.transpose())
    }
}
