//! Reaching the server through an HTTP or a SOCKS5 proxy.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::dial::exchange::{Answer, exchange};
use crate::dial::target::{Authority, Target, basic, host_and_port, without_password};
use crate::reports::{ConnectError, connect_error::is_retryable_status};

/// A proxy between us and the server. It resolves the server's name, whichever its kind.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    credentials: Option<(String, String)>,
    /// Its URL without the password.
    url: String,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `CONNECT` (RFC 9110 section 9.3.6), for `ws` and `wss` alike (RFC 6455 section 4.1).
    Http,
    /// RFC 1928, with the credentials of RFC 1929.
    Socks5,
}

impl Proxy {
    /// Parses `http://`, `socks5://` or `socks5h://`, with `user:password@` where it wants one.
    pub(crate) fn parse(url: &str) -> Result<Proxy, ConnectError> {
        let bad = |why| ConnectError::Url {
            url: without_password(url),
            why,
        };
        let Authority {
            scheme,
            credentials,
            host,
            port,
            ..
        } = Authority::parse(url).map_err(bad)?;
        let (kind, own_port) = match scheme.as_str() {
            "http" => (Kind::Http, 80),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            other => {
                return Err(bad(format!(
                    "a proxy of the kind {other} is not known: use http:// or socks5://"
                )));
            }
        };
        // RFC 1929: one byte holds either length.
        let fits = |(user, password): &(String, String)| user.len() < 256 && password.len() < 256;
        if matches!(kind, Kind::Socks5) && !credentials.as_ref().is_none_or(fits) {
            return Err(bad(
                "SOCKS5 takes user names and passwords of up to 255 bytes".into(),
            ));
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.unwrap_or(own_port);
        Ok(Proxy {
            kind,
            host,
            port,
            credentials,
            url: without_password(url),
        })
    }

    /// Has the proxy at the other end of `tcp` connect us to `target`.
    pub(crate) async fn tunnel(
        &self,
        tcp: TcpStream,
        target: &Target,
    ) -> Result<TcpStream, ConnectError> {
        match self.kind {
            Kind::Http => self.connect(tcp, target).await,
            Kind::Socks5 => self.socks(tcp, target).await,
        }
    }

    async fn connect(&self, tcp: TcpStream, target: &Target) -> Result<TcpStream, ConnectError> {
        let to = target.host_and_port();
        let fail = |why: String, retryable| self.failed(target, why, retryable);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::try_from(&to).map_err(|e| fail(e.to_string(), false))?;
        let host = HeaderValue::try_from(&to).map_err(|e| fail(e.to_string(), false))?;
        request.headers_mut().insert(header::HOST, host);
        if let Some((user, password)) = &self.credentials {
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, basic(user, password));
        }
        match exchange(tcp, request).await {
            Err(error) => Err(fail(format!("it ended the connection ({error})"), true)),
            Ok(Answer::Switched(_, tcp, early)) if early.is_empty() => Ok(tcp),
            // TLS and HTTP both let the client speak first.
            Ok(Answer::Switched(..)) => Err(fail("it sent data before we did".into(), false)),
            Ok(Answer::Refused(head, body)) => {
                let status = head.status();
                let advice = match status.as_u16() {
                    407 => "; give its user and password in the proxy's URL",
                    403 => "; its rules forbid this host or port",
                    _ => "",
                };
                let line = body.lines().next().unwrap_or_default().trim();
                let said = if line.is_empty() {
                    String::new()
                } else {
                    format!(": {line}")
                };
                Err(fail(
                    format!("it answered {status}{said}{advice}"),
                    is_retryable_status(status),
                ))
            }
        }
    }

    async fn socks(&self, tcp: TcpStream, target: &Target) -> Result<TcpStream, ConnectError> {
        // The connector behind this one only hands over the connection that is there already.
        let mut socks = SocksV5::new(Uri::from_static("socks5://proxy"), Given(Some(tcp)));
        if let Some((user, password)) = &self.credentials {
            socks = socks.with_auth(user.clone(), password.clone());
        }
        let to = format!("ws://{}/", host_and_port(&target.host, target.port));
        let to = Uri::try_from(to).map_err(|e| self.failed(target, e.to_string(), false))?;
        match socks.call(to).await {
            Ok(io) => Ok(io.into_inner()),
            Err(error) => {
                // The error's type cannot be named outside hyper-util; its text can be read.
                let detail = format!("{error:?}");
                let refused = detail.contains("Auth(") || detail.contains("ConnectionNotAllowed");
                let io = detail.contains("Io(");
                let why = if io {
                    format!("{error} ({detail})")
                } else {
                    error.to_string()
                };
                Err(self.failed(target, why, !refused))
            }
        }
    }

    fn failed(&self, target: &Target, why: String, retryable: bool) -> ConnectError {
        let (proxy, to) = (self.url.clone(), target.host_and_port());
        ConnectError::Proxy {
            proxy,
            to,
            why,
            retryable,
        }
    }
}

/// A connector that hands over what it was given.
struct Given(Option<TcpStream>);

impl Service<Uri> for Given {
    type Response = TokioIo<TcpStream>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(Ok(TokioIo::new(
            self.0
                .take()
                .expect("a connector of one connection is asked once"),
        )))
    }
}
