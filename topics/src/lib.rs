//! Topics: logs with names and positions, over WebSocket.

#[cfg(feature = "jetstream")]
pub mod jetstream;
pub mod store;
