//! Who may look.

use std::{fmt, net::SocketAddr, sync::Arc};

use http::HeaderMap;
use subtle::ConstantTimeEq;
use unstall::BearerToken;

use crate::sites;

/// A request to look, for [`DashboardBuilder::authorize`](crate::DashboardBuilder::authorize).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// The headers of the request, or of the upgrade request.
    pub headers: &'a HeaderMap,
    /// Where it comes from, if that is known.
    pub peer: Option<SocketAddr>,
    /// The bearer token: of the header `Authorization`, or of the first packet of a WebSocket.
    pub token: Option<&'a str>,
}

impl fmt::Debug for Asked<'_> {
    // Without headers and token, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Why somebody may not look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A token is missing or wrong: 401.
    #[error("{0}")]
    Unauthorized(String),
    /// No token would help: 403.
    #[error("{0}")]
    Forbidden(String),
}

type Hook = dyn Fn(&Asked<'_>) -> Result<(), Refusal> + Send + Sync;
type Token = dyn Fn() -> Option<Arc<str>> + Send + Sync;

/// Decides who may look.
#[derive(Clone)]
pub(crate) enum Access {
    /// Whoever has the token that counts now. While there is none, programs and pages of this machine.
    Token(Arc<Token>),
    /// Whoever the application lets in.
    Hook(Arc<Hook>),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Token(_) => "Token(…)",
            Access::Hook(_) => "Hook(…)",
        })
    }
}

const OTHER_SITE: &str = "pages of other sites may not see this";
const ELSEWHERE: &str = "without a token this is only for programs and pages of the same machine: address it as \
                         localhost or 127.0.0.1, without a proxy";
const NO_TOKEN: &str = "a valid token is needed";

/// It takes as long for each token of the same length.
fn is(token: &str, wanted: &str) -> bool {
    token.as_bytes().ct_eq(wanted.as_bytes()).into()
}

impl Access {
    /// Programs and pages of this machine.
    pub(crate) fn loopback() -> Access {
        Access::Token(Arc::new(|| None))
    }

    /// Whether the sender of an HTTP request may look.
    pub(crate) fn check_http(
        &self,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        self.check_place(headers, peer)?;
        let token = BearerToken::of(headers);
        let token = token.as_ref().map(BearerToken::reveal);
        self.check_token(&Asked {
            headers,
            peer,
            token,
        })
    }

    /// Whether a request may come from where it comes from.
    pub(crate) fn check_place(
        &self,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        if sites::is_other_site(headers) {
            return Err(Refusal::Forbidden(OTHER_SITE.to_owned()));
        }
        let is_here = || {
            peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
                && sites::names_this_machine(headers)
                && !sites::is_forwarded(headers)
        };
        match self {
            Access::Token(token) if token().is_none() && !is_here() => {
                Err(Refusal::Forbidden(ELSEWHERE.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a request has the right token.
    pub(crate) fn check_token(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        match self {
            Access::Token(wanted) => match (wanted(), asked.token) {
                (None, _) => Ok(()),
                (Some(wanted), Some(token)) if is(token, &wanted) => Ok(()),
                (Some(_), _) => Err(Refusal::Unauthorized(NO_TOKEN.to_owned())),
            },
            Access::Hook(hook) => hook(asked),
        }
    }
}
