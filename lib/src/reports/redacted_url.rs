//! URLs whose secrets are not printed.

use std::fmt;

use http::Uri;

/// A URL that may hold a password or a token.
///
/// `Display` and `Debug` show its scheme, host, port and path, without user information, query,
/// fragment and path parameters (`;…`). If the URL is not well-formed, they show only what cannot be part of a password:
/// scheme and host, the scheme alone, or nothing. [`reveal`](Self::reveal) returns the whole URL.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// Takes any text. Whether it is a valid URL is checked when it is used.
    pub fn new(url: impl Into<String>) -> RedactedUrl {
        RedactedUrl(url.into())
    }

    /// The whole URL, with its secrets. Do not print it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RedactedUrl {
    fn from(url: &str) -> RedactedUrl {
        RedactedUrl::new(url)
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(&self.0), f)
    }
}

/// The part of `url` that may be shown. An ellipsis stands for the rest.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|(it, _)| is_scheme(it)) else {
        // The target of a redirect may be just a path. Anything else may be a password.
        return match url.starts_with('/') && !url.contains('@') {
            true => cut(url),
            false => "…".to_owned(),
        };
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    // If an `@` comes after the "host", that "host" is part of a user name or password.
    if behind.contains('@') || !is_host_and_port(host) {
        return format!("{scheme}://…");
    }
    let hidden = if host.len() < authority.len() {
        "…@"
    } else {
        ""
    };
    match url.parse::<Uri>() {
        Ok(_) => format!("{scheme}://{hidden}{host}{}", cut(behind)),
        Err(_) => format!("{scheme}://{hidden}{host}…"),
    }
}

/// A path, up to its parameters, the query or the fragment. Their marks may be percent-encoded, by
/// mistake or twice.
fn cut(path: &str) -> String {
    const ENCODED: [&str; 6] = ["%3F", "%3f", "%23", "%3B", "%3b", "%25"];
    let plain = path.find(['?', '#', ';']);
    let encoded = ENCODED.iter().filter_map(|mark| path.find(mark)).min();
    let end = plain.into_iter().chain(encoded).min().unwrap_or(path.len());
    match path[..end].chars().all(|c| c.is_ascii_graphic()) {
        true if end == path.len() => path.to_owned(),
        true => format!("{}…", &path[..end]),
        false => "…".to_owned(),
    }
}

fn is_scheme(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(rest)
}

/// A name, an IPv4 or a bracketed IPv6 address, and perhaps a port.
fn is_host_and_port(text: &str) -> bool {
    let in_brackets = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let (host, is_host, port) = match text.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((address, port)) => (address, address.chars().all(in_brackets), port),
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let host = &text[..end];
            (host, host.chars().all(in_name), &text[end..])
        }
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.chars().all(|c| c.is_ascii_digit()),
        None => port.is_empty(),
    };
    !host.is_empty() && is_host && is_port
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn url_is_shown_without_user_information_query_and_fragment() {
        for (url, expected) in [
            ("wss://feed.example/stream", "wss://feed.example/stream"),
            ("ws://[::1]:9100", "ws://[::1]:9100"),
            ("ws://h/a?token=secret", "ws://h/a…"),
            ("ws://secret:secret@h:1/a", "ws://…@h:1/a"),
            ("ws://secret@h?secret", "ws://…@h…"),
            ("ws://se@cret@h/", "ws://…@h/"),
            ("/login?next=secret", "/login…"),
            ("ws://h/a;session=secret", "ws://h/a…"),
            ("ws://h/a%3Ftoken=secret", "ws://h/a…"),
            ("ws://h/a%253Ftoken=secret", "ws://h/a…"),
        ] {
            let url = RedactedUrl::new(url);
            assert_eq!(url.to_string(), expected);
            assert_eq!(format!("{url:?}"), format!("{expected:?}"));
        }
    }

    /// Once the password was printed where it held a `#`, `/` or `?`, and where there was no scheme.
    #[test]
    fn url_that_is_not_well_formed_shows_no_part_of_a_password() {
        for (url, expected) in [
            ("ws://user:hunter#2@h:1/", "ws://…"),
            ("ws://user:hunter/2@h:1/", "ws://…"),
            ("ws://user:hunter?2@h:1/", "ws://…"),
            (r"ws://user:hunter\2@h:1/", "ws://…"),
            ("ws://hunter2/@h", "ws://…"),
            ("ws://user:hunter 2@h/", "ws://…@h…"),
            ("ws://user:hunter%40h/", "ws://…"),
            ("ws://user:hunter2", "ws://…"),
            ("user:hunter2@h/", "…"),
            ("hunter2", "…"),
            ("//user:hunter2@h/", "…"),
            ("user:hunter2://h/", "…"),
            ("/a\x1b[2Jhunter2", "…"),
            ("ws://h:99999/", "ws://h:99999/"),
            ("", "…"),
        ] {
            assert_eq!(RedactedUrl::new(url).to_string(), expected, "{url}");
        }
    }

    proptest! {
        /// The secret is where a URL may hold one, and any of its characters may be left
        /// unencoded. Only digits alone could be taken for a port.
        #[test]
        fn no_url_shows_its_password_query_or_fragment(
            scheme in "wss?|https?|socks5h?|x",
            before in r"(u|u%40x|[a-z]{0,3}|)",
            secret in r"[ -~]{0,6}KEY[ -~é＠]{0,6}",
            host in r"h\.example|\[::1\]|10\.0\.0\.1",
            port in "|:1|:65535",
            path in "(/[a-z]{0,4}){0,2}",
            mark in "\\?|#|/;|\\?a=|/\\?t=|#a=",
        ) {
            for url in [
                format!("{scheme}://{before}:{secret}@{host}{port}{path}"),
                format!("{scheme}://{secret}@{host}{port}{path}"),
                format!("{before}:{secret}@{host}{port}{path}"),
                format!("{scheme}:{before}:{secret}@{host}{path}"),
                format!("{scheme}://{host}{port}{path}{mark}{secret}"),
                format!("{scheme}://{before}:pw@{host}{port}{path}{mark}{secret}"),
                format!("{path}{mark}{secret}"),
            ] {
                let url = RedactedUrl::new(url);
                for shown in [url.to_string(), format!("{url:?}")] {
                    prop_assert!(!shown.contains("KEY"), "{:?} is shown as {}", url.reveal(), shown);
                    prop_assert!(shown.chars().all(|c| c.is_ascii_graphic() || c == '…'));
                }
            }
        }
    }

    #[test]
    fn whole_url_is_there_for_whoever_asks() {
        assert_eq!(RedactedUrl::new("ws://a:b@h/?c").reveal(), "ws://a:b@h/?c");
    }
}
