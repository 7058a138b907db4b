//! Why a connection could not be made.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::defaults;

/// Why a connection could not be made, who is to blame, and whether to try again.
///
/// Every message says who did what and what to do next. [`ConnectError::is_retryable`] tells
/// whether the same attempt may succeed later; a reconnecting client asks it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be dialed. Correct it; no retry can mend it.
    #[error("the URL {url} cannot be dialed: {why}")]
    Url {
        /// The URL as given, without its password.
        url: String,
        /// What is wrong with it.
        why: String,
    },

    /// A request header is not valid, or is one that the handshake sets itself.
    #[error("the request header {name:?} cannot be sent: {why}")]
    Header {
        /// The header's name as given.
        name: String,
        /// What is wrong with it.
        why: String,
    },

    /// The application's own function for the request headers failed. Worth a retry: such a
    /// function asks a token service, which may be back soon.
    #[error("the function that supplies the request headers failed: {0}")]
    HeaderFunction(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// The deadline over all of connecting passed. The phase says who kept us waiting.
    #[error("connecting took longer than {}; {}", Seconds(.after), .phase.waiting_for())]
    Timeout {
        /// What was being waited for when the deadline passed.
        phase: ConnectPhase,
        /// The deadline, counted from the start of the attempt.
        after: Duration,
    },

    /// The host's name could not be resolved. Retryable: a resolver gives the same answer when it
    /// cannot be reached.
    #[error("the name {host} could not be resolved: {source}; check the spelling and the resolver")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },

    /// No TCP connection to the host (or to the proxy) came about.
    #[error("no TCP connection to {to}: {source}; check that it listens there and is reachable")]
    Tcp {
        /// Host and port.
        to: String,
        /// What the operating system said of the last address tried.
        source: io::Error,
    },

    /// The proxy refused or failed.
    #[error("the proxy {proxy} did not connect us to {to}: {why}")]
    Proxy {
        /// The proxy's URL without its password.
        proxy: String,
        /// Host and port that it was asked for.
        to: String,
        /// What it did.
        why: String,
        /// Whether its state, rather than our credentials or its rules, is the reason.
        retryable: bool,
    },

    /// The TLS handshake failed.
    #[error("TLS with {host} failed: {source}; {}", tls_advice(.source))]
    Tls {
        /// The server's name as it was checked against the certificate.
        host: String,
        /// A [`rustls::Error`](tokio_rustls::rustls::Error) inside, or an error of the socket.
        source: io::Error,
    },

    /// The connection broke while the HTTP upgrade was under way.
    #[error("{host} ended the connection during the WebSocket handshake: {source}")]
    Interrupted {
        /// Host and port.
        host: String,
        /// What HTTP said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// What answered does not speak WebSocket as RFC 6455 section 4.1 demands.
    #[error(
        "{host} did not complete the WebSocket handshake: {why}; check the URL and the proxies in between"
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
        /// The beginning of the body, at most 1 KiB, bytes that are not UTF-8 replaced.
        body: String,
        /// What `Retry-After` asks for, both its forms understood, at most a day.
        retry_after: Option<Duration>,
        /// Where a redirect points. Redirects are not followed: dial the new URL.
        location: Option<String>,
    },

    /// The server agreed to none of the subprotocols that were offered, or chose one that was not
    /// (RFC 6455 section 4.1).
    #[error(
        "the server {}; offered were {offered:?}: ask its operator which it speaks",
        match .chosen {
            Some(chosen) => format!("chose the subprotocol {chosen:?}"),
            None => "agreed to no subprotocol".to_owned(),
        }
    )]
    Subprotocol {
        /// What was offered, in the order of preference.
        offered: Vec<String>,
        /// What the server chose, if anything.
        chosen: Option<String>,
    },
}

/// The steps of connecting, in their order; one deadline spans them all.
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
                "the function that supplies the request headers had not returned"
            }
            ConnectPhase::Dns => "the name was still being resolved: check the resolver",
            ConnectPhase::Tcp => {
                "no TCP connection came about: check the address, routes and firewalls"
            }
            ConnectPhase::Proxy => "the proxy had not answered: check the proxy",
            ConnectPhase::Tls => "the TLS handshake was not done: check that the port speaks TLS",
            ConnectPhase::Upgrade => {
                "the server took the connection and had not answered the upgrade request: it hangs or is overloaded"
            }
        }
    }
}

impl ConnectError {
    /// Whether the same attempt may succeed later without anyone changing the configuration.
    ///
    /// Yes: deadlines, name resolution, TCP, broken connections, status 408, 425, 429 and 5xx, a
    /// proxy in trouble. No: a bad URL or header, a certificate that does not verify, any other
    /// status (401, 403, 404, …), a wrong subprotocol, something that is not a WebSocket server.
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
            // An error of TLS itself repeats; one of the socket below does not.
            ConnectError::Tls { source, .. } => rustls_error(source).is_none(),
            ConnectError::Refused { status, .. } => is_retryable_status(*status),
        }
    }

    /// How long the server asked to be left alone, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ConnectError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Statuses that describe a moment and not the request (RFC 9110 section 15, RFC 6585 section 4).
pub(crate) fn is_retryable_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// `Retry-After` in either of its forms (RFC 9110 section 10.2.3), never above the limit.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Digits beyond u64 mean "very long", which the limit cuts.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        at.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(asked.min(defaults::RETRY_AFTER_MAX))
}

/// The error of TLS itself inside an I/O error.
fn rustls_error(error: &io::Error) -> Option<&tokio_rustls::rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_advice(error: &io::Error) -> &'static str {
    use tokio_rustls::rustls::Error;
    match rustls_error(error) {
        Some(Error::InvalidCertificate(_)) => {
            "the certificate was not accepted: check its names, dates and issuer, or supply the roots that signed it"
        }
        Some(Error::InvalidMessage(_)) => "the port may not speak TLS: try ws:// or another port",
        Some(Error::AlertReceived(_)) => "the server refused the handshake: see its log",
        Some(_) => "check both ends' TLS configuration",
        None => "the connection broke; trying again may help",
    }
}

fn refusal(
    status: &StatusCode,
    body: &str,
    retry_after: &Option<Duration>,
    location: &Option<String>,
) -> String {
    let mut text = format!("the server refused the WebSocket upgrade with {status}");
    if let Some(location) = location {
        text += &format!(", pointing to {location}");
    }
    match body.lines().next().map(str::trim) {
        None | Some("") => {}
        Some(line) => text += &format!(": {line}"),
    }
    match (status.as_u16(), retry_after) {
        (_, Some(wait)) => text += &format!("; it asks to wait {}", Seconds(wait)),
        (401 | 403, _) => text += "; check the credentials and the Origin",
        (404 | 405 | 410 | 426, _) => text += "; check the URL's path",
        (300..=399, _) => text += "; dial the new URL, redirects are not followed",
        (200..=299, _) => text += "; check the URL: this is no WebSocket endpoint",
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
            Some(defaults::RETRY_AFTER_MAX)
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
