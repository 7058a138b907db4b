//! What is read of the store while a subscription still sends what was read before.

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout};
use unstall_proto::topics::{Offset, ReadRequest, SubscriptionKey};

use super::{
    Answer, Serving,
    reading::{Encoded, read_store},
};
use crate::{
    defaults::{AHEAD_BYTES, AHEAD_KEPT},
    tail::Found,
};

/// A read that nobody has asked for yet. It is under way, or waits for a while to be asked for.
pub(super) struct Ahead {
    key: SubscriptionKey,
    after: Offset,
    wanted: oneshot::Sender<ReadRequest>,
}

impl Ahead {
    /// Lets this read answer the request. It comes back if this read is another one, or has waited for
    /// too long.
    pub(super) fn hand_over(self, request: ReadRequest) -> Result<(), Box<ReadRequest>> {
        if request.latest || request.after != self.after {
            return Err(Box::new(request));
        }
        self.wanted.send(request).map_err(Box::new)
    }
}

impl Serving {
    /// The read for a subscription, if there is one.
    pub(super) fn ahead_of(&mut self, key: SubscriptionKey) -> Option<Box<Ahead>> {
        self.ahead.take_if(|ahead| ahead.key == key)
    }

    /// Begins to read what is behind something that was read, if more is to come from the store. A
    /// connection has one such read, and a node a few, so what they hold is bounded.
    pub(super) fn read_ahead(&mut self, request: &ReadRequest, read: &Encoded) {
        let after = read.through;
        let log = &self.node.log.shared;
        let comes = !request.latest
            && !read.block.is_empty()
            && matches!(log.tail.find(after), Found::Behind);
        let is_reading = |it: &Ahead| !it.wanted.is_closed();
        if !comes || self.ahead.as_deref().is_some_and(is_reading) {
            return;
        }
        let (reads, aheads) = (self.node.reads.clone(), self.node.aheads.clone());
        let (Ok(place), Ok(turn)) = (aheads.try_acquire_owned(), reads.try_acquire_owned()) else {
            return;
        };
        let (wanted, asked_for) = oneshot::channel();
        self.ahead = Some(Box::new(Ahead {
            key: request.key,
            after,
            wanted,
        }));
        let mut next = request.clone();
        (next.after, next.through) = (after, log.tail.bounds().last);
        let log = log.clone();
        self.asked.push(Box::pin(async move {
            let answer = read_store(&log, &next).await;
            drop(turn);
            // A long message is not kept, unless it is asked for already.
            let is_short = |it: &Encoded| it.block.memory() <= AHEAD_BYTES;
            let kept = match answer.as_ref().is_ok_and(is_short) {
                true => AHEAD_KEPT,
                false => Duration::ZERO,
            };
            let request = timeout(kept, asked_for).await;
            drop(place);
            match request {
                Ok(Ok(request)) => Answer::Read(request, answer),
                _ => Answer::Unwanted,
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::sleep;
    use unstall_proto::{
        Kind, Time,
        topics::{
            AccessToken, Client, ClientConfig, Delivery, Filter, Start, SubscribeOptions,
            SubscriptionId, Topic,
        },
    };

    use super::*;
    use crate::{
        Limits, Log, Memory, Node,
        defaults::{NODE_AHEADS, READ_BYTES},
        link::{self, LinkReceiver, LinkSender, Received},
        store::{Publication, Store},
    };

    /// So long that what is read at a time fills a link: a packet has room for one of them.
    const BYTES: usize = 17 << 10;
    const A_READ: usize = READ_BYTES.div_ceil(BYTES);
    const MESSAGES: usize = 4 * A_READ;

    /// A node whose log has messages in its store and none in memory.
    async fn node() -> Node {
        let store = Memory::new(Limits::default());
        let topic = Topic::new("a").unwrap();
        let message = || Publication::new(topic.clone(), Kind::Binary, vec![0; BYTES]);
        let batch = (0..MESSAGES).map(|_| message()).collect();
        store.append(batch).await.unwrap();
        Node::new(&Log::with_store(store).await.unwrap())
    }

    fn store_reads(node: &Node) -> u64 {
        node.parts.log.stats().store_reads
    }

    /// A client that has subscribed, and receives only when it is told to.
    struct Reader {
        client: Client,
        id: SubscriptionId,
        sender: LinkSender,
        receiver: LinkReceiver,
    }

    impl Reader {
        async fn new(node: &Node) -> Reader {
            let [here, (sender, receiver)] = link::local();
            tokio::spawn(Serving::new(node, None).run(here.0, here.1));
            let mut client = Client::new(ClientConfig::new());
            let filter = Filter::new("a").unwrap();
            let options = SubscribeOptions::default();
            let id = client.subscribe(filter, Start::Beginning, options);
            client.attach(Time::ORIGIN, AccessToken::NONE);
            let mut reader = Reader {
                client,
                id,
                sender,
                receiver,
            };
            reader.send().await;
            reader
        }

        async fn send(&mut self) {
            while let Some(packet) = self.client.poll_transmit(Time::ORIGIN) {
                self.sender.send(packet.into_bytes()).await.unwrap();
            }
        }

        async fn packet(&mut self) -> Bytes {
            match self.receiver.recv().await.unwrap() {
                Received::Packet(packet) => packet,
                Received::Text => panic!("a text"),
            }
        }

        /// Receives everything, and returns the offsets.
        async fn all(mut self) -> Vec<u64> {
            let mut offsets = Vec::new();
            while offsets.len() < MESSAGES {
                let packet = self.packet().await;
                self.client.handle_packet(Time::ORIGIN, packet).unwrap();
                while let Some(delivery) = self.client.poll_delivery(self.id) {
                    let Delivery::Messages(batch) = delivery else {
                        continue;
                    };
                    for message in batch {
                        self.client.taken(self.id, message.cost);
                        offsets.push(message.offset.get());
                    }
                }
                self.send().await;
            }
            offsets
        }
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("it never came to this: {what}"));
    }

    fn in_order() -> Vec<u64> {
        (1..=MESSAGES as u64).collect()
    }

    /// Once a subscription read the store only when it had sent everything, so that nobody worked while
    /// it waited for the store.
    #[tokio::test]
    async fn what_comes_next_is_read_while_a_client_does_not_receive() {
        let node = node().await;
        let reader = Reader::new(&node).await;
        // The first read fills the link.
        until("two reads", || store_reads(&node) == 2).await;
        assert_eq!(reader.all().await, in_order());
    }

    #[tokio::test]
    async fn a_node_reads_ahead_for_a_few_however_many_do_not_receive() {
        let node = node().await;
        let mut readers = Vec::new();
        for _ in 0..3 * NODE_AHEADS {
            readers.push(Reader::new(&node).await);
        }
        let most = 4 * NODE_AHEADS as u64;
        until("a read each, and some ahead", || store_reads(&node) == most).await;
        assert_eq!(node.parts.aheads.available_permits(), 0);
        // Nothing is kept for them for long, and nothing more is read.
        sleep(2 * AHEAD_KEPT).await;
        assert_eq!(node.parts.aheads.available_permits(), NODE_AHEADS);
        assert_eq!(store_reads(&node), most);
        for reader in readers {
            assert_eq!(reader.all().await, in_order());
        }
    }
}
