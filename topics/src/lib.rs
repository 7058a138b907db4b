//! Topics: logs with names and positions, over WebSocket.

mod access;
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
mod log;
mod memory;
mod message;
mod node;
mod place;
mod publisher;
mod publishers;
mod random;
mod serving;
mod stats;
pub mod store;
mod subscription;
mod tail;
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
pub use publisher::PublishError;
pub use stats::{LogStats, SubscriptionStats, TopicsStats};
pub use store::Publication;
pub use subscription::{Subscription, SubscriptionError};
pub use topics::{Topics, TopicsBuilder};
pub use unstall_proto::Kind;
pub use unstall_proto::topics::{
    Durability, Filter, Gap, GapReason, LogId, NameError, Offset, Position, Publisher, Refusal,
    Start, StoredAt, SubscribeOptions, Topic, limits::SUBPROTOCOL,
};
