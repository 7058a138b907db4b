//! Topics: logs with names and positions, over WebSocket.

pub mod store;
