//! Who may come in, and what a request gets before it is answered: a connection upstream.

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{HeaderMap, Request};
use tokio::{runtime::Handle, sync::watch, time::timeout};
use unstall::{ConnectError, Connection, Rejection, Sender};

use super::{
    ending::Farewell,
    limits, lock,
    pair::Offer,
    routes::{Route, Routes, Seat},
    upstream::{self, Asked},
};
use crate::{
    failure::chain,
    serve::{check_token, shows},
};

/// Checks requests, and connects upstream for them.
#[derive(Debug)]
pub(super) struct Door {
    /// What counts for requests from now on.
    current: Mutex<Arc<Current>>,
    /// Routes of earlier files that may still have clients.
    former: Mutex<Vec<Weak<Route>>>,
    /// Only this machine reaches the relay.
    local: bool,
    /// Requests for which no connection upstream could be made.
    pub(super) unreached: AtomicU64,
    /// Who waits here learns when no connection upstream is left whose client has not come in.
    unclaimed: watch::Sender<()>,
}

/// What a reload replaces.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// `None`: everybody may come in.
    pub(super) token: Option<Arc<str>>,
    pub(super) routes: Routes,
}

/// The route that was found for a request, among its extensions.
#[derive(Clone, Debug)]
struct Found {
    route: Arc<Route>,
    /// The client's token is for the relay, and goes no further.
    own_token: bool,
}

/// The request upstream of a client, once more.
#[derive(Clone, Debug)]
pub(super) struct Again {
    route: Arc<Route>,
    asked: Asked,
}

/// A client that came in: its connection upstream, and its place in its route.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) upstream: Connection,
    pub(super) seat: Seat,
}

/// The connection upstream that was made for a request, among the extensions of the request.
#[derive(Clone, Debug)]
struct Made(Arc<Slot>);

/// A connection upstream until its client has come in. If that never happens, it is closed.
#[derive(Debug)]
struct Slot(Mutex<Option<(Entered, Unclaimed)>>);

/// Held until a client has come in, or its connection upstream is closed.
type Unclaimed = watch::Receiver<()>;

impl Slot {
    fn take(&self) -> Option<(Entered, Unclaimed)> {
        lock(&self.0).take()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((Entered { upstream, .. }, unclaimed)) = self.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let farewell = Farewell::client_never_came();
            let _ = upstream.close(farewell.code, &farewell.reason).await;
            drop(unclaimed);
        });
    }
}

impl Door {
    /// `local`: only this machine reaches the relay.
    pub(super) fn new(current: Current, local: bool) -> Door {
        Door {
            current: Mutex::new(Arc::new(current)),
            former: Mutex::default(),
            local,
            unreached: AtomicU64::new(0),
            unclaimed: watch::Sender::default(),
        }
    }

    /// From now on this counts. Who has come in stays.
    pub(super) fn replace(&self, current: Current) {
        let old = std::mem::replace(&mut *lock(&self.current), Arc::new(current));
        let mut former = lock(&self.former);
        former.retain(|route| route.strong_count() > 0);
        former.extend(old.routes.iter().map(Arc::downgrade));
    }

    /// Whether a session's client may be one that resumes: a route that is gone has clients, and took such
    /// requests.
    fn may_resume(&self, request: &Request<()>) -> bool {
        let former = lock(&self.former);
        let mut routes = former.iter().filter_map(Weak::upgrade);
        routes.any(|route| route.sessions && route.takes(request))
    }

    fn current(&self) -> Arc<Current> {
        lock(&self.current).clone()
    }

    /// Waits until the connections upstream are closed whose clients never came in, also those of which
    /// it is not known yet: the server is shut down, and the last of its tasks are about to end.
    pub(super) async fn closed(&self) {
        let closed = timeout(limits::UNCLAIMED_TIMEOUT, self.unclaimed.closed());
        if closed.await.is_err() {
            tracing::warn!("some connections upstream end without a close");
        }
    }

    /// What clients have to show now, if anything.
    pub(super) fn token(&self) -> Option<Arc<str>> {
        self.current().token.clone()
    }

