//! Why a connection could not be made.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use unstall_proto::BEARER_PREFIX;

use super::{Brief, ProxyError, RedactedUrl};
use crate::defaults::SUBPROTOCOL_CHARS;
use crate::time::granted;

/// Why a connection could not be made.
///
/// The text says what failed, why, and what to do. The underlying cause, such as the operating
/// system's error, is the [`source`](std::error::Error::source) and not a part of the text.
/// [`is_retryable`](ConnectError::is_retryable) says whether a later attempt may succeed. Texts
/// contain no secrets: URLs are shown [without them](RedactedUrl), and text from a peer is [made
/// printable](crate::printable).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be dialed. Correct it; no retry can succeed.
    #[error("the URL {url} cannot be dialed: {why}")]
    Url {
        /// The URL as given.
        url: RedactedUrl,
        /// What is wrong with it.
        why: String,
    },

    /// A request header is not valid, or it is one that the handshake sets. Correct it; no retry
    /// can succeed.
    #[error("the request header {name:?} cannot be sent: {why}")]
    Header {
        /// The header's name, up to the first character that a name must not have.
        name: String,
        /// What is wrong with it.
        why: String,
    },

    /// The application's function for the request headers failed. Retryable: it may depend on a
    /// token service that is down for a moment.
    #[error("the function that supplies the request headers failed")]
    HeaderFunction(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// Connecting took longer than its timeout, which covers all steps.
    #[error("connecting took longer than {}: {}", Seconds(.after), .phase.waiting_for())]
    Timeout {
        /// The step that did not finish in time.
        phase: ConnectPhase,
        /// The timeout, counted from the start of the attempt.
        after: Duration,
    },

    /// The host's name could not be resolved. Retryable: the error is the same when the resolver
    /// cannot be reached.
    #[error("the name {host} could not be resolved (check its spelling and the DNS server)")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver answered.
        source: io::Error,
    },

    /// No TCP connection to the host could be made.
    #[error("no TCP connection to {to} (check that a server listens there and can be reached)")]
    Tcp {
        /// Host and port.
        to: String,
        /// The operating system's error for the last address that was tried.
        source: io::Error,
    },

    /// The application's [connector](crate::Client::connector) failed. Retryable.
    #[error("the connector made no connection to {to}")]
    Connector {
        /// Host and port.
        to: String,
        /// The error of the connector.
        source: io::Error,
    },

    /// The proxy refused or failed, or could not be reached.
    #[error("the proxy {proxy}{} did not connect to {to}: {why}", from_variable(.variable))]
    Proxy {
        /// The proxy's URL.
        proxy: RedactedUrl,
        /// The environment variable that names the proxy; `None` if the application does.
        variable: Option<&'static str>,
        /// The host and port of the server.
        to: String,
        /// The proxy's answer, or what failed. It says whether a later attempt may succeed.
        why: ProxyError,
    },

    /// The TLS handshake failed, or the server refused it afterwards, such as a client's certificate.
    #[error("the TLS handshake with {host} failed ({})", tls_advice(.source))]
    Tls {
        /// The server's name, which the certificate must match.
        host: String,
        /// It contains a `rustls::Error`, or it is an error of the socket.
        source: io::Error,
    },

    /// The connection was lost during the HTTP upgrade.
    #[error("the connection to {host} was lost during the WebSocket handshake")]
    Interrupted {
        /// Host and port.
        host: String,
        /// The error of the HTTP client.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The server's answer breaks the rules of the handshake (RFC 6455 section 4.1).
    #[error(
        "{host} did not complete the WebSocket handshake: {why}; check the URL, and any proxies in between"
    )]
    NotWebSocket {
        /// Host and port.
        host: String,
        /// What is wrong with its answer.
        why: String,
    },

    /// The server answered the upgrade request with a status other than 101.
    #[error("{}", refusal(.status, .body, .retry_after, .location))]
    Refused {
        /// The status.
        status: StatusCode,
        /// The beginning of the body as the server sent it, at most 1 KiB. Bytes that are not UTF-8
        /// are replaced. So is a query, a password or the value of a header that the server repeats.
        body: String,
        /// How long the server asks to wait, from `Retry-After`. At most
        /// [`RETRY_AFTER_MAX`](crate::defaults::RETRY_AFTER_MAX).
        retry_after: Option<Duration>,
        /// The headers of the answer, such as `WWW-Authenticate`. All of them are marked as sensitive,
        /// so that `Debug` does not show them.
        headers: Box<HeaderMap>,
        /// The target of a redirect. Redirects are not followed: connect to the new URL.
        location: Option<RedactedUrl>,
    },

    /// The server agreed to none of the subprotocols that were offered, or chose another one (RFC
    /// 6455 section 4.1).
    #[error(
        "the server {}; this client offered {offered:?}: check which subprotocols the server supports",
        match .chosen {
            Some(chosen) => format!("chose the subprotocol \"{}\"", Brief(chosen)),
            None => "agreed to no subprotocol".to_owned(),
        }
    )]
    Subprotocol {
        /// What was offered, the preferred one first. Names are cut to 32 characters, because some
        /// clients put a token into this list.
        offered: Vec<String>,
        /// What the server chose, if anything. It is cut as well.
        chosen: Option<String>,
    },
}

