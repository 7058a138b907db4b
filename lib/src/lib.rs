//! WebSocket streams that never stall.

mod kernel;

pub use kernel::{TcpAccount, TcpState, TcpTimer};
