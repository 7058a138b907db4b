//! The handles by which the application holds a connection, and what they share with the pump.

mod connection;
mod delivery;
mod driver;
mod facts;
#[cfg(feature = "status")]
pub(crate) mod past;
mod receiver;
pub(crate) mod register;
mod reunite;
mod sender;
mod shared;
mod sink;
#[cfg(any(feature = "metrics", feature = "status"))]
pub(crate) mod sums;

pub use connection::Connection;
pub(crate) use connection::{TaskGuard, span};
pub(crate) use delivery::{Board, Sent};
pub(crate) use driver::Driver;
pub use receiver::{Batch, Receiver};
pub use reunite::ReuniteError;
pub use sender::Sender;
pub(crate) use shared::{CloseRequest, Identity, Shared};
pub use sink::MessageSink;
