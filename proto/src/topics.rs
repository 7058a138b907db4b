//! The protocol of topics `unstall.topics.v1`, as values. SPEC-TOPICS.md describes it on the wire.

mod name;
mod position;
mod terms;

pub use name::{Filter, MAX_NAME, MAX_TOKENS, NameError, Topic};
pub use position::{InvalidPosition, LogId, Offset, Position, StoredAt};
pub use terms::{Durability, Gap, GapReason, Publisher, Refusal, Start, SubscriptionEnd};
