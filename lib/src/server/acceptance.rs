//! What a server's hook adds to the answer that accepts a request.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use unstall_proto::BEARER_PREFIX;

use super::handshake::Rejection;
use crate::{
    session::opening::HELLO_HEADER,
    ws::headers::{of_handshake, tokens},
};

/// What the hook [`authenticate`](crate::ServerBuilder::authenticate) adds to the answer that accepts a
/// request: the subprotocol that it chose, and headers such as cookies. The hook puts it among the
/// extensions of the request.
///
/// It is made for servers that learn the subprotocol only when they know the request, such as a relay
/// that asks another server first. A server that always speaks the same ones sets
/// [`subprotocols`](crate::ServerBuilder::subprotocols).
///
/// The client gets 500 if the subprotocol is not among those that it offers, if the connection is a
/// session, whose subprotocol is `unstall.v1`, or if a header is one that the handshake sets itself.
///
/// ```
/// use unstall::{Acceptance, Server};
/// let builder = Server::builder().authenticate(|mut request| async move {
///     let cookie = http::HeaderValue::from_static("seen=1");
///     let acceptance = Acceptance::default().header(http::header::SET_COOKIE, cookie);
///     request.extensions_mut().insert(acceptance);
///     Ok(request)
/// });
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is among the extensions of the request"]
pub struct Acceptance {
    subprotocol: Option<String>,
    headers: HeaderMap,
    plain: bool,
}

impl Acceptance {
    /// Agrees to this one of the subprotocols that the client offers. It replaces the one that the
    /// server would choose.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Acceptance {
        self.subprotocol = Some(name.into());
        self
    }

    /// Adds a header to the answer. One name may have several values.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Acceptance {
        self.headers.append(name, value);
        self
    }

    /// Agrees to no session for this request, as [`plain`](crate::ServerBuilder::plain) does for all. A
    /// client that insists on one gives up.
    pub fn plain(mut self) -> Acceptance {
        self.plain = true;
        self
    }

    /// Whether a session is not agreed to.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// What is added to the answer, if it may be.
    pub(super) fn checked(
        self,
        request: &HeaderMap,
        session: bool,
    ) -> Result<(Option<String>, HeaderMap), Rejection> {
        let refused = |why: String| {
            tracing::error!("the hook's answer cannot be sent: {why}");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Rejection::new(status, "The server's answer is not valid.\n")
        };
        if let Some(name) = &self.subprotocol {
            let mut offers = tokens(request, header::SEC_WEBSOCKET_PROTOCOL)
                .filter(|offer| !offer.starts_with(BEARER_PREFIX));
            if session || !offers.any(|offer| offer == name) {
                let why =
                    "it chose a subprotocol that the client does not offer, or one for a session";
                return Err(refused(why.to_owned()));
            }
        }
        let hello = self
            .headers
            .contains_key(HELLO_HEADER)
            .then_some(HELLO_HEADER);
        match hello.or_else(|| of_handshake(&self.headers)) {
            Some(name) => Err(refused(format!("the handshake sets the header {name}"))),
            None => Ok((self.subprotocol, self.headers)),
        }
    }
}
