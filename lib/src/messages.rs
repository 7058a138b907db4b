//! The messages that the application sends, receives and gets back.

mod incoming;
mod into_message;
mod message;
mod position;
mod returned;

pub use incoming::{Gap, Incoming, IncomingRef};
pub(crate) use into_message::Borrowed;
pub use into_message::IntoMessage;
pub(crate) use message::kind;
pub use message::{Message, MessageRef};
pub use position::Position;
pub(crate) use position::SessionNumber;
pub use returned::{CloseReport, SendError, SendRefusal, TrySendError, Undelivered};
