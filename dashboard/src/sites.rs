//! Pages of other sites. A browser lets any page send requests to a server on its own machine. With a name
//! that leads to this machine (DNS rebinding), such a page could even read the answers.

use http::{HeaderMap, HeaderValue, header};

/// Whether a page of another site sends the request. Programs that are no browsers send no `Origin`.
pub(crate) fn is_other_site(headers: &HeaderMap) -> bool {
    let foreign = ["cross-site", "same-site"];
    let fetched = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if fetched.is_some_and(|site| foreign.iter().any(|it| it.as_bytes() == site)) {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let page = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    match page.zip(host(headers)) {
        Some(((_, page), host)) => !page.eq_ignore_ascii_case(host),
        None => true,
    }
}

/// Whether the header `Host` names this machine: as `localhost`, or by an address of its loopback interface.
/// A page of a site that has only a name that leads here (DNS rebinding) names that.
pub fn names_this_machine(headers: &HeaderMap) -> bool {
    host(headers).is_some_and(is_local)
}

/// Whether a proxy has passed the request on. Its client may be anywhere.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    let marks = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    marks.iter().any(|name| headers.contains_key(*name))
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// Whether a `Host` header names this machine, with or without a port.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        let pairs = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn only_pages_of_the_same_host_are_of_this_site() {
        for origin in ["http://a:1", "https://A:1"] {
            assert!(!is_other_site(&headers(&[
                ("host", "a:1"),
                ("origin", origin)
            ])));
        }
        for origin in ["http://b:1", "http://a:2", "null", ""] {
            let sent = headers(&[("host", "a:1"), ("origin", origin)]);
            assert!(is_other_site(&sent), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(is_other_site(&headers(&[
                ("host", "a"),
                ("sec-fetch-site", site)
            ])));
        }
        for site in ["same-origin", "none"] {
            assert!(!is_other_site(&headers(&[
                ("host", "a"),
                ("sec-fetch-site", site)
            ])));
        }
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:1",
            "[::1]:1",
            "127.9.9.9",
        ] {
            assert!(names_this_machine(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:1",
            "192.0.2.1",
            ":1",
            "",
        ] {
            assert!(!names_this_machine(&headers(&[("host", host)])), "{host}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }
}
