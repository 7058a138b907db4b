//! The server's half of the WebSocket handshake (RFC 6455 section 4.2), over any HTTP server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};

use unstall_proto::{BEARER_PREFIX, Hello};

use super::{acceptance::Acceptance, bearer};
use crate::session::opening;
use crate::settings::Compression;
use crate::ws::{
    self,
    extension::{self, CompressionAgreed},
    headers::{self, has_token, tokens},
};

/// Copies the request out of the HTTP server's read buffer. Else an open connection would keep the
/// whole buffer in memory.
pub(crate) fn copied(request: Request<()>) -> Request<()> {
    let (mut parts, ()) = request.into_parts();
    parts.headers = headers::copied(&parts.headers);
    if let Ok(uri) = parts.uri.to_string().parse() {
        parts.uri = uri;
    }
    Request::from_parts(parts, ())
}

/// An answer other than 101: the reason why a request was refused.
///
/// The handshake's checks and the application's authentication hook make it.
#[derive(Debug, Clone)]
pub struct Rejection {
    status: StatusCode,
    /// Boxed, because errors travel by value.
    headers: Box<HeaderMap>,
    body: Bytes,
}

impl Rejection {
    /// A rejection with `status` and a plain text that says why and what to do.
    ///
    /// A status below 300 would not refuse the request, so it becomes 500.
    pub fn new(status: StatusCode, body: impl Into<String>) -> Rejection {
        let rejects = status.as_u16() >= 300;
        let status = if rejects {
            status
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let mut headers = Box::new(HeaderMap::new());
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        Rejection {
            status,
            headers,
            body: Bytes::from(body.into()),
        }
    }

    /// 401: the request carries no credentials, or wrong ones.
    pub fn unauthorized(body: impl Into<String>) -> Rejection {
        Rejection::new(StatusCode::UNAUTHORIZED, body)
    }

    /// 403: the credentials do not suffice, or the Origin is not allowed.
    pub fn forbidden(body: impl Into<String>) -> Rejection {
        Rejection::new(StatusCode::FORBIDDEN, body)
    }

    /// 404: there is no WebSocket at this path.
    pub fn not_found(body: impl Into<String>) -> Rejection {
        Rejection::new(StatusCode::NOT_FOUND, body)
    }

    /// 503 with `Retry-After`: the server cannot take the client now.
    pub fn unavailable(body: impl Into<String>, retry_after: std::time::Duration) -> Rejection {
        Rejection::new(StatusCode::SERVICE_UNAVAILABLE, body).header(
            header::RETRY_AFTER,
            HeaderValue::from(retry_after.as_secs().max(1)),
        )
    }

    /// 429 with `Retry-After`: this client has reached a limit of its own.
    pub fn too_many_requests(
        body: impl Into<String>,
        retry_after: std::time::Duration,
    ) -> Rejection {
        Rejection::new(StatusCode::TOO_MANY_REQUESTS, body).header(
            header::RETRY_AFTER,
            HeaderValue::from(retry_after.as_secs().max(1)),
        )
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Rejection {
        self.headers.append(name, value);
        self
    }

    /// The status that the client gets.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text that the client gets.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The whole answer, for any HTTP server.
    pub(crate) fn answer<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = *self.headers;
        response
    }
}

/// The outcome of a valid request.
#[derive(Debug)]
pub(crate) struct Agreement {
    /// `None` over HTTP/2, where a request has no key.
    accept: Option<HeaderValue>,
    /// The first of the client's offers that the server speaks.
    pub(crate) subprotocol: Option<String>,
    /// The agreement to compress messages, and how the client is told.
    compression: Option<(CompressionAgreed, HeaderValue)>,
    /// The HELLO of a new session that came with the request.
    hello: Option<Hello>,
    /// What the hook adds to the answer.
    headers: HeaderMap,
}

impl Agreement {
    /// Adds what the hook asked for.
    pub(crate) fn accept(
        &mut self,
        acceptance: Acceptance,
        request: &HeaderMap,
    ) -> Result<(), Rejection> {
        if acceptance.is_plain() && self.is_session() {
            self.subprotocol = None;
            self.hello = None;
        }
        let (subprotocol, headers) = acceptance.checked(request, self.is_session())?;
        self.subprotocol = subprotocol.or(self.subprotocol.take());
        self.headers = headers;
        Ok(())
    }

    /// Opens a session with the HELLO of the request, if both sides agree to one.
    pub(crate) fn greet(&mut self, hello: Option<Hello>) {
        self.hello = hello.filter(|_| self.is_session());
    }

    /// The HELLO with which the session opens. If there is none, it is the first packet.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.hello.clone()
    }

    /// Agrees to compress messages if the client offers it.
    pub(crate) fn compress(&mut self, compression: Option<&Compression>, headers: &HeaderMap) {
        self.compression = compression.and_then(|it| extension::answer(it, headers));
    }