/// The steps of connecting, in order. One timeout covers them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectPhase {
    /// Calling the application's function for the request headers.
    Headers,
    /// Resolving the name of the host.
    Dns,
    /// Connecting by TCP to the host.
    Tcp,
    /// Waiting for the application's [connector](crate::Client::connector).
    Connector,
    /// Reaching the proxy, and waiting for its answer.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The HTTP upgrade.
    Upgrade,
}

impl ConnectPhase {
    fn waiting_for(self) -> &'static str {
        match self {
            ConnectPhase::Headers => {
                "the function that supplies the request headers did not return"
            }
            ConnectPhase::Dns => "the name was not resolved; check the DNS server",
            ConnectPhase::Tcp => {
                "no TCP connection was made; check the address, the routes and the firewalls"
            }
            ConnectPhase::Connector => "the application's connector did not return",
            ConnectPhase::Proxy => {
                "the proxy did not answer; check the proxy, and HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            }
            ConnectPhase::Tls => {
                "the TLS handshake was not completed; check that the port speaks TLS"
            }
            ConnectPhase::Upgrade => {
                "the server accepted the TCP connection but did not answer the upgrade request; it may hang or be overloaded"
            }
        }
    }
}

/// A subprotocol's name, cut so that a token in its place is not told.
pub(crate) fn cut_name(name: &str) -> String {
    if name.starts_with(BEARER_PREFIX) {
        return format!("{BEARER_PREFIX}…");
    }
    match name.char_indices().nth(SUBPROTOCOL_CHARS) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

impl ConnectError {
    pub(crate) fn subprotocol(offered: &[String], chosen: Option<&str>) -> ConnectError {
        ConnectError::Subprotocol {
            offered: offered.iter().map(|name| cut_name(name)).collect(),
            chosen: chosen.map(cut_name),
        }
    }

    /// Whether a later attempt may succeed with the same configuration.
    ///
    /// Yes: timeouts, name resolution, TCP, connectors, lost connections, the status codes 408, 425, 429 and
    /// 5xx, a proxy that cannot reach the host ([`ProxyError`]). No: an invalid URL or header, a certificate that is
    /// not accepted, any other status (401, 403, 404, …), a wrong subprotocol, a server that does
    /// not speak WebSocket.
    pub fn is_retryable(&self) -> bool {
        match self {
            ConnectError::Url { .. }
            | ConnectError::Header { .. }
            | ConnectError::NotWebSocket { .. }
            | ConnectError::Subprotocol { .. } => false,
            ConnectError::HeaderFunction(_)
            | ConnectError::Timeout { .. }
            | ConnectError::Dns { .. }
            | ConnectError::Tcp { .. }
            | ConnectError::Connector { .. }
            | ConnectError::Interrupted { .. } => true,
            ConnectError::Proxy { why, .. } => why.is_retryable(),
            ConnectError::Tls { source, .. } => is_retryable_tls(source),
            ConnectError::Refused { status, .. } => is_retryable_status(*status),
        }
    }

    /// How long the server asked to wait before the next attempt, if it did. At most
    /// [`RETRY_AFTER_MAX`](crate::defaults::RETRY_AFTER_MAX).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ConnectError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The headers of an answer, with values that `Debug` does not show. They have their own memory.
pub(crate) fn hidden(headers: &HeaderMap) -> HeaderMap {
    let mut hidden = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        copy.set_sensitive(true);
        hidden.append(name, copy);
    }
    hidden
}

/// Status codes of conditions that may pass (RFC 9110 section 15, RFC 6585 section 4).
pub(crate) fn is_retryable_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// The wait in `Retry-After`, in either of its forms (RFC 9110 section 10.2.3), cut to the longest
/// that is accepted.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number too large for u64 is cut below.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        at.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(granted(asked))
}