    /// Whether there is anybody who may see how the relay is doing.
    pub(super) fn may_be_watched(&self) -> bool {
        self.local || self.token().is_some()
    }

    /// Whether a request may see the figures. Without a token, everybody who reaches a relay of this machine may.
    pub(super) fn may_watch(&self, headers: &HeaderMap) -> bool {
        match self.token() {
            Some(token) => shows(headers, &token),
            None => self.local,
        }
    }

    /// Checks a request. Connects upstream before it is answered, because the answer depends on that:
    /// its status, the subprotocol, and its headers.
    ///
    /// A session's request may be one to resume. Only a relay says which it is. For the sessions of
    /// others the connection is made once the session is open.
    pub(super) async fn enter(&self, mut request: Request<()>) -> Result<Request<()>, Rejection> {
        let current = self.current();
        let token = current.token.as_deref();
        check_token(request.headers(), token)?;
        let offer = Offer::take(&mut request.headers().clone());
        let may_resume = offer.session && !offer.opens;
        let Some(route) = current.routes.find(&request) else {
            return match may_resume && self.may_resume(&request) {
                true => Ok(request),
                false => Err(Rejection::not_found(
                    "The relay does not serve this path.\n",
                )),
            };
        };
        let own_token = token.is_some();
        let asked = route.upstream.asked(&request, own_token)?;
        let found = Found {
            route: route.clone(),
            own_token,
        };
        request.extensions_mut().insert(found);
        if route.sessions && may_resume {
            return Ok(request);
        }
        let seat = route.seat()?;
        let reached = route.upstream.reach(asked).await.map_err(|error| {
            self.unreached.fetch_add(1, Relaxed);
            upstream::rejection(&error, limits::RETRY_AFTER)
        })?;
        let acceptance = match route.sessions {
            true => reached.acceptance,
            false => reached.acceptance.plain(),
        };
        let entered = Entered {
            upstream: reached.connection,
            seat,
        };
        let slot = Slot(Mutex::new(Some((entered, self.unclaimed.subscribe()))));
        let made = Made(Arc::new(slot));
        request.extensions_mut().insert(made);
        request.extensions_mut().insert(acceptance);
        Ok(request)
    }

    /// What is asked for when the connection upstream of a client is made again. It offers all
    /// subprotocols that the client offered: among these may be a token.
    pub(super) fn asked_again(&self, client: &Sender) -> Result<Again, Farewell> {
        let request = client.request().ok_or_else(Farewell::shutting_down)?;
        let found = request.extensions().get::<Found>();
        let Found { route, own_token } = found.ok_or_else(Farewell::no_route)?;
        let asked = route.upstream.asked(&request, *own_token);
        let asked = asked.map_err(|_| Farewell::shutting_down())?;
        Ok(Again {
            route: route.clone(),
            asked,
        })
    }

    /// Makes it.
    pub(super) async fn reach_again(&self, again: Again) -> Result<Connection, ConnectError> {
        let Again { route, asked } = again;
        Ok(route.upstream.reach(asked).await?.connection)
    }

    /// The connection upstream of a client that came in. For the session of a client that is no relay,
    /// it is made now.
    pub(super) async fn entered(&self, client: &Connection) -> Result<Entered, Farewell> {
        let Some(request) = client.request() else {
            return Err(Farewell::shutting_down());
        };
        let made = request.extensions().get::<Made>();
        if let Some((entered, _)) = made.and_then(|made| made.0.take()) {
            return Ok(entered);
        }
        let Some(Found { route, own_token }) = request.extensions().get() else {
            // It might have resumed a session of a route that is gone.
            return Err(Farewell::no_route());
        };
        let seat = route.seat().map_err(|_| Farewell::route_is_full())?;
        let asked = route.upstream.asked(&request, *own_token);
        let asked = asked.map_err(|_| Farewell::shutting_down())?;
        match route.upstream.reach(asked).await {
            Ok(reached) => Ok(Entered {
                upstream: reached.connection,
                seat,
            }),
            Err(error) => {
                self.unreached.fetch_add(1, Relaxed);
                tracing::warn!("upstream cannot be reached: {}", chain(&error));
                Err(Farewell::of_refusal(&error))
            }
        }
    }
}
