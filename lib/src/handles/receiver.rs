//! The receiving half of a connection, message by message or in batches.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use unstall_proto as proto;

use crate::{
    defaults::RECEIVE_YIELD_EVERY,
    handles::Shared,
    messages::{Incoming, IncomingRef, Message},
    queues::{
        inbox::{End, Taken},
        items::{Item, Items, packet_cost},
    },
    reports::{ConnectionError, Events, Stats},
};

/// The receiving half.
pub struct Receiver {
    shared: Arc<Shared>,
    /// Taken from the inbox in one go, handed out one by one.
    local: Items,
    /// Comes before `local`: a packet that is being cut.
    packet: Option<proto::Batch>,
    /// A message or gap that a batch lends.
    lent: Option<Incoming>,
    handed: Mutex<Handed>,
    /// Messages handed out in all.
    received: u64,
    handed_out: u32,
    end: Option<End>,
    /// Dropped, it gives back what it has not handed out, for another receiver.
    borrowed: bool,
}

/// What was handed out and the inbox does not know of yet.
#[derive(Default)]
struct Handed {
    taken: Taken,
    /// What was left of the packet, in messages and bytes, when it was last looked at.
    left: (u64, usize),
}

impl Handed {
    fn look_at(&mut self, packet: &proto::Batch) {
        let left = (packet.remaining(), packet_cost(packet));
        self.taken.messages += self.left.0 - left.0;
        self.taken.bytes += self.left.1 - left.1;
        self.left = left;
    }
}

impl Receiver {
    pub(crate) fn new(shared: Arc<Shared>) -> Receiver {
        Receiver {
            shared,
            local: Items::new(),
            packet: None,
            lent: None,
            handed: Mutex::default(),
            received: 0,
            handed_out: 0,
            end: None,
            borrowed: false,
        }
    }

    /// A receiver whose end does not end the stream.
    pub(crate) fn borrowed(shared: Arc<Shared>) -> Receiver {
        let mut receiver = Receiver::new(shared);
        receiver.borrowed = true;
        receiver
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
        let packet = self.packet.as_mut()?;
        let message = Message::cut_short(packet)?;
        if packet.is_finished() {
            self.end_packet();
        }
        self.handed_out += 1;
        self.received += 1;
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
        if self.packet.is_some() || !self.local.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.end.is_none() {
            let taken = &mut self.handed.get_mut().unwrap().taken;
            match ready!(self.shared.inbox.take(&mut self.local, taken, cx)) {
                Ok(()) => return Poll::Ready(Ok(true)),
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
            if let Some(message) = self.packet.as_mut().and_then(Message::cut) {
                self.count_cut();
                return Some(Incoming::Message(message));
            }
            match self.next_item()? {
                Some(Item::One(incoming)) => return Some(incoming),
                Some(Item::Packet(_)) | None => {}
            }
        }
    }

    /// Goes on to the next item: `Some(None)` if it is a packet, which is to be cut now. The message
    /// may be a part of a read buffer.
    fn next_item(&mut self) -> Option<Option<Item>> {
        match self.local.pop_front()? {
            Item::Packet(packet) => {
                self.handed.get_mut().unwrap().left = (packet.remaining(), packet_cost(&packet));
                self.packet = Some(packet);
                Some(None)
            }
            item => {
                let handed = self.handed.get_mut().unwrap();
                handed.taken.messages += item.messages();
                handed.taken.bytes += item.cost();
                self.received += item.messages();
                self.report_in_time();
                Some(Some(item))
            }
        }
    }

    /// A message was cut from the packet.
    fn count_cut(&mut self) {
        self.received += 1;
        self.end_packet();
    }

    /// After its last message the packet is gone.
    #[inline(never)]
    fn end_packet(&mut self) {
        if let Some(packet) = self.packet.take_if(|packet| packet.is_finished()) {
            self.handed.get_mut().unwrap().look_at(&packet);
            self.report_in_time();
        }
    }

    /// The peer waits to hear of the last of what is there, whenever more is asked for.
    fn report_in_time(&mut self) {
        let taken = &mut self.handed.get_mut().unwrap().taken;
        if self.local.is_empty() || taken.bytes >= self.shared.inbox.release_step() {
            self.shared.inbox.release(taken);
        }
    }

    /// Tells the session of what was handed out, though nobody asks for more.
    pub(crate) fn report_taken(&self) {
        let mut handed = self.handed.lock().unwrap();
        if let Some(packet) = &self.packet {
            handed.look_at(packet);
        }
        self.shared.inbox.release(&mut handed.taken);
    }

    /// With [`Options::acknowledge_by_hand`](crate::Options::acknowledge_by_hand): everything received so far is processed, and counts as
    /// delivered to the peer.
    pub fn acknowledge(&self) {
        self.shared.board.acknowledge(self.received);
    }

    /// How many messages were received so far, for [`acknowledge_to`](Self::acknowledge_to).
    pub fn position(&self) -> u64 {
        self.received
    }

    /// As [`acknowledge`](Self::acknowledge), up to an earlier [`position`](Self::position).
    pub fn acknowledge_to(&self, position: u64) {
        self.shared.board.acknowledge(position.min(self.received));
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
        let rest = self.packet.take().map(Item::Packet);
        rest.into_iter()
            .for_each(|rest| self.local.push_front(rest));
        if self.borrowed {
            self.shared.inbox.put_back(std::mem::take(&mut self.local));
        } else {
            // Who drops only the receiver wants nothing more; who is gone never took it.
            if std::thread::panicking() || !self.shared.outbox.has_senders() {
                self.shared.inbox.abandon();
            }
            self.shared.inbox.receiver_gone(&mut self.local);
            self.shared.handle_dropped();
        }
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
        if receiver
            .packet
            .as_ref()
            .is_none_or(proto::Batch::is_finished)
        {
            receiver.end_packet();
            let lent = match receiver.next_item()? {
                Some(Item::One(incoming)) => Some(incoming),
                Some(Item::Packet(_)) | None => None,
            };
            if let Some(incoming) = lent {
                return Some(match receiver.lent.insert(incoming) {
                    Incoming::Message(message) => IncomingRef::Message((&*message).into()),
                    Incoming::Gap(gap) => IncomingRef::Gap(gap),
                });
            }
        }
        receiver.received += 1;
        let message = receiver.packet.as_mut()?.next_ref()?;
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
