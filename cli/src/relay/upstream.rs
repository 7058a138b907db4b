//! Connections upstream, and what becomes of those that cannot be made.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use unstall::{
    Acceptance, BearerToken, Client, ConnectError, Connection, Options, PeerAddr, Rejection,
};

use super::{
    fresh::Source,
    headers, lock,
    pair::{self, Offer},
    path::{NoUrl, Paths},
};
use crate::{connect::Prepared, failure::chain};

/// Which kind of connection upstream is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A session if the client offers no subprotocol of its own, and upstream speaks sessions.
    Offered,
    Session,
    Plain,
}

/// Where upstream is, and how to connect to it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) paths: Paths,
    pub(super) way: Prepared,
    pub(super) options: Options,
    pub(super) wanted: Wanted,
    /// The operator's headers, which replace the client's.
    pub(super) own: HeaderMap,
    pub(super) fresh: Source,
    pub(super) keep_host: bool,
    /// The URL of `--to` has a user and a password.
    pub(super) credentials: bool,
    /// The relay's clients use TLS.
    pub(super) secure: bool,
}

/// A request as it goes upstream.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    url: String,
    headers: HeaderMap,
    offer: Offer,
}

/// A connection upstream, and what its answer has for the client.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) connection: Connection,
    pub(super) acceptance: Acceptance,
}

impl Upstream {
    /// The request upstream that a client's request becomes. `own_token`: the client's bearer token is
    /// for the relay, and goes no further.
    pub(super) fn asked(&self, request: &Request<()>, own_token: bool) -> Result<Asked, Rejection> {
        let url = self.paths.url(request.uri()).map_err(|why| match why {
            NoUrl::OutsideOfBase => Rejection::not_found("The relay does not serve this path.\n"),
            NoUrl::Dots => {
                let why = "A path must not have the segments . and .. here.\n";
                Rejection::new(StatusCode::BAD_REQUEST, why)
            }
        })?;
        let mut all = request.headers().clone();
        let mut offer = Offer::take(&mut all);
        let mut headers = headers::end_to_end(&all);
        headers::tell_client(
            &mut headers,
            request.extensions().get::<PeerAddr>().copied(),
            self.secure,
        );
        if !self.keep_host {
            headers.remove(header::HOST);
        }
        if own_token {
            headers.remove(header::AUTHORIZATION);
        }
        self.pass_token(&all, &mut headers, &mut offer, own_token);
        if self.credentials {
            headers.remove(header::AUTHORIZATION);
        }
        headers::replace(&mut headers, self.own.clone());
        Ok(Asked {
            url,
            headers,
            offer,
        })
    }

