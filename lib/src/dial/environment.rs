//! The proxy that environment variables name, by the rules that curl and reqwest share.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::{Proxy, Target};
use crate::reports::{ConnectError, RedactedUrl};

/// The proxy for `target`, if the environment names one. `read` returns the value of a variable.
///
/// `HTTP_PROXY` is for `ws`, `HTTPS_PROXY` for `wss`, and `ALL_PROXY` for both. `NO_PROXY` lists
/// hosts that are dialed directly. Each may also be written in lower case. A host on the loopback
/// interface is always dialed directly, because a proxy on another machine cannot reach it.
pub(crate) fn proxy(
    target: &Target,
    read: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, ConnectError> {
    // In a CGI program any client can set HTTP_PROXY, by sending a header `Proxy` (CVE-2016-5385).
    if is_loopback(&target.host) || read("REQUEST_METHOD").is_some() {
        return Ok(None);
    }
    let names = match target.secure {
        false => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        true => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
    };
    let value = |name| read(name).filter(|value| !value.trim().is_empty());
    let Some((name, url)) = names.iter().find_map(|&name| Some((name, value(name)?))) else {
        return Ok(None);
    };
    let exceptions = value("NO_PROXY").or_else(|| value("no_proxy"));
    if exceptions.is_some_and(|list| is_listed(&target.host, &list)) {
        return Ok(None);
    }
    let url = match url.trim() {
        url if url.contains("://") => url.to_owned(),
        // curl takes `proxy:3128` too.
        url => format!("http://{url}"),
    };
    Proxy::from_variable(name, &RedactedUrl::new(url)).map(Some)
}

/// Whether the host is this machine, by its name or address alone.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        }
        // RFC 6761 section 6.3.
        Err(_) => {
            let last = host.rsplit('.').next().unwrap_or_default();
            last.eq_ignore_ascii_case("localhost")
        }
    }
}

/// Whether the list of `NO_PROXY` names this host.
fn is_listed(host: &str, list: &str) -> bool {
    let list = list.replace(char::is_whitespace, ",");
    let matcher = Matcher::builder().all("http://proxy").no(list).build();
    let host = host.trim_end_matches('.');
    let uri = match host.contains(':') {
        true => format!("http://[{host}]/"),
        false => format!("http://{host}/"),
    };
    uri.parse::<Uri>()
        .is_ok_and(|uri| matcher.intercept(&uri).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy for `url` in an environment of these variables.
    fn chosen(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, ConnectError> {
        let target = Target::parse(&url.into()).unwrap();
        let read = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        proxy(&target, read).map(|proxy| proxy.map(|proxy| format!("{proxy:?}")))
    }

    fn proxied(url: &str, variables: &[(&str, &str)]) -> bool {
        chosen(url, variables).unwrap().is_some()
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_proxy_serves_both() {
        let all = [
            ("HTTP_PROXY", "http://plain:1"),
            ("HTTPS_PROXY", "http://secure:2"),
            ("ALL_PROXY", "socks5://all:3"),
        ];
        let of = |url, variables: &[_]| chosen(url, variables).unwrap();
        assert_eq!(
            of("ws://h.example/", &all).as_deref(),
            Some("Proxy(\"http://plain:1\")")
        );
        assert_eq!(
            of("wss://h.example/", &all).as_deref(),
            Some("Proxy(\"http://secure:2\")")
        );
        for url in ["ws://h.example/", "wss://h.example/"] {
            assert_eq!(
                of(url, &all[2..]).as_deref(),
                Some("Proxy(\"socks5://all:3\")")
            );
            assert_eq!(of(url, &[]), None);
            assert_eq!(
                of(url, &[("all_proxy", "all:3")]).as_deref(),
                Some("Proxy(\"http://all:3\")")
            );
        }
        assert!(proxied("ws://h.example/", &[("http_proxy", "p:1")]));
        assert!(proxied("wss://h.example/", &[("https_proxy", "p:1")]));
        assert!(!proxied("ws://h.example/", &[("HTTPS_PROXY", "p:1")]));
        assert!(!proxied("wss://h.example/", &[("HTTP_PROXY", "p:1")]));
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        assert!(!proxied("ws://h.example/", &[("HTTP_PROXY", " ")]));
        let lower = [("HTTP_PROXY", ""), ("http_proxy", "p:1")];
        assert!(proxied("ws://h.example/", &lower));
    }

    #[test]
    fn hosts_that_no_proxy_lists_are_dialed_directly() {
        let listed = |host: &str, list: &str| {
            let url = format!("ws://{host}/");
            let upper = !proxied(&url, &[("ALL_PROXY", "p:1"), ("NO_PROXY", list)]);
            let lower = !proxied(&url, &[("ALL_PROXY", "p:1"), ("no_proxy", list)]);
            assert_eq!(upper, lower, "{host} {list}");
            upper
        };
        for (host, list) in [
            ("feed.example", "other.example, feed.example"),
            ("feed.example:9100", "feed.example"),
            ("a.feed.example", "feed.example"),
            ("a.feed.example", ".feed.example"),
            ("feed.example", ".feed.example"),
            ("FEED.example", "feed.EXAMPLE"),
            ("feed.example.", "feed.example"),
            ("feed.example", "a.example feed.example"),
            ("feed.example", "*"),
            ("10.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("[2001:db8::1]", "2001:db8::/32"),
        ] {
            assert!(listed(host, list), "{host} {list}");
        }
        for (host, list) in [
            ("feed.example", "eed.example"),
            ("feed.example", "a.feed.example"),
            ("11.1.2.3", "10.0.0.0/8"),
            ("feed.example", ""),
        ] {
            assert!(!listed(host, list), "{host} {list}");
        }
    }

    #[test]
    fn this_machine_is_never_dialed_through_a_proxy_of_the_environment() {
        for host in [
            "localhost",
            "LOCALHOST:9100",
            "app.localhost",
            "localhost.",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "0.0.0.0:80",
        ] {
            let url = format!("ws://{host}/");
            assert!(!proxied(&url, &[("ALL_PROXY", "p:1")]), "{host}");
        }
        assert!(proxied("ws://localhost.example/", &[("ALL_PROXY", "p:1")]));
    }

    #[test]
    fn the_environment_of_a_cgi_program_is_not_trusted() {
        let cgi = [("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")];
        assert!(!proxied("ws://h.example/", &cgi));
    }

    /// A direct connection in place of the proxy would be a surprise, so there is none.
    #[test]
    fn a_variable_that_names_no_usable_proxy_is_named_in_the_error() {
        for value in ["ftp://user:secret@p:1", "user:secret@p:x", "http://"] {
            let error = chosen("wss://h.example/", &[("HTTPS_PROXY", value)]).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("HTTPS_PROXY"), "{text}");
            assert!(!text.contains("secret"), "{text}");
            assert!(!error.is_retryable());
        }
    }
}
