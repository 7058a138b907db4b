//! The protocol of topics `unstall.topics.v1`, as values. SPEC-TOPICS.md describes it on the wire.
//!
//! A [`Client`] publishes messages to a log, each of them once, and subscribes to topics from a
//! position. It outlives its connections. A [`Server`] is a node's side of one connection. Neither
//! does I/O, or has a clock, task, randomness or waker: the caller tells them what happened, and asks
//! them what to do.
//!
//! # The run loop
//! Something happens: a packet arrives, the application publishes or takes messages, the log grows,
//! a read is done. Tell the client or the server, and then poll it for what to do. This is a whole
//! client and a whole server, over a log that is a list in memory:
//!
//! ```
//! use std::sync::Arc;
//! use unstall_proto::{Kind, Time, topics::*};
//!
//! // Messages with the offsets 1, 2, … The clock and random bytes are the caller's.
//! let mut log: Vec<(Topic, Vec<u8>)> = Vec::new();
//! let id = LogId([7; 16]);
//! let offset = |number: usize| Offset::new(number as u64).unwrap();
//! let time = StoredAt::new(1_764_500_000_000).unwrap();
//! let now = Time::ORIGIN;
//!
//! let publisher = Publisher { id: [1; 16], epoch: 1 };
//! let mut client = Client::new(ClientConfig::new().publisher(publisher));
//! let mut server = Server::new(Arc::new(ServerConfig::new().name("node a")));
//!
//! let prices = client.subscribe(Filter::new("prices.>")?, Start::Now, SubscribeOptions::new());
//! let number = client.publish(Topic::new("prices.EURUSD")?, Kind::Text, false, "1.08".into())?;
//! // The client has connected.
//! client.attach(now, AccessToken::NONE);
//! let (mut received, mut stored) = (Vec::new(), None);
//! while received.is_empty() || stored.is_none() {
//!     // 1. Packets go both ways.
//!     while let Some(packet) = client.poll_transmit(now) {
//!         server.handle_packet(packet.into_bytes())?;
//!     }
//!     while let Some(packet) = server.poll_transmit(time) {
//!         client.handle_packet(now, packet.into_bytes())?;
//!     }
//!     // 2. The server asks its caller, which asks who may do what, and the store.
//!     let last = offset(log.len());
//!     let bounds = LogBounds { log: id, first: offset(1), last, last_time: time };
//!     while let Some(event) = server.poll_event() {
//!         match event {
//!             ServerEvent::Hello(_) => {
//!                 server.welcome(&LogInfo::new(id, bounds.first, last, Durability::Memory));
//!             }
//!             ServerEvent::Subscribe(request) => {
//!                 // A whole server answers each start.
//!                 server.subscribed(request.key, Opening::now(&bounds));
//!             }
//!             ServerEvent::Publish(messages) => {
//!                 for message in messages {
//!                     log.push((message.topic, message.payload.to_vec()));
//!                     let stored = Outcome::Stored(Some(offset(log.len())));
//!                     server.published(message.number, stored);
//!                 }
//!                 // Tell this to the servers of all connections.
//!                 server.set_end(offset(log.len()), time);
//!             }
//!             other => println!("{other:?}"),
//!         }
//!     }
//!     // 3. The server reads. Subscribers at the same place share a block.
//!     while let Some(read) = server.poll_read() {
//!         let behind = log.iter().enumerate().skip(read.after.get() as usize);
//!         let block = Block::new(behind.map(|(index, (topic, payload))| StoredMessage {
//!             offset: offset(index + 1),
//!             time,
//!             topic: topic.as_str(),
//!             kind: Kind::Text,
//!             is_final: false,
//!             payload,
//!         }));
//!         server.read(read.key, Arc::new(block), read.through, offset(1));
//!     }
//!     // 4. The client tells what happened, and hands over what came.
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             ClientEvent::Published { first, offset, .. } => stored = Some((first, offset)),
//!             ClientEvent::Readable(subscription) => {
//!                 while let Some(delivery) = client.poll_delivery(subscription) {
//!                     if let Delivery::Messages(batch) = delivery {
//!                         let cost = batch.cost();
//!                         received.extend(batch.map(|message| message.payload));
//!                         client.taken(subscription, cost);
//!                     }
//!                 }
//!             }
//!             other => println!("{other:?}"),
//!         }
//!     }
//!     // 5. Sleep until something happens, or until `client.poll_timeout()`.
//! }
//! assert_eq!(received, ["1.08"]);
//! assert_eq!(stored, Some((number, Some(offset(1)))));
//! assert_eq!(client.position(prices).map(|place| place.offset), Some(offset(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! When a connection is lost, the server's value is dropped. The client is [detached](Client::detach)
//! and then [attached](Client::attach) to the next connection, to any node: it asks again for each
//! subscription from its position, and publishes again what has no answer.

mod assembly;
mod block;
mod client;
mod code;
mod hello;
pub mod limits;
mod name;
mod opening;
mod packet;
mod position;
mod record;
mod server;
mod subscribe;
mod terms;

pub use block::{Block, BlockBuilder, BlockMessage, StoredMessage};
pub use client::{
    Client, ClientConfig, ClientEvent, Delivery, MessageBatch, PublishError, SubscribeOptions,
    SubscriptionId, TopicMessage, TopicMessageRef, Unanswered,
};
pub use hello::{
    AccessToken, ClientHello, InvalidToken, LogInfo, RejectReason, ServerReject, ServerWelcome,
};
pub use name::{Filter, MAX_NAME, MAX_TOKENS, NameError, Topic};
pub use opening::{LogBounds, Opening};
pub use packet::{PublishedRun, TopicPacket, published_runs};
pub use position::{InvalidPosition, LogId, Offset, Position, StoredAt};
pub use record::{FirstRecord, TopicRecord};
pub use server::{
    Outcome, PublishRequest, ReadRequest, Server, ServerConfig, ServerEvent, Standing,
    SubscribeRequest, SubscriptionKey, SubscriptionStage,
};
pub use subscribe::Subscribe;
pub use terms::{Durability, Gap, GapReason, Publisher, Refusal, Snapshot, Start, SubscriptionEnd};
