//! Which upstream a request is for. A reload replaces all routes at once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use clap::Args;
use http::{HeaderMap, Request, header};
use unstall::{Budget, Options, RedactedUrl, Rejection};

use super::{
    fresh, limits,
    options::RouteOptions,
    path::Paths,
    pool::Pools,
    record::Recorder,
    renewal::Policy,
    upstream::{Upstream, Wanted},
};
use crate::{connect::check_url, failure::Failure};

/// Which requests a route is for
#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// Requests whose path begins with this one, which ends at a slash. It is taken off
    #[arg(long, default_value = "/", value_parser = prefix)]
    pub(super) path: String,

    /// Requests to this host only
    #[arg(long, value_parser = host)]
    pub(super) host: Option<String>,

    /// The most clients of this route at once
    #[arg(long)]
    pub(super) max_clients: Option<usize>,
}

/// What a relay is told of a route.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) scope: Scope,
    pub(super) options: RouteOptions,
    /// Its line in the file.
    pub(super) line: Option<usize>,
}

/// What routes have to know of their process.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Options of every connection.
    pub(super) options: Options,
    /// All connections draw from it.
    pub(super) budget: Budget,
    /// All clients draw from them.
    pub(super) pools: Pools,
    /// The relay's clients use TLS.
    pub(super) secure: bool,
}

/// A way upstream. Clients that have come in keep theirs, whatever a reload brings.
#[derive(Debug)]
pub(super) struct Route {
    scope: Scope,
    to: RedactedUrl,
    pub(super) upstream: Upstream,
    /// Clients may open sessions.
    pub(super) sessions: bool,
    pub(super) policy: Policy,
    pub(super) recorder: Option<Arc<Recorder>>,
    clients: AtomicUsize,
}

/// A client's place among those of its route.
#[derive(Debug)]
pub(super) struct Seat(Arc<Route>);

/// The routes of a relay, the one that counts first.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(Vec<Arc<Route>>);

impl Planned {
    /// The route, without its recorder. Its files are read.
    pub(super) fn route(&self, facts: &Facts) -> Result<Route, Failure> {
        let route = self.checked(facts);
        route.map_err(|failure| match self.line {
            Some(line) => failure.of(format_args!("the route of line {line}")),
            None => failure,
        })
    }

    fn checked(&self, facts: &Facts) -> Result<Route, Failure> {
        let Planned { scope, options, .. } = self;
        let to = options.to.as_ref();
        let to = to.ok_or_else(|| Failure::usage("--to is missing: the server to pass on to"))?;
        check_url(to)?;
        options.record.check()?;
        let url = to.reveal();
        let wanted = match (options.plain, options.require_session) {
            (true, _) => Wanted::Plain,
            (false, true) => Wanted::Session,
            (false, false) => Wanted::Offered,
        };
        let upstream = Upstream {
            paths: Paths::new(&scope.path, url),
            way: options.reach.prepared()?,
            options: options
                .upstream(facts.options.clone())
                .budget(facts.budget.clone()),
            wanted,
            own: own_headers(options)?,
            fresh: options.fresh.source()?,
            keep_host: options.keep_host,
            credentials: has_credentials(url),
            secure: facts.secure,
        };
        Ok(Route {
            scope: scope.clone(),
            to: to.clone(),
            upstream,
            sessions: !options.plain,
            policy: options.renewal.policy(&facts.pools)?,
            recorder: None,
            clients: AtomicUsize::new(0),
        })
    }
}

impl Route {
    /// A place for one more client.
    pub(super) fn seat(self: &Arc<Self>) -> Result<Seat, Rejection> {
        let most = self.scope.max_clients.unwrap_or(usize::MAX);
        let more = |count: usize| (count < most).then(|| count.saturating_add(1));
        match self.clients.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(Seat(self.clone())),
            Err(_) => Err(Rejection::unavailable(
                "This route has as many clients as it may have.\n",
                limits::RETRY_AFTER,
            )),
        }
    }

    /// Whether a request is for this route.
    pub(super) fn takes(&self, request: &Request<()>) -> bool {
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|it| it.to_str().ok()).map(without_port);
        let here = self.scope.host.as_deref();
        here.is_none_or(|here| host.is_some_and(|host| host.eq_ignore_ascii_case(here)))
            && self.upstream.paths.below(request.uri().path()).is_some()
    }

    /// A longer one goes before a shorter one, and one with a host before one without.
    fn rank(&self) -> (bool, usize) {
        (self.scope.host.is_some(), self.scope.path.len())
    }
}

