//! Pages of other sites. A browser lets any page send requests to a server on its own machine. Such a
//! page could publish, and with a name that leads to this machine (DNS rebinding) it could read.

use http::{HeaderMap, HeaderValue, header};
use unstall_dashboard::names_this_machine;

const OTHER_SITE: &str = "Pages of other sites may not use this hub.\n";

const OTHER_NAME: &str = "Without --token-key this hub is for programs on its own machine: address it \
as localhost or 127.0.0.1.\n";

/// Refuses a request that a page of another site sends. With `local`, the host has to be a name or
/// address of this machine, too.
pub(super) fn check(headers: &HeaderMap, local: bool) -> Result<(), &'static str> {
    if local && !names_this_machine(headers) {
        return Err(OTHER_NAME);
    }
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.and_then(|host| std::str::from_utf8(host).ok());
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().ok();
    let page = origin.and_then(|origin| origin.split_once("://"));
    match page.zip(host) {
        Some(((_, page), host)) if page.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(OTHER_SITE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(host: &str, origin: Option<&str>, local: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check(&headers, local).is_ok()
    }

    #[test]
    fn only_pages_of_the_same_host_are_let_in() {
        assert!(checked("hub.example", None, false));
        assert!(checked(
            "hub.example:1",
            Some("https://HUB.example:1"),
            false
        ));
        for origin in ["https://evil.example", "null", "https://hub.example:2", ""] {
            assert!(!checked("hub.example:1", Some(origin), false), "{origin}");
        }
    }

    #[test]
    fn an_open_hub_goes_by_names_of_its_machine_only() {
        for host in [
            "localhost",
            "localhost:9200",
            "127.0.0.1:1",
            "[::1]:1",
            "[::1]",
            "127.9.9.9",
        ] {
            assert!(checked(host, None, true), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9200",
            "192.0.2.1:1",
            ":1",
            "",
        ] {
            assert!(
                !checked(host, Some(&format!("http://{host}")), true),
                "{host}"
            );
        }
    }
}
