//! The session protocol `unstall.v1`, as a value.
//!
//! A [`Session`] delivers messages between two endpoints, once and in order, over any number of
//! connections, with bounded memory on both sides. It does no I/O, and has no clock, task,
//! randomness or waker. The caller tells it what happened, and asks it what to do. SPEC.md
//! describes the protocol on the wire.
//!
//! # The run loop
//! Something happens: a packet arrives, the application sends or takes a message, or a timer fires.
//! Tell the session, and then poll it for what to do. This is a whole client and a whole server:
//!
//! ```
//! use std::{num::NonZeroU64, time::Duration};
//! use unstall_proto::{
//!     CloseFrame, Config, Epoch, Event, Hello, Incoming, Session, SessionId, Time, Token,
//! };
//!
//! // Random bytes and the time are the caller's.
//! let mut now = Time::ORIGIN;
//! let mut client = Session::client(Config::new(), SessionId([1; 16]), Token([2; 16]));
//!
//! // The client has connected: HELLO goes out, and the server answers.
//! let on_client = client.attach(now).unwrap();
//! let packet = client.poll_transmit(now, on_client).unwrap();
//! let hello = Hello::from_packet(packet)?;
//! let epoch = Epoch(NonZeroU64::new(7).unwrap());
//! let (mut server, on_server) =
//!     Session::server(Config::new(), &hello, epoch, Token([3; 16]))?;
//!
//! client.send("how many?")?;
//! let mut received = Vec::new();
//! while !(client.is_over() && server.is_over()) {
//!     // 1. Send what there is to send.
//!     while let Some(packet) = server.poll_transmit(now, on_server) {
//!         client.handle_packet(now, on_client, packet)?;
//!     }
//!     while let Some(packet) = client.poll_transmit(now, on_client) {
//!         server.handle_packet(now, on_server, packet)?;
//!     }
//!     // 2. Hand messages to the application, and report what it has taken.
//!     while let Some(incoming) = server.recv() {
//!         if let Incoming::Messages(batch) = incoming {
//!             let end = batch.end();
//!             for message in batch {
//!                 server.send(&b"three"[..])?;
//!                 received.push(message.as_text().unwrap().to_owned());
//!             }
//!             server.taken(now, end);
//!         }
//!     }
//!     while let Some(Incoming::Messages(batch)) = client.recv() {
//!         client.taken(now, batch.end());
//!         client.close(now, CloseFrame::new(1000, "thanks"), Duration::from_secs(5));
//!     }
//!     // 3. See what happened.
//!     while let Some(event) = client.poll_event() {
//!         if let Event::Ended(reason) = event {
//!             println!("ended: {reason:?}");
//!         }
//!     }
//!     // 4. Sleep until a packet comes, the application calls, or the next timer is due.
//!     if let Some(at) = client.poll_timeout().into_iter().chain(server.poll_timeout()).min() {
//!         now = at;
//!         client.handle_timeout(now);
//!         server.handle_timeout(now);
//!     }
//! }
//! assert_eq!(received, ["how many?"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! When a connection is lost, call [`Session::detach`]. A client then calls [`Session::attach`]
//! with the next connection. The server finds the session by [`Hello::id`] and calls
//! [`Session::resume`].
//!
//! # The end
//! [`Event::Ended`] says that the session has ended: tell the application. Then keep the session,
//! with its connection and its timers, until [`Session::is_over`]: the peer may still have to learn
//! that all its messages were delivered.
//!
//! # Two threads
//! Receiving a message and taking it are two steps, so the application may run on another thread
//! than the connection. [`Session::recv`] hands over whole packets as [`Batch`]es, and the
//! application's thread reads the messages. One [`Position`] then reports many messages to
//! [`Session::taken`]. In the other direction, the application's thread encodes messages into
//! [`Records`], and [`Session::send_records`] accepts them at once. Only these calls need the
//! session.

mod ack;
mod connection;
mod credit;
mod error;
mod event;
mod inbox;
mod kept;
pub mod limits;
mod message;
mod number;
mod outbox;
mod packet;
mod payload;
mod ping;
mod record;
mod records;
mod resume;
mod session;
mod state;
mod stats;
mod time;
mod timer;
pub mod topics;
mod transmit;
mod undelivered;
#[doc(hidden)]
pub mod util;
mod varint;
mod wire;

pub use error::{ErrorCode, ProtocolError};
pub use event::{EndReason, Event, Incoming};
pub use limits::{Acknowledge, AnswerClose, BEARER_PREFIX, Config, MAX_BEARER_BYTES, SUBPROTOCOL};
pub use message::{Batch, Message, MessageRef};
pub use number::{Generation, Offset, Position, Seq};
pub use packet::{CloseFrame, Packet};
pub use payload::{Kind, Payload};
pub use record::Record;
pub use records::Records;
pub use resume::{Epoch, Hello, Rejection, SessionId, Token, Welcome};
pub use session::{HandleError, SendError, Session, Side};
pub use stats::{Counters, Stats, Wait};
pub use time::Time;
pub use transmit::Transmit;
pub use undelivered::{Fate, Undelivered, UndeliveredMessage};
