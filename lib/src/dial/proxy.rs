//! Reaching the server through an HTTP or a SOCKS proxy.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use tokio_socks::IntoTargetAddr;
use tokio_socks::tcp::{Socks4Stream, Socks5Stream};

use super::exchange::{Answer, exchange};
use super::secrets::Secrets;
use super::target::{Authority, Target, basic};
use super::{Deadline, tcp, tls, tls::ClientConfig};
use crate::defaults::SOCKS4_USER_BYTES;
use crate::reports::{
    ConnectError, ConnectPhase, ProxyError, RedactedUrl, connect_error::tls_failure,
};
use crate::ws::transport::Transport;

/// A proxy between this client and the server. Every kind but SOCKS4 resolves the server's name
/// itself.
#[derive(Clone)]
pub(crate) struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
    url: RedactedUrl,
    /// The environment variable that names it.
    variable: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `CONNECT` (RFC 9110 section 9.3.6), for `ws` and `wss` alike (RFC 6455 section 4.1).
    Http,
    /// The same over TLS.
    Https,
    /// It takes an IPv4 address and a user's name without a password.
    Socks4,
    /// The same with the server's name.
    Socks4a,
    /// RFC 1928, with the credentials of RFC 1929.
    Socks5,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.url).finish()
    }
}

impl Proxy {
    /// Parses the URL of a proxy, with `user:password@` if the proxy needs credentials.
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
        } = Authority::parse(url.reveal(), "http://, https:// or socks5://").map_err(bad)?;
        let (kind, own_port) = match scheme.as_str() {
            "http" => (Kind::Http, 80),
            "https" if !cfg!(feature = "tls") => {
                return Err(bad(
                    "it needs TLS: enable the feature `tls` of unstall".into()
                ));
            }
            "https" => (Kind::Https, 443),
            "socks4" => (Kind::Socks4, 1080),
            "socks4a" => (Kind::Socks4a, 1080),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            _ => {
                return Err(bad(
                    "proxies of this kind are not supported: use http://, https://, socks4a:// or \
                     socks5://"
                        .into(),
                ));
            }
        };
        if let Some((user, password)) = &credentials {
            check_credentials(kind, user, password).map_err(|why| bad(why.into()))?;
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.unwrap_or(own_port);
        Ok(Proxy {
            kind,
            host,
            port,
            credentials,
            url: url.clone(),
            variable: None,
        })
    }

    /// Parses the URL that an environment variable names. Errors name the variable.
    pub(crate) fn from_variable(
        name: &'static str,
        url: &RedactedUrl,
    ) -> Result<Proxy, ConnectError> {
        match Proxy::parse(url) {
            Ok(proxy) => Ok(Proxy {
                variable: Some(name),
                ..proxy
            }),
            Err(ConnectError::Url { url, why }) => Err(ConnectError::Url {
                url,
                why: format!("{why}; the environment variable {name} names it as a proxy"),
            }),
            Err(error) => Err(error),
        }
    }

    /// Connects to the proxy, and asks it for a connection to `target`.
    pub(super) async fn tunnel(
        &self,
        target: &Target,
        tls: Option<&Arc<ClientConfig>>,
        deadline: &Deadline,
    ) -> Result<Transport, ConnectError> {
        let transport = match tcp::connect(&self.host, self.port, deadline).await {
            Ok(tcp) => self.secure(Transport::tcp_stream(tcp), tls).await,
            Err(tcp::Failure::Dns(error)) => Err(ProxyError::Dns(error)),
            Err(tcp::Failure::Tcp(error)) => Err(ProxyError::Tcp(error)),
            Err(tcp::Failure::Timeout(_)) => return Err(deadline.missed(ConnectPhase::Proxy)),
        };
        let tunnel = match (transport, self.kind) {
            (Err(why), _) => Err(why),
            (Ok(transport), Kind::Http | Kind::Https) => self.connect(transport, target).await,
            (Ok(transport), Kind::Socks4) => match tcp::resolve_v4(&target.host).await {
                Ok(address) => self.socks4(transport, (address, target.port)).await,
                Err(error) => Err(ProxyError::Name(error)),
            },
            (Ok(transport), Kind::Socks4a) => {
                self.socks4(transport, (target.host.as_str(), target.port))
                    .await
            }
            (Ok(transport), Kind::Socks5) => self.socks5(transport, target).await,
        };
        tunnel.map_err(|why| ConnectError::Proxy {
            proxy: self.url.clone(),
            variable: self.variable,
            to: target.host_and_port(),
            why,
        })
    }

    async fn secure(
        &self,
        transport: Transport,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Transport, ProxyError> {
        if self.kind != Kind::Https {
            return Ok(transport);
        }
        let secured = tls::connect(tls, &self.host, transport).await;
        secured.map_err(ProxyError::Tls)
    }

    async fn connect(
        &self,
        transport: Transport,
        target: &Target,
    ) -> Result<Transport, ProxyError> {
        let to = target.host_and_port();
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::try_from(&to).map_err(ProxyError::protocol)?;
        let host = HeaderValue::try_from(&to).map_err(ProxyError::protocol)?;
        request.headers_mut().insert(header::HOST, host);
        if let Some((user, password)) = &self.credentials {
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, basic(user, password));
        }
        match exchange(transport, request).await {
            Err(error) if error.is_parse() => Err(ProxyError::protocol(error)),
            Err(error) => Err(match tls_failure(&error) {
                Some(error) => ProxyError::Tls(error),
                None => ProxyError::Lost(error.into()),
            }),
            Ok(Answer::Switched(_, tunnel, early)) if early.is_empty() => Ok(tunnel),
            // TLS and HTTP both let the client speak first.
            Ok(Answer::Switched(..)) => {
                Err(ProxyError::protocol("it sent data before this client did"))
            }
            Ok(Answer::Refused(head, body)) => {
                let encoded = |value: &HeaderValue| {
                    value.to_str().ok()?.rsplit(' ').next().map(str::to_owned)
                };
                let ours = self.credentials.iter().flat_map(|(user, password)| {
                    [Some(password.clone()), encoded(&basic(user, password))]
                });
                Err(ProxyError::Refused {
                    status: head.status(),
                    body: Secrets::new(ours.flatten()).hidden(body),
                })
            }
        }
    }

    async fn socks4(
        &self,
        transport: Transport,
        to: impl IntoTargetAddr<'_>,
    ) -> Result<Transport, ProxyError> {
        let stream = match &self.credentials {
            None => Socks4Stream::connect_with_socket(transport, to).await,
            Some((user, _)) => {
                Socks4Stream::connect_with_userid_and_socket(transport, to, user).await
            }
        };
        stream.map(Socks4Stream::into_inner).map_err(socks_error)
    }

    async fn socks5(&self, transport: Transport, target: &Target) -> Result<Transport, ProxyError> {
        let to = (target.host.as_str(), target.port);
        let stream = match &self.credentials {
            None => Socks5Stream::connect_with_socket(transport, to).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(transport, to, user, password).await
            }
        };
        stream.map(Socks5Stream::into_inner).map_err(socks_error)
    }
}

