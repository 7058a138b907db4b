//! WebSocket streams that never stall, never lose a message in silence, and never eat the machine's
//! memory.
//!
//! A background task per connection always reads and always writes, however slow the application is.
//! It keeps what waits in bounded queues, and makes a lost connection again. Where something is
//! missing after all, the received stream says so at that place.
//!
//! ```no_run
//! use unstall::{CloseCode, Incoming};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut connection = unstall::connect("wss://feed.example/stream").await?;
//!     connection.send("subscribe").await?;
//!     while let Some(incoming) = connection.recv().await? {
//!         match incoming {
//!             Incoming::Message(message) if message.as_text() == Some("done") => break,
//!             Incoming::Message(message) => println!("{message:?}"),
//!             Incoming::Gap(gap) => println!("something is missing here: {gap:?}"),
//!         }
//!     }
//!     let report = connection.close(CloseCode::NORMAL, "").await;
//!     println!("closed cleanly: {}", report.clean);
//!     Ok(())
//! }
//! ```
//!
//! [`Connection::split`] gives a [`Sender`], which can be cloned, and a [`Receiver`], for programs
//! that send in one task and receive in another. Every future of this crate can be dropped at any
//! await without loss, duplication or a broken stream; its documentation says what is then undone.
//!
//! # Plain peers
//! The other end may be any WebSocket program (RFC 6455). The connection then never deadlocks, is
//! bounded, pings and reconnects. It cannot resume: what a lost connection may have cost is a
//! [`Gap::Reconnected`] in the stream. [`Connection::from_websocket`] takes over a
//! [`WebSocketStream`](tokio_tungstenite::WebSocketStream) that is open already.
//!
//! # Sessions
//! If both ends are unstall, they agree to the subprotocol `unstall.v1`, by default. Each message is
//! then delivered once and in order, over any number of broken connections. Credit bounds what either
//! side holds. [`Connection::is_session`] says whether there is a session,
//! [`Client::require_session`] insists on one, and [`Client::plain`] does without.
//!
//! A session lives in the memory of two processes. If either of them dies, or they are without a
//! connection for longer than [`Options::session_life`], the session ends. The receiving application
//! then gets a [`Gap::SessionLost`]. The sending one gets the undelivered messages back, from
//! [`Sender::take_undelivered`] or in the [`CloseReport`].
//!
//! # When a message counts as delivered
//! In a session a message counts as delivered once the peer's application has received it. With
//! [`Options::acknowledge_by_hand`] it counts once the application has acknowledged it.
//! [`Sender::delivered`] then resolves. When a session ends, the messages that were not acknowledged
//! come back to the sender, and [`Undelivered::maybe_delivered`] marks those that the peer may have.
//! ```no_run
//! # async fn store(_: unstall::Incoming) {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let by_hand = unstall::Options::default().acknowledge_by_hand(true);
//! let client = unstall::Client::new("wss://feed.example/jobs").options(by_hand);
//! let mut connection = client.connect().await?;
//! while let Some(incoming) = connection.recv().await? {
//!     store(incoming).await;
//!     connection.acknowledge(); // everything received so far
//! }
//! # Ok(())
//! # }
//! ```
//! To acknowledge less than everything, note [`Receiver::position`] after a message. Give it to
//! [`Receiver::acknowledge_to`] once everything up to that message is done.
//!
//! # Overflow
//! Received messages wait in the inbox, which is bounded. [`Overflow`] says what happens when it is
//! full. The default is [`Overflow::Pause`]: nothing is read until there is room, so that TCP slows
//! the peer down. The other policies drop, replace or spill messages, or end the connection.
//! ```no_run
//! # use unstall::{Client, Options, Overflow};
//! // A ticker: the latest prices matter, old ones do not.
//! let options = Options::default().overflow(Overflow::DropOldest);
//! let client = Client::new("wss://feed.example/prices").options(options);
//! ```
//! What a policy drops is a [`Gap`] in the stream, an [`Event::Overflow`] and a count in [`Stats`].
//!
//! # Reconnecting
//! A [`Client`] makes a lost connection again by itself, with growing random waits, as [`Reconnect`]
//! says. [`Client::on_connect`] runs on each new connection before anything else is sent: subscribe
//! there. [`Client::headers_with`] makes the headers of each attempt, such as a fresh token. Messages
//! that are sent meanwhile wait in the outbox.
//! ```no_run
//! # async fn example() -> Result<(), unstall::ConnectError> {
//! let client = unstall::Client::new("wss://feed.example/stream")
//!     .on_connect(|mut setup| async move { Ok(setup.send("subscribe").await?) });
//! let connection = client.connect().await?;
//! # let _ = connection;
//! # Ok(())
//! # }
//! ```
//!
//! # Servers
//! A [`Server`] accepts plain connections and sessions on the same port. With the feature `axum`, an
//! extractor does the same in an axum application.
//! ```
//! use unstall::{Incoming, Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind("127.0.0.1:0").await?;
//! let url = format!("ws://{}", server.local_addr());
//! tokio::spawn(async move {
//!     let echo = |mut connection: unstall::Connection| async move {
//!         while let Ok(Some(Incoming::Message(message))) = connection.recv().await {
//!             let _ = connection.send(message).await;
//!         }
//!     };
//!     server.serve(echo).await;
//! });
//!
//! let mut connection = unstall::connect(&url).await?;
//! connection.send("hello").await?;
//! let answer = connection.recv().await?.and_then(Incoming::into_message);
//! assert_eq!(answer, Some("hello".into()));
//! # Ok(())
//! # }
//! ```
//! [`ServerBuilder`] sets TLS, authentication, allowed origins and trusted proxies.
//! [`Server::serve_until`] shuts down gracefully.
//!
//! # Limits
//! Everything that is held for a peer is bounded in bytes. [`Options`] bounds one connection, and a
//! [`Budget`] bounds many together. [`ServerLimits`] and [`SessionLimits`] bound what a server gives
//! to all, to one address and to one [`Principal`]. Every default stands in [`defaults`] with its
//! reason.
//!
//! # Why is it slow?
//! [`Connection::stats`] counts, and says what the connection waits for ([`StallCause`]).
//! [`Connection::events`] tells what happens to it. [`doctor()`] joins that with the kernel's account
//! of the sockets, and says for every connection of the process which side does not read, or whether
//! the network is at fault. Each connection logs in a [tracing](https://docs.rs/tracing) span.
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `native-roots` | yes | TLS clients trust the certificate store of the operating system |
//! | `webpki-roots` | no | TLS clients trust the roots of Mozilla's programme, which are compiled in |
//! | `axum` | no | the extractor `unstall::axum::Upgrade` |
//!
//! Without a feature for roots, [`Client::tls`] has to be given a configuration for `wss://` URLs.

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
pub use settings::{Budget, Compression, KeyFn, Options, Overflow, Spill, SpillFallback};
pub use tokio_rustls::rustls;
pub use tokio_tungstenite;
