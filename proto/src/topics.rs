//! The protocol of topics `unstall.topics.v1`, as values. SPEC-TOPICS.md describes it on the wire.

mod assembly;
mod block;
mod code;
mod hello;
pub mod limits;
mod name;
mod opening;
mod packet;
mod position;
mod record;
mod server;
mod terms;

pub use block::{Block, BlockBuilder, BlockMessage, StoredMessage};
pub use hello::{
    AccessToken, ClientHello, InvalidToken, LogInfo, RejectReason, ServerReject, ServerWelcome,
};
pub use name::{Filter, MAX_NAME, MAX_TOKENS, NameError, Topic};
pub use opening::{LogBounds, Opening};
pub use packet::{PublishedRun, Subscribe, TopicPacket, published_runs};
pub use position::{InvalidPosition, LogId, Offset, Position, StoredAt};
pub use record::{FirstRecord, TopicRecord};
pub use server::{
    Outcome, PublishRequest, ReadRequest, Server, ServerConfig, ServerEvent, SubscribeRequest,
    SubscriptionKey,
};
pub use terms::{Durability, Gap, GapReason, Publisher, Refusal, Start, SubscriptionEnd};
