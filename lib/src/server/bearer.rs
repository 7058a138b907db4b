//! The bearer token of an upgrade request, from its header or, from a browser, among its subprotocols.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;
use unstall_proto::{BEARER_PREFIX, MAX_BEARER_BYTES};

use crate::ws::headers::tokens;

/// The bearer token that a client shows with its upgrade request. It is a secret: its `Debug` does not
/// show it.
///
/// A program sends it as `Authorization: Bearer …` (RFC 6750). A page cannot set headers, so it offers the
/// token among its subprotocols: `unstall.bearer.` and the token in base64url without padding (SPEC.md
/// section 2). A server never agrees to such an offer.
///
/// ```
/// use unstall::{BearerToken, Rejection, Server};
/// let builder = Server::builder().authenticate(|request| async move {
///     match BearerToken::of(request.headers()) {
///         Some(token) if token.is("s3cret") => Ok(request),
///         _ => Err(Rejection::unauthorized("a valid token is needed")),
///     }
/// });
/// # let _ = builder;
/// ```
#[derive(Clone)]
pub struct BearerToken(String);

impl BearerToken {
    /// The token of a request, in the hook
    /// [`authenticate`](crate::ServerBuilder::authenticate), in an HTTP handler, or of a
    /// [`Connection::request`](crate::Connection::request).
    ///
    /// A token of the header counts before one among the subprotocols. `None` if the request has no
    /// token, or several in the same place, or one that is not 1 to 8,192 visible ASCII characters.
    pub fn of(headers: &HeaderMap) -> Option<BearerToken> {
        let token = match of_header(headers) {
            Found::None => of_subprotocols(headers)?,
            Found::One(token) => token.to_owned(),
            Found::Several => return None,
        };
        let is_whole = (1..=MAX_BEARER_BYTES).contains(&token.len());
        let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        (is_whole && is_visible).then_some(BearerToken(token))
    }

    /// Whether it is this token. It takes as long for each token of the same length.
    pub fn is(&self, token: &str) -> bool {
        self.0.as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// The token itself. Do not print it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

enum Found<T> {
    None,
    One(T),
    Several,
}

impl<T> Found<T> {
    fn among(mut items: impl Iterator<Item = T>) -> Found<T> {
        match (items.next(), items.next()) {
            (None, _) => Found::None,
            (Some(item), None) => Found::One(item),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

fn of_header(headers: &HeaderMap) -> Found<&str> {
    let values = headers.get_all(header::AUTHORIZATION).iter();
    let bearers = values.filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    Found::among(bearers)
}

fn of_subprotocols(headers: &HeaderMap) -> Option<String> {
    let offers = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let encoded = offers.filter_map(|offer| offer.strip_prefix(BEARER_PREFIX));
    match Found::among(encoded) {
        Found::One(encoded) => {
            let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok()
        }
        Found::None | Found::Several => None,
    }
}

/// Marks the headers that have secrets, so that nobody prints them by mistake.
pub(crate) fn hide(headers: &mut HeaderMap) {
    for name in [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
    ] {
        if let header::Entry::Occupied(mut values) = headers.entry(name) {
            values
                .iter_mut()
                .for_each(|value| value.set_sensitive(true));
        }
    }
    if let header::Entry::Occupied(mut offers) = headers.entry(header::SEC_WEBSOCKET_PROTOCOL) {
        for offer in offers.iter_mut() {
            // Also if it is not among the tokens, because the list cannot be read.
            let bytes = offer.as_bytes();
            let prefix = BEARER_PREFIX.as_bytes();
            if bytes.windows(prefix.len()).any(|part| part == prefix) {
                offer.set_sensitive(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn token(given: &[(HeaderName, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name, value.parse().unwrap());
        }
        BearerToken::of(&headers).map(|token| token.reveal().to_owned())
    }

    fn offer(token: &str) -> String {
        format!("{BEARER_PREFIX}{}", URL_SAFE_NO_PAD.encode(token))
    }

    const BY_HEADER: HeaderName = header::AUTHORIZATION;
    const OFFERED: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;

    #[test]
    fn a_token_is_read_from_the_header_or_else_from_the_subprotocols() {
        // SPEC.md, section 2.
        assert_eq!(offer("s3cret?"), "unstall.bearer.czNjcmV0Pw");
        let list = format!("unstall.v1, {}", offer("s3cret?"));
        assert_eq!(token(&[(OFFERED, &list)]).as_deref(), Some("s3cret?"));
        let in_a_second_line = [(OFFERED, "unstall.v1"), (OFFERED, &offer("b"))];
        assert_eq!(token(&in_a_second_line).as_deref(), Some("b"));
        assert_eq!(token(&[(BY_HEADER, "bEARER a.b")]).as_deref(), Some("a.b"));
        let both = [(BY_HEADER, "Bearer header"), (OFFERED, &offer("offer"))];
        assert_eq!(token(&both).as_deref(), Some("header"));
        let another_scheme = [(BY_HEADER, "Basic eA=="), (OFFERED, &offer("offer"))];
        assert_eq!(token(&another_scheme).as_deref(), Some("offer"));
        let longest = "x".repeat(MAX_BEARER_BYTES);
        assert_eq!(token(&[(OFFERED, &offer(&longest))]), Some(longest));
    }

    #[test]
    fn what_is_not_one_token_is_none() {
        assert_eq!(token(&[]), None);
        let two = format!("{}, {}", offer("a"), offer("b"));
        let too_long = "x".repeat(MAX_BEARER_BYTES + 1);
        for offered in [
            "unstall.v1",
            &two,
            "unstall.bearer.",
            "unstall.bearer",
            "unstall.bearer.a",
            "unstall.bearer.czNjcmV0Pw==",
            "unstall.bearer.czNjcmV0P+",
            "UNSTALL.BEARER.czNjcmV0Pw",
            &offer("two words"),
            &offer("line\n"),
            &offer("é"),
            &offer(&too_long),
        ] {
            assert_eq!(token(&[(OFFERED, offered)]), None, "{offered}");
        }
        assert_eq!(
            token(&[(BY_HEADER, "Bearer a"), (BY_HEADER, "Bearer b")]),
            None
        );
        let several_and_an_offer = [
            (BY_HEADER, "Bearer a"),
            (BY_HEADER, "Bearer b"),
            (OFFERED, &offer("c")),
        ];
        assert_eq!(token(&several_and_an_offer), None);
        let empty = [(BY_HEADER, "Bearer "), (OFFERED, &offer("c"))];
        assert_eq!(token(&empty), None);
        assert_eq!(token(&[(BY_HEADER, "Bearer two words")]), None);
        assert_eq!(token(&[(BY_HEADER, &format!("Bearer {too_long}"))]), None);
    }

    #[test]
    fn a_token_is_compared_whole_and_not_printed() {
        let mut headers = HeaderMap::new();
        headers.insert(BY_HEADER, "Bearer s3cret".parse().unwrap());
        headers.insert(OFFERED, offer("s3cret").parse().unwrap());
        let token = BearerToken::of(&headers).unwrap();
        assert!(token.is("s3cret") && !token.is("s3cre") && !token.is("s3cret2"));
        hide(&mut headers);
        let printed = format!("{token:?} {headers:?}");
        assert!(
            !printed.contains("s3cret") && !printed.contains("czNj"),
            "{printed}"
        );
    }
}
