//! Topics: logs with names and positions, over WebSocket.
//!
//! Messages are published under topics and stored in one order. Each subscription gets every message
//! of its filter once and in order, over lost connections, restarts and other nodes. What is missing
//! stands as a [`Gap`] in the stream.
//!
//! # A log
//! [`Log::memory`] ends with the process. `Log::open` keeps a log in a directory. `Log::with_store`
//! takes any other [`Store`](store::Store). A log has its own [`publish`](Log::publish) and
//! [`subscribe`](Log::subscribe), without any connection.
//!
//! # A node
//! A [`Node`] serves a log over the connections of an [`unstall::Server`], or of the axum extractor.
//! Several nodes may serve one log. [`Access`] says who may do what.
//!
//! # A client
//! [`Topics`] publishes and subscribes at any of several nodes. It connects again by itself. A
//! [`Subscription`] goes on from its position then, and messages without an answer are sent again.
//!
//! # Positions
//! [`Subscription::position`] and [`Message::position`] name a place in a log. A position is text that
//! can be saved, and every node of the log knows it: [`Start::After`].
//! ```
//! use unstall_topics::{Position, Start};
//! # let text = Position { log: unstall_topics::LogId([7; 16]), offset: unstall_topics::Offset::new(5).unwrap(),
//! #     time: unstall_topics::StoredAt::UNKNOWN }.to_string();
//! let saved: Position = text.parse()?;
//! let start = Start::After(saved);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `embedded` | yes | the store in a directory |
//! | `jetstream` | no | the store over NATS JetStream |
//! | `metrics` | no | `metrics`: what a log counts, for the `metrics` facade |
//! | `conformance` | no | tests of a store against the contract of [`Store`](store::Store) |

mod access;
mod answers;
mod appender;
mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod connected;
pub mod defaults;
mod dialer;
#[cfg(feature = "embedded")]
mod embedded;
mod events;
mod interest;
#[cfg(feature = "jetstream")]
pub mod jetstream;
mod keeper;
mod limits;
mod link;
mod local;
mod log;
mod marks;
mod memory;
mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
mod node;
mod place;
mod publish_error;
mod publisher;
mod publishers;
mod random;
mod serving;
mod spans;
mod stats;
pub mod store;
mod subscription;
mod tail;
mod tokens;
mod topics;

pub use access::{Access, Denied, Grants, Permit, Visitor};
#[cfg(feature = "embedded")]
pub use embedded::{Embedded, OpenError};
pub use events::{TopicsEvent, TopicsEvents};
pub use limits::Limits;
pub use log::Log;
pub use memory::Memory;
pub use message::{Delivery, Message};
pub use node::Node;
pub use publish_error::PublishError;
pub use stats::{Lag, LogStats, NodeSubscription, SubscriptionStats, TopicsStats};
pub use store::Publication;
pub use subscription::{Subscription, SubscriptionError};
pub use topics::{Topics, TopicsBuilder};
pub use unstall_proto::Kind;
pub use unstall_proto::topics::{
    Durability, Filter, Gap, GapReason, LogId, NameError, Offset, Position, Publisher, Refusal,
    Snapshot, Start, StoredAt, SubscribeOptions, SubscriptionStage, Topic, limits::SUBPROTOCOL,
};

/// The program of the package's page is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