fn check_credentials(kind: Kind, user: &str, password: &str) -> Result<(), &'static str> {
    // RFC 1929: each length is one byte, and neither may be empty.
    let fits = |text: &str| (1..=255).contains(&text.len());
    match kind {
        Kind::Http | Kind::Https => Ok(()),
        Kind::Socks5 if fits(user) && fits(password) => Ok(()),
        Kind::Socks5 => Err("SOCKS5 needs a user name and a password of 1 to 255 bytes each"),
        Kind::Socks4 | Kind::Socks4a if !password.is_empty() => {
            Err("SOCKS4 has no passwords: give a user name alone, or use socks5://")
        }
        // A zero byte ends the name on the wire.
        Kind::Socks4 | Kind::Socks4a
            if (1..=SOCKS4_USER_BYTES).contains(&user.len()) && !user.contains('\0') =>
        {
            Ok(())
        }
        Kind::Socks4 | Kind::Socks4a => {
            Err("SOCKS4 needs a user name of 1 to 200 bytes, without a zero byte")
        }
    }
}

fn socks_error(error: tokio_socks::Error) -> ProxyError {
    use tokio_socks::Error;
    match error {
        Error::NoAcceptableAuthMethods
        | Error::UnknownAuthMethod
        | Error::AuthorizationRequired
        | Error::InvalidAuthValues(_)
        | Error::PasswordAuthFailure(_)
        | Error::IdentdAuthFailure
        | Error::InvalidUserIdAuthFailure => ProxyError::Credentials,
        Error::ConnectionNotAllowedByRuleset => ProxyError::Forbidden,
        // A proxy that does not speak SOCKS correctly will not do so later.
        Error::InvalidResponseVersion
        | Error::InvalidReservedByte
        | Error::UnknownAddressType
        | Error::InvalidTargetAddress(_)
        | Error::CommandNotSupported
        | Error::AddressTypeNotSupported
        | Error::ParseError(_) => ProxyError::protocol(error),
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ProxyError::Lost("it sent no whole answer".into())
        }
        Error::Io(error) => ProxyError::Lost(error.into()),
        Error::ProxyServerUnreachable
        | Error::GeneralSocksServerFailure
        | Error::NetworkUnreachable
        | Error::HostUnreachable
        | Error::ConnectionRefused
        | Error::TtlExpired
        | Error::UnknownError => ProxyError::Unreachable(error.to_string()),
    }
}
