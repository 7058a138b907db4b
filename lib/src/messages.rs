//! The messages that the application sends, receives and gets back.

mod incoming;
mod message;
mod position;
mod returned;

pub use incoming::{Gap, Incoming, IncomingRef};
pub(crate) use message::kind;
pub use message::{IntoMessage, Message, MessageRef};
pub use position::Position;
pub(crate) use position::SessionNumber;
pub use returned::{CloseReport, SendError, SendRefusal, TrySendError, Undelivered};