    pub(crate) fn compression(&self) -> Option<CompressionAgreed> {
        let agreed = self.compression.as_ref();
        agreed.map(|(agreed, _)| agreed.clone())
    }

    /// Whether both sides speak sessions.
    pub(crate) fn is_session(&self) -> bool {
        self.subprotocol.as_deref() == Some(unstall_proto::SUBPROTOCOL)
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self.accept {
            Some(_) => StatusCode::SWITCHING_PROTOCOLS,
            None => StatusCode::OK,
        }
    }

    /// The 101 (RFC 6455 section 4.2.2, item 5), or the 200 of HTTP/2 (RFC 8441 section 5).
    pub(crate) fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        if let Some(accept) = &self.accept {
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        let headers = response.headers_mut();
        headers.extend(self.headers.clone());
        if let Some((_, answer)) = &self.compression {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, answer.clone());
        }
        if self.hello.is_some() {
            opening::tell_taken(headers);
        }
        if let Some(name) = &self.subprotocol {
            let name = HeaderValue::try_from(name.as_str());
            headers.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                name.expect("a subprotocol that the client sent in a header fits in a header"),
            );
        }
        response
    }
}

/// Hides the secrets among the headers from `Debug`, and gives a request of HTTP/2 the form that one of HTTP/1.1 has: the host as a header, and the path
/// alone as the URI. The hooks and checks then need not tell the two apart.
pub(crate) fn normalise(request: &mut Parts) {
    bearer::hide(&mut request.headers);
    if request.version != Version::HTTP_2 {
        return;
    }
    // RFC 9113 section 8.3.1: `:authority` says the host, whatever a Host header says.
    if let Some(authority) = request.uri.authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        request.headers.insert(header::HOST, host);
    }
    let path = request.uri.path_and_query().cloned();
    request.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// Checks a request against RFC 6455 section 4.2.1, or RFC 8441 section 5, and picks the subprotocol.
/// A request of HTTP/2 is [normalised](normalise) before.
pub(crate) fn check(request: &Parts, subprotocols: &[String]) -> Result<Agreement, Rejection> {
    let headers = &request.headers;
    let over_http2 = request.version == Version::HTTP_2;
    match over_http2 {
        true => check_http2(request)?,
        false => check_http1(request)?,
    }
    // Section 4.2.1, item 2. With two of them, this server and a proxy could read different hosts.
    if headers.get_all(header::HOST).iter().count() != 1 {
        return Err(bad("A request must have exactly one Host header.\n"));
    }
    // A body would be read as the first frames.
    let length = headers.get(header::CONTENT_LENGTH);
    if length.is_some_and(|l| l != "0") || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(bad("A WebSocket handshake has no body.\n"));
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let why = "The WebSocket version must be 13 (RFC 6455).\n";
        let rejection = match over_http2 {
            true => bad(why),
            false => upgrade_required(why),
        };
        // Section 4.2.2, item 4: with the versions that the server is able to use.
        let spoken = HeaderValue::from_static("13");
        return Err(rejection.header(header::SEC_WEBSOCKET_VERSION, spoken));
    }
    Ok(Agreement {
        accept: match over_http2 {
            true => None,
            false => Some(answer_to_key(headers)?),
        },
        subprotocol: tokens(headers, header::SEC_WEBSOCKET_PROTOCOL)
            // The answer would repeat the token.
            .filter(|offered| !offered.starts_with(BEARER_PREFIX))
            .find(|offered| subprotocols.iter().any(|known| known == offered))
            .map(str::to_owned),
        compression: None,
        hello: None,
        headers: HeaderMap::new(),
    })
}

fn check_http1(request: &Parts) -> Result<(), Rejection> {
    let headers = &request.headers;
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Err(upgrade_required(
            "This is a WebSocket endpoint: connect with a WebSocket client (ws:// or wss://).\n",
        ));
    }
    if request.method != Method::GET {
        return Err(Rejection::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "A WebSocket handshake is a GET request.\n",
        )
        .header(header::ALLOW, HeaderValue::from_static("GET")));
    }
    if request.version < Version::HTTP_11 {
        return Err(bad(
            "A WebSocket handshake needs HTTP/1.1; is a proxy speaking HTTP/1.0?\n",
        ));
    }
    match has_token(headers, header::CONNECTION, "upgrade") {
        true => Ok(()),
        false => Err(bad(
            "The header `Connection: Upgrade` is missing; does a proxy in between drop it?\n",
        )),
    }
}