impl Scope {
    /// Everything below this path.
    pub(super) fn below(path: &str) -> Scope {
        Scope {
            path: path.trim_end_matches('/').to_owned(),
            host: None,
            max_clients: None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or_default();
        match &*self.path {
            "" => write!(f, "{host}/"),
            path => write!(f, "{host}{path}"),
        }
    }
}

/// What it does, without secrets.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} goes to {}", self.scope, self.to)
    }
}

impl Seat {
    pub(super) fn route(&self) -> &Arc<Route> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}

impl Routes {
    pub(super) fn new(routes: Vec<Route>) -> Routes {
        let mut routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.rank()));
        Routes(routes)
    }

    /// The route of a request.
    pub(super) fn find(&self, request: &Request<()>) -> Option<&Arc<Route>> {
        self.0.iter().find(|route| route.takes(request))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter()
    }
}

/// Two routes for the same requests.
pub(super) fn twice(routes: &[Planned]) -> Option<&Planned> {
    let key = |it: &Planned| (it.scope.host.clone(), it.scope.path.clone());
    let mut seen = std::collections::HashSet::new();
    routes.iter().find(|route| !seen.insert(key(route)))
}

/// The operator's headers, which are those of `--header`.
fn own_headers(options: &RouteOptions) -> Result<HeaderMap, Failure> {
    let mut own = HeaderMap::new();
    for header in options.reach.headers() {
        let (name, value) = header?;
        let (name, value) = fresh::header(&format!("{name}: {value}")).ok_or_else(|| {
            Failure::usage("a header of -H has characters that headers must not have")
        })?;
        own.append(name, value);
    }
    Ok(own)
}

fn has_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.contains('@')
}

/// The host of a `Host` header.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Checks the path of a route. It loses the slash at its end.
fn prefix(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("a path begins with a slash, as /feed".to_owned());
    }
    match text.parse::<http::Uri>() {
        Ok(uri) if uri.path() == text && !super::path::has_dots(text) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("a path has no query, no fragment and no segment . or ..".to_owned()),
    }
}

/// Checks the host of a route.
fn host(text: &str) -> Result<String, String> {
    let is_host = !text.is_empty()
        && without_port(text) == text
        && http::uri::Authority::try_from(text).is_ok_and(|it| it.host() == text);
    match is_host {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a host is a name or an address, without a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(places: &[(Option<&str>, &str)]) -> Routes {
        let facts = Facts {
            options: Options::default(),
            budget: Budget::new(1 << 20),
            pools: Pools::default(),
            secure: false,
        };
        let route = |(of, path): &(Option<&str>, &str)| {
            let mut words = vec!["--to=ws://up.example".to_owned()];
            words.push(format!("--path={path}"));
            words.extend(of.map(|host| format!("--host={host}")));
            let (scope, options) = super::super::file::route_of(&words);
            let planned = Planned {
                scope,
                options,
                line: None,
            };
            planned.route(&facts).unwrap()
        };
        Routes::new(places.iter().map(route).collect())
    }

    fn found(routes: &Routes, host: &str, path: &str) -> Option<String> {
        let request = Request::get(path).header("host", host).body(()).unwrap();
        routes.find(&request).map(|it| it.scope.to_string())
    }

    #[test]
    fn the_host_goes_first_and_then_the_longest_path_of_whole_segments() {
        let routes = routes(&[
            (None, "/"),
            (None, "/feed/"),
            (None, "/feed/fast"),
            (Some("A.example"), "/feed"),
            (Some("[::1]"), "/six"),
        ]);
        for (host, path, expected) in [
            ("b.example", "/", "/"),
            ("b.example", "/feeds", "/"),
            ("b.example", "/feed", "/feed"),
            ("b.example", "/feed/slow", "/feed"),
            ("b.example", "/feed/fast/er", "/feed/fast"),
            ("b.example", "/feed/faster", "/feed"),
            ("a.EXAMPLE:9300", "/feed/fast", "a.example/feed"),
            ("a.example", "/other", "/"),
            ("[::1]:9300", "/six", "[::1]/six"),
        ] {
            assert_eq!(
                found(&routes, host, path).as_deref(),
                Some(expected),
                "{host} {path}"
            );
        }
        assert_eq!(found(&self::routes(&[(None, "/feed")]), "a", "/"), None);
    }

    #[test]
    fn a_path_and_a_host_are_checked() {
        assert_eq!(prefix("/"), Ok(String::new()));
        assert_eq!(prefix("/a/b/"), Ok("/a/b".to_owned()));
        for wrong in ["", "a", "/a?b", "/a#b", "/a/../b", "/%2e", "/a b"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        assert_eq!(host("A.example"), Ok("a.example".to_owned()));
        assert_eq!(host("[::1]"), Ok("[::1]".to_owned()));
        for wrong in ["", "a:80", "http://a", "a/b", "u@a", "[::1]:80"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
