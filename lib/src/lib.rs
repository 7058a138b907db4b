//! WebSocket streams that never stall, never lose a message in silence, and never eat the machine's
//! memory.
//!
//! # When a message counts as delivered
//! Of a session: when the peer's application has taken it; then [`Sender::delivered`] is done. With
//! [`Options::acknowledge_by_hand`]: when the application says that it is through with it. What it
//! has not said so of comes back to a producer that lives on when the session ends, marked as maybe
//! delivered.
//! ```no_run
//! # async fn store(_: unstall::Incoming) {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let by_hand = unstall::Options::default().acknowledge_by_hand(true);
//! let client = unstall::Client::new("wss://feed.example/jobs").options(by_hand);
//! let (_sender, mut receiver) = client.connect().await?.split();
//! while let Some(incoming) = receiver.recv().await? {
//!     store(incoming).await;
//!     receiver.acknowledge(); // everything received so far
//! }
//! # Ok(())
//! # }
//! ```
//! To acknowledge less than everything, note [`Receiver::position`] after a message and give it to
//! [`Receiver::acknowledge_to`] once all up to that message are done.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod client;
pub mod defaults;
mod dial;
pub mod doctor;
mod handles;
mod kernel;
mod messages;
mod pump;
mod queues;
mod reports;
mod server;
mod session;
mod settings;
mod time;
mod ws;

pub use client::{Attempt, Client, Reconnect, Setup, connect};
pub use dial::tls::client_config_from_pem;
pub use doctor::doctor;
pub use handles::{Batch, Connection, MessageSink, Receiver, ReuniteError, Sender};
pub use messages::{
    CloseReport, Gap, Incoming, IncomingRef, IntoMessage, Message, MessageRef, Position, SendError,
    SendRefusal, TrySendError, Undelivered,
};
pub use reports::{
    BoxError, Close, CloseCode, ConnectError, ConnectPhase, ConnectionError, DeliveryError, Event,
    Events, FlushError, Printable, QueueStats, RedactedUrl, SessionLoss, StallCause, StallStats,
    Stats, printable,
};
#[cfg(feature = "axum")]
pub use server::axum;
pub use server::{
    HandshakeStats, InvalidNetwork, PeerAddr, Principal, RefusalStats, Rejection, Server,
    ServerBuilder, ServerLimits, ServerStats, SessionLimits, Sessions, ShutdownReport,
    TrustedProxies,
};
pub use settings::{Budget, KeyFn, Options, Overflow, Spill, SpillFallback};
pub use tokio_rustls::rustls;
pub use tokio_tungstenite;
