//! Which web pages may connect (RFC 6455 section 10.2).

use http::{
    HeaderMap, HeaderValue,
    header::{HOST, ORIGIN},
    uri::{Authority, Uri},
};

use super::handshake::Rejection;

/// The pages that may connect. A request without `Origin` is always accepted: a program that is not
/// a browser could send any.
#[derive(Clone, Debug, Default)]
pub(crate) enum Origins {
    /// Pages of the same host and port as the request.
    #[default]
    SameHost,
    Listed(Vec<String>),
    Any,
}

impl Origins {
    pub(crate) fn listed<O: Into<String>>(origins: impl IntoIterator<Item = O>) -> Origins {
        Origins::Listed(origins.into_iter().map(Into::into).collect())
    }

    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (self, headers.get(HOST)) {
            (Origins::Any, _) => Ok(()),
            (Origins::Listed(allowed), _) => {
                let listed = |origin: &HeaderValue| {
                    let mut allowed = allowed.iter().map(|allowed| allowed.as_bytes());
                    allowed.any(|allowed| allowed.eq_ignore_ascii_case(origin.as_bytes()))
                };
                let why = "Pages of this Origin may not connect to this server.\n";
                all(origins.all(listed), why)
            }
            (Origins::SameHost, host) => {
                let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
                let same =
                    |origin: &HeaderValue| host.as_ref().is_some_and(|host| is_same(origin, host));
                let why = "Only pages of this host may connect to this server. If a proxy changes the \
                           Host header, configure it to pass on the client's; else allow the \
                           Origin on the server.\n";
                all(origins.all(same), why)
            }
        }
    }
}

fn all(allowed: bool, why: &str) -> Result<(), Rejection> {
    match allowed {
        true => Ok(()),
        false => Err(Rejection::forbidden(why)),
    }
}

/// Whether the origin has this host and port. A missing port means the default port of the scheme.
/// The schemes need not match, because a proxy may terminate TLS.
fn is_same(origin: &HeaderValue, host: &Authority) -> bool {
    let Ok(origin) = Uri::try_from(origin.as_bytes()) else {
        return false;
    };
    let default = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let same_host = origin
        .host()
        .is_some_and(|page| page.eq_ignore_ascii_case(host.host()));
    let port = |written: Option<u16>| written.unwrap_or(default);
    same_host && port(origin.port_u16()) == port(host.port_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(origins: &Origins, host: &str, origin: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        for origin in origin {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        let checked = origins.check(&headers);
        checked.map_or_else(|rejection| rejection.status().as_u16(), |()| 101)
    }

    /// Once any page could connect by default, with the cookies of whoever looked at it.
    #[test]
    fn only_pages_of_the_same_host_and_port_connect_by_default() {
        let default = Origins::default();
        for (host, origin) in [
            ("app.example", "https://app.example"),
            ("app.example", "http://app.example"),
            ("app.example", "https://APP.example:443"),
            ("app.example:443", "https://app.example"),
            ("localhost:8080", "http://localhost:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(status(&default, host, &[origin]), 101, "{origin} at {host}");
        }
        for (host, origin) in [
            ("app.example", "https://evil.example"),
            ("app.example", "https://app.example.evil"),
            ("app.example", "https://app.example:8443"),
            ("app.example:8443", "https://app.example"),
            ("app.example", "null"),
            ("app.example", "file://app.example"),
            ("app.example", "app.example"),
            ("app.example", ""),
            ("", "https://app.example"),
        ] {
            assert_eq!(status(&default, host, &[origin]), 403, "{origin} at {host}");
        }
        let two = ["https://app.example", "https://evil.example"];
        assert_eq!(status(&default, "app.example", &two), 403);
        assert_eq!(status(&default, "app.example", &[]), 101, "no browser");
    }

    #[test]
    fn a_list_of_origins_lets_in_those_and_no_others() {
        let listed = Origins::listed(["https://app.example"]);
        assert_eq!(status(&listed, "ws.example", &["https://APP.example"]), 101);
        assert_eq!(status(&listed, "ws.example", &["https://ws.example"]), 403);
        assert_eq!(
            status(&listed, "ws.example", &["https://app.example.evil"]),
            403
        );
        assert_eq!(status(&listed, "ws.example", &[]), 101);
        assert_eq!(status(&Origins::Any, "ws.example", &["null"]), 101);
    }
}