    /// A page shows its token among its subprotocols. Upstream gets it as a header, because a session
    /// upstream is offered to clients without other subprotocols only.
    fn pass_token(
        &self,
        all: &HeaderMap,
        headers: &mut HeaderMap,
        offer: &mut Offer,
        own_token: bool,
    ) {
        let is_token = |name: &String| name.starts_with("unstall.bearer.");
        if !offer.names.iter().any(is_token) && !offer.session {
            return;
        }
        offer.names.retain(|name| !is_token(name));
        let token = BearerToken::of(all).filter(|_| !own_token);
        let Some(token) = token.filter(|_| !headers.contains_key(header::AUTHORIZATION)) else {
            return;
        };
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.reveal())) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
    }

    /// Connects upstream. The connection then resumes its session by itself, with fresh headers.
    pub(super) async fn reach(&self, asked: Asked) -> Result<Reached, ConnectError> {
        let Asked {
            url,
            headers,
            offer,
        } = asked;
        let names = offer.names;
        let opened = Arc::new(AtomicBool::new(false));
        let headers = Arc::new(Mutex::new(headers));
        let settled: Arc<OnceLock<Option<String>>> = Arc::default();
        let client = self.client(&url, &names);
        let made = {
            let (opened, settled, fresh) = (opened.clone(), settled.clone(), self.fresh.clone());
            let headers = headers.clone();
            let (names, pairs) = (names.clone(), self.offers_session(&names));
            move |_| {
                let mut headers = lock(&headers).clone();
                if pairs {
                    // Only the first request opens the stream. Once a subprotocol is agreed, the
                    // later ones offer no other.
                    let settled = settled.get().map(|name| Vec::from_iter(name.clone()));
                    let names = settled.as_ref().unwrap_or(&names);
                    headers::replace(&mut headers, Offer::headers(names, !opened.load(SeqCst)));
                }
                let fresh = fresh.clone();
                async move {
                    headers::replace(&mut headers, fresh.make().await?);
                    Ok(headers)
                }
            }
        };
        let connection = client.headers_with(made).connect().await?;
        opened.store(true, SeqCst);
        if !connection.is_session() {
            // There is no later request, so an idle connection need not hold them.
            *lock(&headers) = HeaderMap::new();
        }
        let mut answer = connection.response().map_or_else(HeaderMap::new, |answer| {
            headers::end_to_end(answer.headers())
        });
        let by_relay = pair::take_chosen(&mut answer);
        let chosen = match connection.is_session() {
            true => by_relay.filter(|name| names.contains(name)),
            false => connection.subprotocol(),
        };
        let _ = settled.set(chosen.clone());
        let acceptance = accepted(answer, chosen, offer.session);
        Ok(Reached {
            connection,
            acceptance,
        })
    }

    /// Whether the request upstream offers a session. Beside other subprotocols it offers none.
    fn offers_session(&self, names: &[String]) -> bool {
        match self.wanted {
            Wanted::Offered => names.is_empty(),
            Wanted::Session => true,
            Wanted::Plain => false,
        }
    }

    fn client(&self, url: &str, names: &[String]) -> Client {
        let mut client = self.way.client(url).options(self.options.clone());
        client = match self.wanted {
            Wanted::Offered => client,
            Wanted::Session => return client.require_session().without_fresh_session(),
            Wanted::Plain => client.plain(),
        };
        for name in names {
            client = client.subprotocol(name);
        }
        // A plain one that is lost needs another request, and what its client said on it.
        let client = client.optional_subprotocol().without_fresh_session();
        client.reconnect_sessions_only()
    }
}

/// What the client's answer has: the headers of upstream's, and the subprotocol. A relay in front gets
/// that in a header.
fn accepted(headers: HeaderMap, chosen: Option<String>, session: bool) -> Acceptance {
    let mut acceptance = Acceptance::default();
    for (name, value) in &headers {
        acceptance = acceptance.header(name.clone(), value.clone());
    }
    match chosen {
        Some(name) if session => match pair::chosen(&name) {
            Some((name, value)) => acceptance.header(name, value),
            None => acceptance,
        },
        Some(name) => acceptance.subprotocol(name),
        None => acceptance,
    }
}

/// How a client is told that upstream cannot be reached. A refusal of upstream passes with its status,
/// its headers and the beginning of its text. Of anything else only the log has the details.
pub(super) fn rejection(error: &ConnectError, retry_after: Duration) -> Rejection {
    match error {
        ConnectError::Refused {
            status,
            body,
            headers,
            ..
        } if status.as_u16() >= 300 => {
            let mut rejection = Rejection::new(*status, body.as_str());
            for (name, value) in &headers::end_to_end(headers) {
                // The text is in UTF-8 and not compressed, whatever it was.
                let of_text = [header::CONTENT_TYPE, header::CONTENT_ENCODING];
                if !of_text.contains(name) {
                    rejection = rejection.header(name.clone(), value.clone());
                }
            }
            rejection
        }
        ConnectError::Timeout { .. } => {
            let why = "The server behind this relay did not answer in time.\n";
            Rejection::new(StatusCode::GATEWAY_TIMEOUT, why)
        }
        error => {
            tracing::warn!("upstream cannot be reached: {}", chain(error));
            let why = "The server behind this relay cannot be reached.\n";
            let rejection = Rejection::new(StatusCode::BAD_GATEWAY, why);
            match error.is_retryable() {
                true => rejection.header(
                    header::RETRY_AFTER,
                    HeaderValue::from(retry_after.as_secs().max(1)),
                ),
                false => rejection,
            }
        }
    }
}
