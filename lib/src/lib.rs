//! WebSocket streams that never stall, never lose a message in silence, and never eat the machine's
//! memory.

#[cfg(feature = "axum")]
pub mod axum;
mod budget;
mod client;
mod connect_error;
mod connection;
pub mod defaults;
mod dial;
pub mod doctor;
mod error;
mod events;
mod handshake;
mod inbox;
mod kernel;
mod message;
mod options;
mod outbox;
mod proxy;
mod pump;
mod server;
mod session;
mod shared;
mod spill;
mod stats;
mod timers;
mod tls;
mod transport;
mod ws;

pub use budget::Budget;
pub use client::{Attempt, Client, Reconnect, Setup, connect};
pub use connect_error::{ConnectError, ConnectPhase};
pub use connection::{Batch, Connection, MessageSink, Receiver, Sender};
pub use doctor::doctor;
pub use error::{
    BoxError, Close, CloseCode, CloseReport, ConnectionError, DeliveryError, FlushError, SendError,
    SendRefusal, SessionLoss, TrySendError,
};
pub use events::{Event, Events};
pub use handshake::Rejection;
pub use message::{Gap, Incoming, IncomingRef, IntoMessage, Message, MessageRef};
pub use options::{KeyFn, Options, Overflow, Spill, SpillFallback};
pub use server::{PeerAddr, Server, ServerBuilder, ServerLimits, ServerStats, ShutdownReport};
pub use session::{
    Undelivered,
    registry::{Principal, SessionLimits, Sessions},
};
pub use stats::{QueueStats, StallCause, StallStats, Stats};
pub use tls::client_config_from_pem;
pub use tokio_rustls::rustls;
pub use tokio_tungstenite;
