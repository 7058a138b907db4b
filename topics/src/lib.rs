//! Topics: logs with names and positions, over WebSocket.

mod access;
mod appender;
mod clock;
pub mod defaults;
mod interest;
mod limits;
mod link;
mod log;
mod memory;
mod message;
mod node;
mod place;
mod publisher;
mod publishers;
mod serving;
pub mod store;
mod tail;

pub use access::{Access, Denied, Grants, Permit, Visitor};
pub use limits::Limits;
pub use log::Log;
pub use memory::Memory;
pub use message::{Delivery, Message};
pub use node::Node;
pub use publisher::PublishError;
pub use unstall_proto::topics::{
    Durability, Filter, Gap, GapReason, LogId, NameError, Offset, Position, Publisher, Refusal,
    Start, StoredAt, Topic, limits::SUBPROTOCOL,
};
