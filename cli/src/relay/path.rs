//! Which URL a request becomes: what stands after the relay's own base path is appended to `--to`.

use http::Uri;

/// Base paths of the relay and of the server.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The relay's own base path, without a slash at its end.
    base: String,
    /// The URL of `--to`: everything before its query, and its query.
    to: String,
    query: Option<String>,
}

/// Why a request has no URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoUrl {
    /// Its path is not below the base path.
    OutsideOfBase,
    /// Its path has a segment `.` or `..`, which could lead out of the path of `--to`.
    Dots,
}

impl Paths {
    /// `base` is the relay's own path, `to` the whole URL of `--to`.
    pub(super) fn new(base: &str, to: &str) -> Paths {
        let (to, query) = match to.split_once('?') {
            Some((to, query)) => (to, Some(query.to_owned())),
            None => (to, None),
        };
        Paths {
            base: base.trim_end_matches('/').to_owned(),
            to: to.to_owned(),
            query: query.filter(|query| !query.is_empty()),
        }
    }

    /// What stands after the base path, which ends where a segment ends.
    pub(super) fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&self.base);
        rest.filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The URL to ask for. If the request has nothing after the base path, it is `--to` as it is.
    pub(super) fn url(&self, request: &Uri) -> Result<String, NoUrl> {
        let rest = self.below(request.path()).ok_or(NoUrl::OutsideOfBase)?;
        if has_dots(rest) {
            return Err(NoUrl::Dots);
        }
        let mut url = self.to.clone();
        if !matches!(rest, "" | "/") {
            let end = url.trim_end_matches('/').len();
            url.truncate(end);
            url += rest;
        }
        let queries = [self.query.as_deref(), request.query()];
        let queries = queries.into_iter().flatten().filter(|it| !it.is_empty());
        for (number, query) in queries.enumerate() {
            url.push(if number == 0 { '?' } else { '&' });
            url += query;
        }
        Ok(url)
    }
}

/// Whether a path has a segment `.` or `..`, written in any way that a server may read as one.
pub(super) fn has_dots(path: &str) -> bool {
    let plain = path.to_ascii_lowercase();
    let plain = plain.replace("%2e", ".").replace("%2f", "/");
    let plain = plain.replace("%5c", "/").replace('\\', "/");
    plain.split('/').any(|segment| {
        // Some servers cut what stands behind a semicolon.
        let segment = segment.split(';').next().unwrap_or_default();
        matches!(segment, "." | "..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, to: &str, request: &str) -> Result<String, NoUrl> {
        Paths::new(base, to).url(&request.parse().unwrap())
    }

    #[test]
    fn what_stands_after_the_base_is_appended() {
        for (base, to, request, expected) in [
            ("", "ws://up", "/", "ws://up"),
            ("/", "ws://up/", "/", "ws://up/"),
            ("", "ws://up/feed", "/", "ws://up/feed"),
            ("", "ws://up/feed/", "/", "ws://up/feed/"),
            ("", "ws://up", "/a/b", "ws://up/a/b"),
            ("", "ws://up/", "/a/b/", "ws://up/a/b/"),
            ("", "ws://up/feed", "/a", "ws://up/feed/a"),
            ("/in", "ws://up/feed/", "/in", "ws://up/feed/"),
            ("/in", "ws://up/feed", "/in/", "ws://up/feed"),
            ("/in/", "ws://up/feed", "/in/a%20b", "ws://up/feed/a%20b"),
            ("", "ws://up/f?k=1", "/a?b=2", "ws://up/f/a?k=1&b=2"),
            ("", "ws://up/f?k=1", "/", "ws://up/f?k=1"),
            ("", "ws://up?", "/?b=2", "ws://up?b=2"),
            ("", "ws://up/f", "/a?", "ws://up/f/a"),
        ] {
            let found = url(base, to, request);
            assert_eq!(found.as_deref(), Ok(expected), "{base} {to} {request}");
        }
    }

    #[test]
    fn nothing_leads_out_of_either_base() {
        for request in ["/", "/inside", "/i", "/IN"] {
            assert_eq!(url("/in", "ws://up", request), Err(NoUrl::OutsideOfBase));
        }
        for request in [
            "/..",
            "/a/../b",
            "/./a",
            "/%2e%2E/a",
            "/.%2e",
            "/a%2f..%2fb",
            "/..%5ca",
            "/..;x/a",
        ] {
            assert_eq!(
                url("", "ws://up/feed", request),
                Err(NoUrl::Dots),
                "{request}"
            );
        }
        for request in ["/...", "/a..b", "/.well-known"] {
            assert!(url("", "ws://up", request).is_ok(), "{request}");
        }
    }
}
