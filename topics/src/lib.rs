//! Topics: logs with names and positions, over WebSocket.

mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod defaults;
#[cfg(feature = "embedded")]
mod embedded;
mod limits;
mod memory;
mod publishers;
pub mod store;

#[cfg(feature = "embedded")]
pub use embedded::{Embedded, OpenError};
pub use limits::Limits;
pub use memory::Memory;
