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

#[cfg(feature = "axum")]
pub mod axum;
mod budget;
mod client;
mod connect_error;
mod connection;
mod copying;
pub mod defaults;
mod dial;
pub mod doctor;
mod error;
mod events;
mod handshake;
mod inbox;
mod incoming;
mod item;
mod kernel;
mod message;
mod options;
mod outbox;
mod proxy;
mod pump;
mod queue;
mod receiver;
mod sender;
mod server;
mod session;
mod shared;
mod sink;
mod spill;
mod stats;
mod timers;
mod tls;
mod transport;
mod ws;

pub use budget::Budget;
pub use client::{Attempt, Client, Reconnect, Setup, connect};
pub use connect_error::{ConnectError, ConnectPhase};
pub use connection::Connection;
pub use doctor::doctor;
pub use error::{
    BoxError, Close, CloseCode, CloseReport, ConnectionError, DeliveryError, FlushError, SendError,
    SendRefusal, SessionLoss, TrySendError,
};
pub use events::{Event, Events};
pub use handshake::Rejection;
pub use incoming::{Gap, Incoming, IncomingRef};
pub use message::{IntoMessage, Message, MessageRef};
pub use options::{KeyFn, Options, Overflow, Spill, SpillFallback};
pub use receiver::{Batch, Receiver};
pub use sender::Sender;
pub use server::{PeerAddr, Server, ServerBuilder, ServerLimits, ServerStats, ShutdownReport};
pub use session::{
    Undelivered,
    registry::{Principal, SessionLimits, Sessions},
};
pub use sink::MessageSink;
pub use stats::{QueueStats, StallCause, StallStats, Stats};
pub use tls::client_config_from_pem;
pub use tokio_rustls::rustls;
pub use tokio_tungstenite;
