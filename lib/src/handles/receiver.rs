//! The receiving half of a connection, message by message or in batches.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::{
    defaults::RECEIVE_YIELD_EVERY,
    handles::Shared,
    messages::{Incoming, IncomingRef, Message, Position},
    queues::{
        inbox::End,
        items::{Item, Items, Packet},
    },
    reports::{ConnectionError, Events, Stats},
};

/// The receiving half.
///
/// Dropped while a [`Sender`](crate::Sender) is left, it lets what arrives be discarded and counted
/// ([`Stats::discarded`]). In a session what is discarded counts as received by the application, but
/// not within [`DISCARD_AFTER`](crate::defaults::DISCARD_AFTER) (1 s): a handler that returns early
/// drops both halves, and then what it did not receive goes back to the peer's application.
pub struct Receiver {
    shared: Arc<Shared>,
    hand: Hand,
    /// A message or gap that a batch lends.
    lent: Option<Incoming>,
    handed_out: u32,
    end: Option<End>,
}

/// What was taken from the inbox in one go, and is handed out one by one.
struct Hand {
    /// Comes before `items`: a packet that is being cut.
    packet: Option<Packet>,
    items: Items,
    /// What `items` cost.
    cost: usize,
    /// What the inbox was last told is left.
    reported: usize,
    /// Where the latest message of a session ends that was handed out, but for `packet`.
    reached: Position,
}

impl Hand {
    fn is_empty(&self) -> bool {
        self.packet.is_none() && self.items.is_empty()
    }

    /// How far the messages of the session were handed out.
    fn position(&self) -> Position {
        match &self.packet {
            Some(packet) if !packet.is_plain() => packet.position(),
            _ => self.reached,
        }
    }

    /// What it holds, in bytes as the inbox counts.
    fn left(&self) -> usize {
        self.cost + self.packet.as_ref().map_or(0, Packet::cost)
    }

    /// The next item; a packet becomes the one to be cut.
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

    /// After its last message the packet goes. `true`: it went.
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

    /// The next message, or the place where some are missing. `Ok(None)` after the connection
    /// ended normally: by a close with 1000, 1001 or without a code, or by this side. Everything
    /// received before the end comes first.
    ///
    /// Cancel safety: dropped before it resolves, nothing is lost.
    ///
    /// # Errors
    /// Why the connection ended otherwise. Further calls return the same.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Incoming>, ConnectionError>> {
        std::future::poll_fn(move |cx| match self.cut_now() {
            Some(message) => Poll::Ready(Ok(Some(Incoming::Message(message)))),
            None => self.poll_recv(cx),
        })
    }

    /// The next message of the packet, if it is short and it is not yet time to look at the runtime's
    /// budget.
    #[inline(always)]
    fn cut_now(&mut self) -> Option<Message> {
        if self.handed_out + 1 >= RECEIVE_YIELD_EVERY {
            return None;
        }
        let packet = self.hand.packet.as_mut()?;
        let message = Message::cut_short(&mut packet.batch)?;
        if packet.batch.is_finished() {
            self.end_packet();
        }
        self.handed_out += 1;
        Some(message)
    }

    /// All that is there, to be looked at without a copy: for streams of many small messages.
    /// Waits and ends as [`recv`](Self::recv) does.
    ///
    /// Cancel safety: dropped before it resolves, nothing is lost. A [`Batch`] that is dropped
    /// leaves what it did not yield for the next call.
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

    /// Waits until there is something to hand out; `false`: nothing more comes.
    fn poll_there(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ConnectionError>> {
        if !self.hand.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.end.is_none() {
            let hand = &mut self.hand;
            match ready!(self.shared.inbox.take(&mut hand.items, hand.reached, cx)) {
                Ok(cost) => {
                    (hand.cost, hand.reported) = (cost, cost);
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

    /// The next of what is there.
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

    /// Goes on to the next item: `Some(None)` if it is a packet, which is to be cut now.
    fn next_item(&mut self) -> Option<Option<Incoming>> {
        let next = self.hand.next()?;
        if next.is_some() {
            self.report_in_time();
        }
        Some(next)
    }

    /// After its last message the packet is gone.
    #[inline(never)]
    fn end_packet(&mut self) {
        if self.hand.end_packet() {
            self.report_in_time();
        }
    }

    /// The peer waits to hear of the last of what is there, whenever more is asked for.
    fn report_in_time(&mut self) {
        let left = self.hand.left();
        let freed = self.hand.reported - left;
        if self.hand.items.is_empty() || freed >= self.shared.inbox.report_step() {
            self.hand.reported = left;
            self.shared.inbox.report(left, self.hand.position());
        }
    }

    /// Tells the session of what was handed out, though nobody asks for more.
    pub(crate) fn report_taken(&self) {
        self.shared
            .inbox
            .report(self.hand.left(), self.hand.position());
    }

    /// With [`Options::acknowledge_by_hand`](crate::Options::acknowledge_by_hand): everything
    /// received so far is processed, and counts as delivered to the peer.
    pub fn acknowledge(&self) {
        self.acknowledge_to(self.position());
    }

    /// Where the message ends that was received last, for [`acknowledge_to`](Self::acknowledge_to).
    /// Plain messages have no position: they leave it as it is.
    pub fn position(&self) -> Position {
        self.hand.position()
    }

    /// As [`acknowledge`](Self::acknowledge), up to an earlier [`position`](Self::position). A
    /// position of an earlier session or of another connection has no effect, and neither has one
    /// that is acknowledged already.
    pub fn acknowledge_to(&self, position: Position) {
        self.shared.board.acknowledge(position);
    }

    /// A snapshot of the counters, queues and stalls.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What happens to the connection, from the oldest event that is kept.
    pub fn events(&self) -> Events {
        self.shared.events()
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
        // A task that panics never took it, and neither did one whose senders are gone.
        let gone = std::thread::panicking() || !self.shared.outbox.has_senders();
        self.shared.inbox.receiver_gone(rest, gone);
        self.shared.handle_dropped();
    }
}

/// What is there to be received, from [`Receiver::recv_batch`]. Nothing in it is copied; what it is
/// dropped with stays with the receiver.
#[derive(Debug)]
pub struct Batch<'r> {
    receiver: &'r mut Receiver,
}

impl Batch<'_> {
    /// The next message, or the place where some are missing; `None` when all that was there was
    /// yielded. What was yielded counts as taken.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<IncomingRef<'_>> {
        let receiver = &mut *self.receiver;
        let packet = receiver.hand.packet.as_ref();
        if packet.is_none_or(|packet| packet.batch.is_finished()) {
            receiver.end_packet();
            if let Some(incoming) = receiver.next_item()? {
                return Some(match receiver.lent.insert(incoming) {
                    Incoming::Message(message) => IncomingRef::Message((&*message).into()),
                    Incoming::Gap(gap) => IncomingRef::Gap(gap),
                });
            }
        }
        let message = receiver.hand.packet.as_mut()?.batch.next_ref()?;
        Some(IncomingRef::Message(message.into()))
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

    /// As [`recv`](Receiver::recv); ends after an error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let result = ready!(self.poll_recv(cx));
        if result.is_err() {
            self.end = Some(None);
        }
        Poll::Ready(result.transpose())
    }
}
