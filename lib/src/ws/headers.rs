//! HTTP headers of a handshake, on both sides.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that a handshake of RFC 6455 sets itself, on either side. An application that set them would
/// break it.
const OF_HANDSHAKE: [HeaderName; 9] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_ACCEPT,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

/// The first of these headers that the handshake sets itself.
pub(crate) fn of_handshake(headers: &HeaderMap) -> Option<HeaderName> {
    let found = OF_HANDSHAKE.iter().find(|name| headers.contains_key(*name));
    found.cloned()
}

/// A copy of the headers that has its own memory. A received value is a slice of the buffer that the
/// whole head was read into, and keeps all of it.
pub(crate) fn copied(headers: &HeaderMap) -> HeaderMap {
    let mut own = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        copy.set_sensitive(value.is_sensitive());
        own.append(name, copy);
    }
    own
}

/// Whether the comma-separated lists of `name` contain `token`, whatever the case of its letters.
pub(crate) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

pub(crate) fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}
