//! WebSocket streams that never stall, never lose a message in silence, and never eat the machine's
//! memory.
//!
//! A background task of each connection, the pump, reads and writes however slow your code is. What
//! waits is kept in queues that are bounded in bytes, and a lost connection is made again. If
//! something is missing after all, the received stream has a [`Gap`] at that place.
//!
//! ```text
//! your program                      background task
//!   send() ──▶ outbox (bounded) ──▶ ┌──────┐ ──▶ socket ──▶  the peer, and a new
//!   recv() ◀── inbox  (bounded) ◀── │ pump │ ◀── socket ◀──  socket if this one is lost
//!   stats(), events() ◀──────────── └──────┘
//! ```
//!
//! # A whole program
//! A server and its client in one process:
//! ```
//! use unstall::{BoxError, CloseCode, Connection, Incoming, Server};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), BoxError> {
//!     let server = Server::bind("127.0.0.1:0").await?;
//!     let url = format!("ws://{}", server.local_addr());
//!     tokio::spawn(async move { server.serve(shout).await });
//!
//!     let mut connection = unstall::connect(&url).await?;
//!     connection.send("hello").await?;
//!     match connection.recv().await?.ok_or("the server closed")? {
//!         Incoming::Message(message) => assert_eq!(message.as_text(), Some("HELLO")),
//!         Incoming::Gap(gap) => println!("something is missing here: {gap:?}"),
//!     }
//!     let report = connection.close(CloseCode::NORMAL, "").await;
//!     assert!(report.clean);
//!     Ok(())
//! }
//!
//! async fn shout(mut connection: Connection) {
//!     while let Ok(Some(incoming)) = connection.recv().await {
//!         let Incoming::Message(message) = incoming else { continue };
//!         let text = message.as_text().unwrap_or_default().to_uppercase();
//!         if connection.send(text).await.is_err() {
//!             return;
//!         }
//!     }
//! }
//! ```
//! [`send`](Connection::send) takes text and bytes of [every usual type](IntoMessage).
//! [`Connection::split`] gives a [`Sender`], which can be cloned, and a [`Receiver`], for programs
//! that send in one task and receive in another. Every future of this crate can be dropped at any
//! await without loss, duplication or a broken stream; its documentation says what is then undone.
//!
//! More whole programs are in
//! [`examples`](https://github.com/unstall/unstall/tree/main/lib/examples): market data, a chat in
//! axum, an agent's tokens, calls and answers, a file, TLS and authentication, client certificates, an
//! adopted stream, metrics, a trace over two processes.
//!
//! # Plain peers
//! The other end may be any WebSocket program (RFC 6455). The connection then never deadlocks, is
//! bounded, pings and reconnects. It cannot resume: what a lost connection may have cost is a
//! [`Gap::Reconnected`] in the stream. [`Connection::from_websocket`] takes over a
//! [`WebSocketStream`](tokio_tungstenite::WebSocketStream) that is open already, and a [`Message`]
//! converts from and to tungstenite's.
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
//!     .on_connect(|setup| async move { Ok(setup.send("subscribe").await?) });
//! let connection = client.connect().await?;
//! # let _ = connection;
//! # Ok(())
//! # }
//! ```
//! A client is a value: it can be cloned, and each call of [`connect`](Client::connect) makes one more
//! connection.
//!
//! # Proxies, TLS and other ways
//! A client obeys `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, as curl does.
//! [`Client::proxy`] names another proxy, and [`Client::without_proxy`] connects directly.
//! `Client::tls` sets the roots to trust and a certificate of the client. [`Client::connector`] connects
//! by a function of your own, and `Client::unix_socket` to a Unix socket.
//! ```no_run
//! # async fn example() -> Result<(), unstall::ConnectError> {
//! let client = unstall::Client::new("wss://feed.example/stream")
//!     .proxy("socks5://user:password@proxy.example:1080");
//! let connection = client.connect().await?;
//! # let _ = connection;
//! # Ok(())
//! # }
//! ```
//!
//! # Compression
//! With [`Options::compression`] messages are compressed if the peer agrees (permessage-deflate,
//! RFC 7692). That works with browsers and any other WebSocket program, in sessions too. It is off by
//! default: it takes time and memory, and can betray secrets ([`Compression`] says when).
//! ```
//! use unstall::{Client, Compression, Options};
//!
//! let options = Options::default().compression(Compression::default());
//! let client = Client::new("wss://feed.example/stream").options(options);
//! # let _ = client;
//! ```
//!
//! # Servers
//! A [`Server`] accepts plain connections and sessions on the same port. [`ServerBuilder`] sets TLS,
//! authentication, allowed origins and trusted proxies. [`Server::serve_until`] shuts down gracefully.
//! `ServerBuilder::http2` takes WebSockets over HTTP/2 too (RFC 8441). [`ServerBuilder::listener`]
//! takes connections from a [`Listener`] of your own, and `ServerBuilder::bind_unix` from a Unix socket.
//! ```no_run
//! # async fn handler(_: unstall::Connection) {}
//! # async fn example() -> std::io::Result<()> {
//! use unstall::{Principal, Rejection, Server};
//!
//! let server = Server::builder()
//!     .tls_pem("cert.pem", "key.pem")
//!     .authenticate(|mut request| async move {
//!         let token = request.headers().get("authorization");
//!         if token.is_none_or(|token| token != "Bearer s3cret") {
//!             return Err(Rejection::unauthorized("a valid token is needed"));
//!         }
//!         request.extensions_mut().insert(Principal::new("alice"));
//!         Ok(request)
//!     })
//!     .bind("0.0.0.0:9100")
//!     .await?;
//! server.serve(handler).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Axum
//! With the feature `axum`, the extractor `unstall::axum::Upgrade` makes the same connections in an
//! axum application.
//! ```
//! use axum::{Router, response::Response, routing::any};
//! use unstall::{Incoming, axum::Upgrade};
//!
//! async fn echo(upgrade: Upgrade) -> Response {
//!     upgrade.on_upgrade(|mut connection| async move {
//!         while let Ok(Some(Incoming::Message(message))) = connection.recv().await {
//!             if connection.send(message).await.is_err() {
//!                 return;
//!             }
//!         }
//!     })
//! }
//!
//! let app: Router = Router::new().route("/echo", any(echo));
//! # let _ = app;
//! ```
//! `Upgrade::sessions` offers sessions there too. With the feature `http2`, WebSockets over HTTP/2 reach
//! the same handler.
//!
//! # Acknowledgement
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
//! # Limits
//! Everything that is held for a peer is bounded in bytes. [`Options`] bounds one connection, and a
//! [`Budget`] bounds many together. [`ServerLimits`] and [`SessionLimits`] bound what a server gives
//! to all, to one address and to one [`Principal`]. Every default stands in [`defaults`] with its
//! reason.
//!
//! # Diagnosis
//! [`Connection::stats`] counts, and says what the connection waits for ([`StallCause`]).
//! [`Connection::events`] tells what happens to it. [`doctor()`] joins that with the kernel's account
//! of the sockets, and says for every connection of the process which side does not read, or whether
//! the network is at fault. Attempts to connect, handshakes, connections and sessions are
//! [tracing](https://docs.rs/tracing) spans.
//! ```no_run
//! # async fn example(connection: unstall::Connection) {
//! let stats = connection.stats();
//! println!("{} bytes wait to be sent", stats.outbox.bytes);
//! for cause in stats.stalled_by() {
//!     println!("it waits: {cause}");
//! }
//! # }
//! ```
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `tls` | yes | `wss://`, TLS to proxies, and TLS in [`Server`] |
//! | `ring` | yes | ring as the provider of cryptography, unless the process [installs another](rustls::crypto::CryptoProvider::install_default) |
//! | `aws-lc-rs` | no | AWS-LC as the provider; it goes before ring |
//! | `native-roots` | yes | TLS clients trust the certificate store of the operating system |
//! | `webpki-roots` | no | TLS clients trust the roots of Mozilla's programme, which are compiled in |
//! | `platform-verifier` | no | the operating system verifies certificates, in place of the roots above |
//! | `server` | yes | [`Server`] |
//! | `axum` | no | the extractor `unstall::axum::Upgrade` |
//! | `http2` | no | WebSockets over HTTP/2 (RFC 8441), in the extractor and by `ServerBuilder::http2` |
//! | `metrics` | no | `unstall::metrics`: figures of the whole process for the `metrics` facade |
//! | `opentelemetry` | no | the spans of a client and its server become one trace: its context travels with the upgrade request |
//! | `status` | no | `unstall::status`: each connection of the process as it is now, and what happened to it |
//! | `doctor` | yes | [`doctor()`] |
//! | `spill` | yes | the overflow policy `Overflow::Spill` |
//!
//! Without a feature for roots, [`Client::tls`] has to be given a configuration for `wss://` URLs.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
// Much of what clients and servers share is used by one of the parts that can be left out.
#![cfg_attr(
    not(all(
        feature = "doctor",
        feature = "server",
        feature = "spill",
        feature = "tls"
    )),
    allow(dead_code, unreachable_pub, unused_imports)
)]

