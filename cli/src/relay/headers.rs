//! Which headers pass from a request to the request upstream, and from the answer back.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use unstall::PeerAddr;

/// Headers that are for one connection only (RFC 9110 section 7.6.1), and those that each handshake
/// sets by itself (RFC 6455 section 4).
const OF_ONE_HOP: [HeaderName; 16] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_ACCEPT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("unstall-hello"),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The headers that pass: all but those of one hop, and those that `Connection` names.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    let named = headers.get_all(header::CONNECTION).iter();
    let named = named.filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|value| value.split(',')) {
        passed.remove(name.trim());
    }
    for name in OF_ONE_HOP {
        passed.remove(name);
    }
    passed
}

/// Says who the client is, as reverse proxies do. What a client says of itself does not pass: only what
/// a trusted proxy says.
pub(super) fn tell_client(headers: &mut HeaderMap, peer: Option<PeerAddr>, secure: bool) {
    let proxy = peer.and_then(|peer| peer.proxy);
    if proxy.is_none() {
        for name in [&X_FORWARDED_FOR, &X_FORWARDED_HOST, &X_FORWARDED_PROTO] {
            headers.remove(name);
        }
        headers.remove(header::FORWARDED);
    }
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    let scheme = HeaderValue::from_static(if secure { "https" } else { "http" });
    headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
    // A trusted proxy has named the client already: the proxy itself is the next in the list.
    let Some(last) = proxy.or(peer.map(|peer| peer.client)) else {
        return;
    };
    if let Ok(value) = HeaderValue::try_from(with_address(headers, last.ip().to_canonical())) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn with_address(headers: &HeaderMap, address: IpAddr) -> String {
    let values = headers.get_all(&X_FORWARDED_FOR).iter();
    let mut list: Vec<_> = values
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    list.push(address.to_string());
    list.join(", ")
}

/// Replaces the headers of the same names.
pub(super) fn replace(headers: &mut HeaderMap, by: HeaderMap) {
    // All values of a name are replaced together: `extend` keeps those that come together.
    headers.extend(by);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_static(name);
            map.append(name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn headers_of_one_hop_stay() {
        let headers = map(&[
            ("connection", "Upgrade, X-Hop"),
            ("connection", "x-other"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-protocol", "p"),
            ("unstall-hello", "h"),
            ("proxy-authorization", "a"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("authorization", "Bearer x"),
            ("origin", "https://app.example"),
            ("x-own", "1"),
        ]);
        let expected = map(&[
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("authorization", "Bearer x"),
            ("origin", "https://app.example"),
            ("x-own", "1"),
        ]);
        assert_eq!(end_to_end(&headers), expected);
    }

    #[test]
    fn replaced_headers_have_the_new_values_only() {
        let mut headers = map(&[("a", "1"), ("a", "2"), ("b", "3")]);
        replace(&mut headers, map(&[("a", "4"), ("a", "5")]));
        assert_eq!(headers, map(&[("b", "3"), ("a", "4"), ("a", "5")]));
    }
}