/// RFC 8441 section 4: the method CONNECT, and `:protocol` with the value `websocket`.
#[cfg(feature = "http2")]
fn check_http2(request: &Parts) -> Result<(), Rejection> {
    let protocol = request.extensions.get::<hyper::ext::Protocol>();
    let asked = protocol.is_some_and(|it| it.as_str().eq_ignore_ascii_case("websocket"));
    match asked && request.method == Method::CONNECT {
        true => Ok(()),
        false => Err(bad(
            "This is a WebSocket endpoint: over HTTP/2 it takes Extended CONNECT (RFC 8441).\n",
        )),
    }
}

#[cfg(not(feature = "http2"))]
fn check_http2(_: &Parts) -> Result<(), Rejection> {
    Err(bad(
        "This WebSocket endpoint takes HTTP/1.1 only: unstall was built without its feature http2.\n",
    ))
}

/// The `Sec-WebSocket-Accept` for the request's `Sec-WebSocket-Key`.
fn answer_to_key(headers: &HeaderMap) -> Result<HeaderValue, Rejection> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(bad("There must be one Sec-WebSocket-Key header.\n"));
    };
    if STANDARD.decode(key.as_bytes()).map_or(0, |key| key.len()) != 16 {
        return Err(bad("The Sec-WebSocket-Key must be 16 bytes in base64.\n"));
    }
    let accept = HeaderValue::try_from(ws::accept_key(key.as_bytes()));
    Ok(accept.expect("base64 is made of characters that a header value may have"))
}

fn bad(why: &str) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, why)
}

fn upgrade_required(why: &str) -> Rejection {
    // RFC 9110 section 15.5.22 demands the Upgrade header.
    Rejection::new(StatusCode::UPGRADE_REQUIRED, why)
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn good() -> http::request::Builder {
        Request::get("/")
            .header("Host", "test")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    fn checked(request: http::request::Builder, known: &[&str]) -> Result<Agreement, Rejection> {
        let known: Vec<_> = known.iter().map(|name| name.to_string()).collect();
        check(&request.body(()).unwrap().into_parts().0, &known)
    }

    #[test]
    fn the_sample_handshake_of_the_rfc_is_answered_as_it_says() {
        let response: Response<()> = checked(good(), &[]).unwrap().response();
        assert_eq!(response.status(), 101);
        // RFC 6455 section 1.3.
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn the_clients_first_known_subprotocol_is_chosen() {
        let offer = |offer: &str| good().header("Sec-WebSocket-Protocol", offer);
        let chosen = |offered, known: &[&str]| checked(offer(offered), known).unwrap().subprotocol;
        assert_eq!(chosen("a, b, c", &["c", "b"]), Some("b".into()));
        assert_eq!(chosen("a", &["c", "b"]), None);
        assert_eq!(
            chosen("A", &["a"]),
            None,
            "subprotocols are compared byte by byte"
        );
        assert_eq!(checked(good(), &["a"]).unwrap().subprotocol, None);
        let two = offer("a").header("Sec-WebSocket-Protocol", "b");
        assert_eq!(checked(two, &["b"]).unwrap().subprotocol, Some("b".into()));
    }

    #[test]
    fn a_request_that_breaks_a_rule_is_refused_with_the_right_status() {
        let without = |name: &str| {
            let mut request = good();
            request.headers_mut().unwrap().remove(name);
            checked(request, &[]).unwrap_err()
        };
        assert_eq!(without("upgrade").status(), 426);
        assert_eq!(without("connection").status(), 400);
        assert_eq!(without("host").status(), 400);
        assert_eq!(without("sec-websocket-key").status(), 400);
        let old = without("sec-websocket-version");
        assert_eq!(old.status(), 426);
        assert_eq!(old.headers["sec-websocket-version"], "13");

        let with = |change: fn(http::request::Builder) -> http::request::Builder| {
            checked(change(good()), &[]).unwrap_err().status().as_u16()
        };
        assert_eq!(with(|r| r.method("POST")), 405);
        assert_eq!(with(|r| r.version(Version::HTTP_10)), 400);
        assert_eq!(
            with(|r| r.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")),
            400
        );
        assert_eq!(with(|r| r.header("Host", "another")), 400);
        assert_eq!(with(|r| r.header("Content-Length", "5")), 400);
        assert_eq!(with(|r| r.header("Transfer-Encoding", "chunked")), 400);
        let short = || {
            let mut request = good();
            request
                .headers_mut()
                .unwrap()
                .insert("sec-websocket-key", "c2hvcnQ=".parse().unwrap());
            checked(request, &[]).unwrap_err().status()
        };
        assert_eq!(short(), 400);
    }

    #[test]
    fn a_rejection_never_lets_a_request_through() {
        assert_eq!(
            Rejection::new(StatusCode::SWITCHING_PROTOCOLS, "").status(),
            500
        );
        assert_eq!(Rejection::new(StatusCode::OK, "").status(), 500);
    }
}
