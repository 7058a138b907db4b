//! Why a connection could not be made.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::{Brief, RedactedUrl};
use crate::time::granted;

/// Why a connection could not be made.
///
/// The text says who did what, and what to do next. The cause below it, such as the operating
/// system's error, is the [`source`](std::error::Error::source) and not a part of the text.
/// [`is_retryable`](ConnectError::is_retryable) tells whether the same attempt may succeed later; a
/// client that reconnects asks it. Texts contain no secrets: URLs are shown
/// [without them](RedactedUrl), and a peer's words are [made printable](crate::printable).
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

    /// A request header is not valid, or the handshake sets it itself. Correct it; no retry can
    /// succeed.
    #[error("the request header {name:?} cannot be sent: {why}")]
    Header {
        /// The header's name, up to the first character that a name must not have.
        name: String,
        /// What is wrong with it.
        why: String,
    },

    /// The application's own function for the request headers failed. Retryable: such a function
    /// asks a token service, which may be back soon.
    #[error("the function that supplies the request headers failed")]
    HeaderFunction(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// Connecting took longer than its timeout, which covers all steps.
    #[error("connecting took longer than {}: {}", Seconds(.after), .phase.waiting_for())]
    Timeout {
        /// The step that was not done in time.
        phase: ConnectPhase,
        /// The timeout, counted from the start of the attempt.
        after: Duration,
    },

    /// The host's name could not be resolved. Retryable: a resolver that cannot be reached gives
    /// the same answer as for a wrong name.
    #[error("the name {host} could not be resolved (check its spelling and the resolver)")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver answered.
        source: io::Error,
    },

    /// No TCP connection to the host, or to the proxy, could be made.
    #[error("no TCP connection to {to} (check that a server listens there and can be reached)")]
    Tcp {
        /// Host and port.
        to: String,
        /// The operating system's error for the last address that was tried.
        source: io::Error,
    },

    /// The proxy refused or failed.
    #[error("the proxy {proxy} did not connect to {to}: {why}")]
    Proxy {
        /// The proxy's URL.
        proxy: RedactedUrl,
        /// Host and port that it was asked for.
        to: String,
        /// What it did.
        why: String,
        /// Whether a later attempt may succeed: false if the proxy wants other credentials, or its
        /// rules forbid this host.
        retryable: bool,
    },

    /// The TLS handshake failed.
    #[error("the TLS handshake with {host} failed ({})", tls_advice(.source))]
    Tls {
        /// The server's name as it was checked against the certificate.
        host: String,
        /// A [`rustls::Error`](tokio_rustls::rustls::Error) inside, or an error of the socket.
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

    /// The server's answer is not that of a WebSocket server (RFC 6455 section 4.1).
    #[error(
        "{host} did not complete the WebSocket handshake: {why}; check the URL, and proxies on \
         the way"
    )]
    NotWebSocket {
        /// Host and port.
        host: String,
        /// What was wrong with its answer.
        why: String,
    },

    /// The server answered the upgrade request with another status than 101.
    #[error("{}", refusal(.status, .body, .retry_after, .location))]
    Refused {
        /// The status.
        status: StatusCode,
        /// The beginning of the body as the server sent it, at most 1 KiB. Bytes that are not UTF-8
        /// are replaced.
        body: String,
        /// How long the server asks to wait, from either form of `Retry-After`. At most
        /// [`RETRY_AFTER_MAX`](crate::defaults::RETRY_AFTER_MAX).
        retry_after: Option<Duration>,
        /// Where a redirect points. Redirects are not followed: dial the new URL.
        location: Option<RedactedUrl>,
    },

    /// The server agreed to none of the subprotocols that were offered, or chose another one (RFC
    /// 6455 section 4.1).
    #[error(
        "the server {}; this client offered {offered:?}: ask the server's operator which it speaks",
        match .chosen {
            Some(chosen) => format!("chose the subprotocol \"{}\"", Brief(chosen)),
            None => "agreed to no subprotocol".to_owned(),
        }
    )]
    Subprotocol {
        /// What was offered, the preferred one first.
        offered: Vec<String>,
        /// What the server chose, if anything.
        chosen: Option<String>,
    },
}

/// The steps of connecting, in their order. One timeout covers them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectPhase {
    /// The application's function that supplies the request headers.
    Headers,
    /// Resolving the name of the host or of the proxy.
    Dns,
    /// The TCP connection to the host or to the proxy.
    Tcp,
    /// The proxy's answer.
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
            ConnectPhase::Dns => "the name was not resolved; check the resolver",
            ConnectPhase::Tcp => {
                "no TCP connection was made; check the address, the routes and the firewalls"
            }
            ConnectPhase::Proxy => "the proxy did not answer; check the proxy",
            ConnectPhase::Tls => {
                "the TLS handshake was not completed; check that the port speaks TLS"
            }
            ConnectPhase::Upgrade => {
                "the server accepted the connection and did not answer the upgrade request; \
                 it hangs or is overloaded"
            }
        }
    }
}

impl ConnectError {
    /// Whether the same attempt may succeed later without anyone changing the configuration.
    ///
    /// Yes: timeouts, name resolution, TCP, lost connections, the status codes 408, 425, 429 and
    /// 5xx, a proxy that cannot reach the host. No: an invalid URL or header, a certificate that is
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
            | ConnectError::Interrupted { .. } => true,
            ConnectError::Proxy { retryable, .. } => *retryable,
            // An error of TLS itself comes again. One of the socket below may not.
            ConnectError::Tls { source, .. } => rustls_error(source).is_none(),
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

/// Status codes that blame the moment and not the request (RFC 9110 section 15, RFC 6585 section 4).
pub(crate) fn is_retryable_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// `Retry-After` in either of its forms (RFC 9110 section 10.2.3), as far as it is granted.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number beyond u64 means "very long", and is cut below.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        at.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(granted(asked))
}

/// The error of TLS itself inside an I/O error.
fn rustls_error(error: &io::Error) -> Option<&tokio_rustls::rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_advice(error: &io::Error) -> &'static str {
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
        None => "the connection was lost: trying again may help",
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
        (300..=399, _) => text += "; redirects are not followed: dial the new URL",
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
