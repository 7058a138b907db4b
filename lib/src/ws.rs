//! The one file that names tungstenite.

use tokio_tungstenite::tungstenite::handshake;

/// A fresh `Sec-WebSocket-Key` (RFC 6455 section 4.1, item 7).
pub(crate) fn new_key() -> String {
    handshake::client::generate_key()
}

/// The `Sec-WebSocket-Accept` that answers `key` (RFC 6455 section 4.2.2, item 5.4).
pub(crate) fn accept_key(key: &[u8]) -> String {
    handshake::derive_accept_key(key)
}
