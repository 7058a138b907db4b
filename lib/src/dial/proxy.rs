//! Reaching the server through an HTTP or a SOCKS5 proxy.

use std::fmt;
use std::io;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

use crate::dial::exchange::{Answer, exchange};
use crate::dial::target::{Authority, Target, basic};
use crate::reports::{Brief, ConnectError, RedactedUrl, connect_error::is_retryable_status};

/// A proxy between this client and the server. Both kinds resolve the server's name themselves.
#[derive(Clone)]
pub(crate) struct Proxy {
    kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    credentials: Option<(String, String)>,
    url: RedactedUrl,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `CONNECT` (RFC 9110 section 9.3.6), for `ws` and `wss` alike (RFC 6455 section 4.1).
    Http,
    /// RFC 1928, with the credentials of RFC 1929.
    Socks5,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.url).finish()
    }
}

impl Proxy {
    /// Parses `http://`, `socks5://` or `socks5h://`, with `user:password@` if the proxy needs
    /// credentials.
    pub(crate) fn parse(url: &RedactedUrl) -> Result<Proxy, ConnectError> {
        let bad = |why| ConnectError::Url {
            url: url.clone(),
            why,
        };
        let Authority {
            scheme,
            credentials,
            host,
            port,
            ..
        } = Authority::parse(url.reveal(), "http:// or socks5://").map_err(bad)?;
        let (kind, own_port) = match scheme.as_str() {
            "http" => (Kind::Http, 80),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            _ => {
                return Err(bad(
                    "proxies of this kind are not supported: use http:// or socks5://".into(),
                ));
            }
        };
        // RFC 1929: each length is one byte, and neither may be empty.
        let fits = |text: &str| (1..=255).contains(&text.len());
        let fit = |(user, password): &(String, String)| fits(user) && fits(password);
        if matches!(kind, Kind::Socks5) && !credentials.as_ref().is_none_or(fit) {
            return Err(bad(
                "SOCKS5 needs a user name and a password of 1 to 255 bytes each".into(),
            ));
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.unwrap_or(own_port);
        Ok(Proxy {
            kind,
            host,
            port,
            credentials,
            url: url.clone(),
        })
    }

    /// Asks the proxy at the other end of `tcp` for a connection to `target`.
    pub(crate) async fn tunnel(
        &self,
        tcp: TcpStream,
        target: &Target,
    ) -> Result<TcpStream, ConnectError> {
        let tunnel = match self.kind {
            Kind::Http => self.connect(tcp, target).await,
            Kind::Socks5 => self.socks(tcp, target).await,
        };
        tunnel.map_err(|Failure { why, retryable }| ConnectError::Proxy {
            proxy: self.url.clone(),
            to: target.host_and_port(),
            why,
            retryable,
        })
    }

    async fn connect(&self, tcp: TcpStream, target: &Target) -> Result<TcpStream, Failure> {
        let to = target.host_and_port();
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::try_from(&to).map_err(Failure::permanent)?;
        let host = HeaderValue::try_from(&to).map_err(Failure::permanent)?;
        request.headers_mut().insert(header::HOST, host);
        if let Some((user, password)) = &self.credentials {
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, basic(user, password));
        }
        match exchange(tcp, request).await {
            Err(error) => Err(Failure::temporary(format_args!(
                "it ended the connection ({error})"
            ))),
            Ok(Answer::Switched(_, tcp, early)) if early.is_empty() => Ok(tcp),
            // TLS and HTTP both let the client speak first.
            Ok(Answer::Switched(..)) => {
                Err(Failure::permanent("it sent data before this client did"))
            }
            Ok(Answer::Refused(head, body)) => {
                let status = head.status();
                let advice = match status.as_u16() {
                    407 => "; put the user and the password into the proxy's URL",
                    403 => "; its rules forbid this host or port",
                    _ => "",
                };
                let said = match Brief(&body) {
                    line if line.is_empty() => String::new(),
                    line => format!(": {line}"),
                };
                Err(Failure {
                    why: format!("it answered {status}{said}{advice}"),
                    retryable: is_retryable_status(status),
                })
            }
        }
    }

    async fn socks(&self, tcp: TcpStream, target: &Target) -> Result<TcpStream, Failure> {
        let to = (target.host.as_str(), target.port);
        let stream = match &self.credentials {
            None => Socks5Stream::connect_with_socket(tcp, to).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(tcp, to, user, password).await
            }
        };
        stream.map(Socks5Stream::into_inner).map_err(Failure::from)
    }
}

/// Why a proxy did not connect to the server, and whether a later attempt may succeed.
struct Failure {
    why: String,
    retryable: bool,
}

impl Failure {
    fn temporary(why: impl fmt::Display) -> Failure {
        Failure {
            why: why.to_string(),
            retryable: true,
        }
    }

    fn permanent(why: impl fmt::Display) -> Failure {
        Failure {
            why: why.to_string(),
            retryable: false,
        }
    }
}

impl From<tokio_socks::Error> for Failure {
    fn from(error: tokio_socks::Error) -> Failure {
        use tokio_socks::Error;
        const CREDENTIALS: &str = "check the user and the password in the proxy's URL";
        match error {
            Error::NoAcceptableAuthMethods
            | Error::UnknownAuthMethod
            | Error::AuthorizationRequired
            | Error::InvalidAuthValues(_) => {
                Failure::permanent(format_args!("it requires other credentials; {CREDENTIALS}"))
            }
            Error::PasswordAuthFailure(_) => {
                Failure::permanent(format_args!("it refused the credentials; {CREDENTIALS}"))
            }
            Error::ConnectionNotAllowedByRuleset => {
                Failure::permanent("its rules forbid this host or port")
            }
            // A proxy that does not speak SOCKS5 correctly will not do so later.
            Error::InvalidResponseVersion
            | Error::InvalidReservedByte
            | Error::UnknownAddressType
            | Error::InvalidTargetAddress(_)
            | Error::CommandNotSupported
            | Error::AddressTypeNotSupported => {
                Failure::permanent(format_args!("it does not speak SOCKS5 correctly ({error})"))
            }
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Failure::temporary("it ended the connection")
            }
            Error::Io(error) => Failure::temporary(error),
            error => Failure::temporary(format_args!("it answered: {error}")),
        }
    }
}