mod client;
pub mod defaults;
mod dial;
#[cfg(feature = "doctor")]
pub mod doctor;
mod handles;
mod kernel;
mod messages;
#[cfg(feature = "metrics")]
pub mod metrics;
mod pump;
mod queues;
mod reports;
#[cfg(feature = "server")]
mod server;
mod session;
mod settings;
mod spans;
#[cfg(feature = "status")]
pub mod status;
mod time;
mod ws;

pub use client::{Attempt, Backoff, Client, Reconnect, Setup, connect};
pub use dial::Endpoint;
#[cfg(all(feature = "server", feature = "tls"))]
pub use dial::certificate::ServerCertificate;
#[cfg(feature = "tls")]
pub use dial::tls::{certificates_from_pem, client_config_from_pem};
#[cfg(feature = "doctor")]
pub use doctor::doctor;
pub use handles::{Batch, Connection, MessageSink, Receiver, ReuniteError, Sender};
pub use messages::{
    CloseReport, Gap, Incoming, IncomingRef, IntoMessage, Message, MessageRef, Position, SendError,
    SendRefusal, TrySendError, Undelivered,
};
pub use reports::{
    BoxError, Close, CloseCode, ConnectError, ConnectPhase, ConnectionError, DeliveryError, Event,
    Events, FlushError, Printable, ProxyError, QueueStats, RedactedUrl, SessionLoss, StallCause,
    StallStats, Stats, printable,
};
#[cfg(all(feature = "server", feature = "tls"))]
pub use server::PeerCertificates;
#[cfg(feature = "axum")]
pub use server::axum;
#[cfg(feature = "server")]
pub use server::{
    Acceptance, BearerToken, HandshakeStats, InvalidNetwork, Listener, PeerAddr, Principal,
    RefusalStats, Rejection, Server, ServerBuilder, ServerLimits, ServerStats, SessionLimits,
    Sessions, ShutdownReport, TrustedProxies,
};
pub use settings::{Budget, Compression, KeyFn, Options, Overflow};
#[cfg(feature = "spill")]
pub use settings::{Spill, SpillFallback};
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;
pub use tokio_tungstenite;
pub use ws::ControlMessage;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use ws::fuzzed as inflate;

/// The program of the package's page is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
