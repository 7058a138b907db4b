//! Who may come in, by WebSocket or by HTTP.

use std::{fmt, path::Path, sync::Arc};

use futures_util::future::{BoxFuture, ready};
use http::{HeaderMap, header};
use unstall::BearerToken;
use unstall_dashboard::Refusal;
use unstall_topics::{Access, Denied, Grants, Permit, Visitor};

use super::{
    identity::{Identity, Pass},
    pages,
    tokens::Tokens,
};
use crate::failure::Failure;

/// The cookie with the token of a page, whose EventSource can set no header.
const COOKIE: &str = "unstall-token";

/// Why a token does not show how the hub is doing.
pub(super) const NO_OPERATOR: &str = "the token does not have the claim \"operate\": true";

/// Decides who may come in.
#[derive(Clone)]
pub(super) struct Door {
    /// `None`: everybody may do everything.
    tokens: Option<Arc<Tokens>>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("tokens", &self.tokens)
            .finish()
    }
}

impl Door {
    /// Everybody on this machine may do everything.
    pub(super) fn open() -> Door {
        Door { tokens: None }
    }

    /// Who has a token that the key in this file has signed may do what the token says.
    pub(super) fn with_key(file: &Path) -> Result<Door, Failure> {
        let tokens = Tokens::from_file(file)?;
        Ok(Door {
            tokens: Some(Arc::new(tokens)),
        })
    }

    /// Refuses what pages of other sites ask for. See [`pages`].
    pub(super) fn check_page(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        pages::check(headers, self.tokens.is_none())
    }

    /// The name of who sends a request, if its token has one.
    pub(super) fn principal(&self, headers: &HeaderMap) -> Option<String> {
        let token = BearerToken::of(headers)?;
        let pass = self.tokens.as_ref()?.check(token.reveal()).ok()?;
        pass.name().map(str::to_owned)
    }

    /// What the sender of a request may do. A cookie counts only for reading, because a browser
    /// sends it with what other sites ask for, too.
    pub(super) fn enter_http(&self, headers: &HeaderMap, reads: bool) -> Result<Pass, Denied> {
        let token = BearerToken::of(headers);
        let token = token.as_ref().map(BearerToken::reveal);
        self.enter_with(token.or_else(|| reads.then(|| cookie(headers)).flatten()))
    }

    /// Whether everybody may do everything.
    pub(super) fn is_open(&self) -> bool {
        self.tokens.is_none()
    }

    /// Whether the sender of a request may see how the hub is doing.
    pub(super) fn check_operator(
        &self,
        headers: &HeaderMap,
        token: Option<&str>,
    ) -> Result<(), Refusal> {
        let pass = self.enter_with(token.or_else(|| cookie(headers)));
        match pass {
            Ok(pass) if pass.is_operator() => Ok(()),
            Ok(_) => Err(Refusal::Forbidden(NO_OPERATOR.to_owned())),
            Err(Denied(why)) => Err(Refusal::Unauthorized(why)),
        }
    }

    fn enter_with(&self, token: Option<&str>) -> Result<Pass, Denied> {
        match (&self.tokens, token) {
            (None, _) => Ok(Pass::new(Grants::all(), Identity::Anybody).operator(true)),
            (Some(tokens), Some(token)) => tokens.check(token),
            (Some(_), None) => Err(Denied("a token is needed".to_owned())),
        }
    }
}

impl Access for Door {
    fn enter<'a>(&'a self, visitor: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
        let of_request = visitor.request.and_then(|it| BearerToken::of(it.headers()));
        let token = match visitor.token {
            "" => of_request.as_ref().map(BearerToken::reveal),
            token => Some(token),
        };
        let pass = self.enter_with(token);
        Box::pin(ready(pass.map(|pass| Arc::new(pass) as Arc<dyn Permit>)))
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))
}
