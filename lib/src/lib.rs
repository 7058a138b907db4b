//! WebSocket streams that never stall.

mod connect_error;
mod defaults;
mod dial;
mod handshake;
mod proxy;
mod tls;
mod transport;
mod ws;

pub use connect_error::{ConnectError, ConnectPhase};
pub use handshake::Rejection;
pub use tls::client_config_from_pem;
pub use tokio_rustls::rustls;
