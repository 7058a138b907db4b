//! Topics: logs with names and positions, over WebSocket.

mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod defaults;
#[cfg(feature = "jetstream")]
pub mod jetstream;
mod limits;
mod memory;
mod publishers;
pub mod store;

pub use limits::Limits;
pub use memory::Memory;
