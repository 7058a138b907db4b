//! Why a proxy did not connect to the server.

use std::fmt;
use std::io;

use http::StatusCode;

use super::Brief;
use super::connect_error::{is_retryable_status, is_retryable_tls, tls_advice};

/// Why a proxy did not connect to the server.
///
/// [`is_retryable`](ProxyError::is_retryable) says whether a later attempt may succeed. Texts contain
/// no secrets, and the words of the proxy are [made printable](crate::printable).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy's own name could not be resolved. Retryable.
    #[error("its name could not be resolved ({0}); check its spelling and the DNS server")]
    Dns(io::Error),

    /// The server's name could not be resolved for a `socks4://` proxy, which takes only IPv4
    /// addresses. Retryable.
    #[error("the server's name could not be resolved ({0}); with socks4a:// the proxy resolves it")]
    Name(io::Error),

    /// No TCP connection to the proxy could be made. Retryable.
    #[error("no TCP connection to it could be made ({0}); check that it runs and can be reached")]
    Tcp(io::Error),

    /// The TLS handshake with an `https://` proxy failed. Retryable only if the connection was lost.
    #[error("the TLS handshake with it failed ({error}); {}", tls_advice(.0), error = .0)]
    Tls(io::Error),

    /// The proxy ended the connection. Retryable.
    #[error("it ended the connection ({0})")]
    Lost(Box<dyn std::error::Error + Send + Sync>),

    /// An HTTP proxy refused `CONNECT`. Retryable with the status codes 408, 425, 429 and 5xx.
    #[error("{}", refusal(.status, .body))]
    Refused {
        /// The status.
        status: StatusCode,
        /// The beginning of the body as the proxy sent it, at most 1 KiB. Bytes that are not UTF-8
        /// are replaced.
        body: String,
    },

    /// A SOCKS proxy requires credentials, or refused these. Not retryable.
    #[error("it refused the credentials; check the user and the password in the proxy's URL")]
    Credentials,

    /// The rules of a SOCKS proxy forbid this host or port. Not retryable.
    #[error("its rules forbid this host or port")]
    Forbidden,

    /// A SOCKS proxy could not reach the server. Retryable.
    #[error("it could not reach the server ({0})")]
    Unreachable(String),

    /// The proxy does not speak the protocol that its URL names. Not retryable.
    #[error("it does not speak the protocol of its URL ({0}); check the scheme and the port")]
    Protocol(String),
}

impl ProxyError {
    /// Whether a later attempt may succeed with the same configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            ProxyError::Dns(_)
            | ProxyError::Name(_)
            | ProxyError::Tcp(_)
            | ProxyError::Lost(_)
            | ProxyError::Unreachable(_) => true,
            ProxyError::Tls(error) => is_retryable_tls(error),
            ProxyError::Refused { status, .. } => is_retryable_status(*status),
            ProxyError::Credentials | ProxyError::Forbidden | ProxyError::Protocol(_) => false,
        }
    }

    pub(crate) fn protocol(why: impl fmt::Display) -> ProxyError {
        ProxyError::Protocol(why.to_string())
    }
}

fn refusal(status: &StatusCode, body: &str) -> String {
    let advice = match status.as_u16() {
        407 => "; put the user and the password into the proxy's URL",
        403 => "; its rules forbid this host or port",
        _ => "",
    };
    match Brief(body) {
        said if said.is_empty() => format!("it answered {status}{advice}"),
        said => format!("it answered {status}: {said}{advice}"),
    }
}