/// The rustls error inside an I/O error, if there is one.
#[cfg(feature = "tls")]
fn rustls_error(error: &io::Error) -> Option<&tokio_rustls::rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The error of TLS below an error of HTTP, if that is the cause. In TLS 1.3 a server refuses a client's
/// certificate only after the client's handshake is done.
#[cfg(feature = "tls")]
pub(crate) fn tls_failure(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut errors = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.find_map(|error| Some(io::Error::new(error.kind(), rustls_error(error)?.clone())))
}

#[cfg(not(feature = "tls"))]
pub(crate) fn tls_failure(_: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    None
}

/// An error of TLS itself will occur again. One of the socket may not.
#[cfg(feature = "tls")]
pub(crate) fn is_retryable_tls(error: &io::Error) -> bool {
    rustls_error(error).is_none()
}

#[cfg(not(feature = "tls"))]
pub(crate) fn is_retryable_tls(_: &io::Error) -> bool {
    false
}

#[cfg(not(feature = "tls"))]
pub(crate) fn tls_advice(_: &io::Error) -> &'static str {
    "enable the feature `tls` of unstall"
}

#[cfg(feature = "tls")]
pub(crate) fn tls_advice(error: &io::Error) -> &'static str {
    use tokio_rustls::rustls::Error;
    match rustls_error(error) {
        Some(Error::InvalidCertificate(_)) => {
            "the certificate was not accepted: check its names, its dates and its issuer, or trust \
             the issuer's root"
        }
        Some(Error::InvalidMessage(_)) => {
            "the port may not speak TLS: check the port, or use ws://"
        }
        Some(Error::AlertReceived(_)) => "the server refused it: see the server's log",
        Some(_) => "check the TLS configuration of both sides",
        None => "the connection was lost: try again",
    }
}

fn from_variable(variable: &Option<&'static str>) -> String {
    match variable {
        Some(name) => format!(" (from the environment variable {name})"),
        None => String::new(),
    }
}

fn refusal(
    status: &StatusCode,
    body: &str,
    retry_after: &Option<Duration>,
    location: &Option<RedactedUrl>,
) -> String {
    let mut text = format!("the server refused the WebSocket upgrade with {status}");
    if let Some(location) = location {
        text += &format!(", pointing to {location}");
    }
    let said = Brief(body);
    if !said.is_empty() {
        text += &format!(": {said}");
    }
    match (status.as_u16(), retry_after) {
        (_, Some(wait)) => text += &format!("; it asks to wait {}", Seconds(wait)),
        (401 | 403, _) => text += "; check the credentials and the Origin header",
        (404 | 405 | 410 | 426, _) => text += "; check the URL's path",
        (300..=399, _) => text += "; redirects are not followed: connect to the new URL",
        (200..=299, _) => text += "; there is no WebSocket at this URL: check it",
        _ => {}
    }
    text
}

struct Seconds<'a>(&'a Duration);

impl fmt::Display for Seconds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_millis() as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_understood_in_seconds_and_as_a_date() {
        assert_eq!(asking("7"), Some(Duration::from_secs(7)));
        let soon = SystemTime::now() + Duration::from_secs(100);
        let wait = asking(&httpdate::fmt_http_date(soon)).unwrap();
        assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(
            asking("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_senseless_retry_after_is_ignored_or_cut() {
        assert_eq!(asking("soon"), None);
        assert_eq!(asking("-1"), None);
        assert_eq!(
            asking("99999999999999999999999999"),
            Some(crate::defaults::RETRY_AFTER_MAX)
        );
    }

    #[test]
    fn statuses_that_pass_are_retried_and_others_are_not() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(
                is_retryable_status(StatusCode::from_u16(status).unwrap()),
                "{status}"
            );
        }
        for status in [200, 301, 400, 401, 403, 404, 407, 410, 426] {
            assert!(
                !is_retryable_status(StatusCode::from_u16(status).unwrap()),
                "{status}"
            );
        }
    }
}
