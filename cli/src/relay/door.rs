//! Who may come in, and what a request gets before it is answered: a connection upstream.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, Request};
use tokio::{runtime::Handle, task::JoinSet};
use unstall::{ConnectError, Connection, Rejection, Sender};

use super::{
    ending::Farewell,
    limits,
    pair::Offer,
    upstream::{self, Asked, Upstream},
};
use crate::{
    failure::{Failure, chain},
    serve::{check_token, read_token, shows},
};

/// Checks requests, and connects upstream for them.
#[derive(Debug)]
pub(super) struct Door {
    /// `None`: everybody may come in.
    token: Option<String>,
    /// Clients may open sessions.
    sessions: bool,
    pub(super) upstream: Upstream,
    /// Requests for which no connection upstream could be made.
    pub(super) unreached: AtomicU64,
    retry_after: Duration,
    /// Connections upstream that close because their clients never came in.
    closing: Arc<Mutex<JoinSet<()>>>,
}

/// The connection upstream that was made for a request, among the extensions of the request.
#[derive(Clone, Debug)]
struct Made(Arc<Slot>);

/// A connection upstream until its client has come in. If that never happens, it is closed.
#[derive(Debug)]
struct Slot {
    connection: Mutex<Option<Connection>>,
    closing: Arc<Mutex<JoinSet<()>>>,
}

impl Slot {
    fn take(&self) -> Option<Connection> {
        lock(&self.connection).take()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(connection) = self.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let close = async move {
            let farewell = Farewell::client_never_came();
            let _ = connection.close(farewell.code, &farewell.reason).await;
        };
        let mut closing = lock(&self.closing);
        while closing.try_join_next().is_some() {}
        closing.spawn_on(close, &runtime);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    pub(super) fn new(
        upstream: Upstream,
        token: Option<&Path>,
        sessions: bool,
    ) -> Result<Door, Failure> {
        Ok(Door {
            token: token.map(read_token).transpose()?,
            sessions,
            upstream,
            unreached: AtomicU64::new(0),
            retry_after: limits::RETRY_AFTER,
            closing: Arc::default(),
        })
    }

    /// Waits until connections upstream are closed whose clients never came in. Closing has its own
    /// deadline.
    pub(super) async fn closed(&self) {
        let mut closing = std::mem::take(&mut *lock(&self.closing));
        while closing.join_next().await.is_some() {}
    }

    /// What clients have to show, if anything.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether a request may see the figures. `open`: without a token everybody may.
    pub(super) fn may_watch(&self, headers: &HeaderMap, open: bool) -> bool {
        match self.token() {
            Some(token) => shows(headers, token),
            None => open,
        }
    }

    /// Checks a request. Connects upstream before it is answered, because the answer depends on that:
    /// its status, the subprotocol, and its headers.
    ///
    /// A session's request may be one to resume. Only a relay says which it is. For the sessions of
    /// others the connection is made once the session is open.
    pub(super) async fn enter(&self, mut request: Request<()>) -> Result<Request<()>, Rejection> {
        check_token(request.headers(), self.token())?;
        let asked = self.upstream.asked(&request, self.token.is_some())?;
        let offer = Offer::take(&mut request.headers().clone());
        if self.sessions && offer.session && !offer.opens {
            return Ok(request);
        }
        let reached = self.upstream.reach(asked).await.map_err(|error| {
            self.unreached.fetch_add(1, Relaxed);
            upstream::rejection(&error, self.retry_after)
        })?;
        let made = Made(Arc::new(Slot {
            connection: Mutex::new(Some(reached.connection)),
            closing: self.closing.clone(),
        }));
        request.extensions_mut().insert(made);
        request.extensions_mut().insert(reached.acceptance);
        Ok(request)
    }

    /// What is asked for when the connection upstream of a client is made again. It offers no other
    /// subprotocol than the one that was agreed.
    pub(super) fn asked_again(
        &self,
        client: &Sender,
        subprotocol: Option<String>,
    ) -> Result<Asked, Farewell> {
        let request = client.request().ok_or_else(Farewell::shutting_down)?;
        let asked = self.upstream.asked(&request, self.token.is_some());
        let asked = asked.map_err(|_| Farewell::shutting_down())?;
        Ok(asked.offering(subprotocol))
    }

    /// Makes it.
    pub(super) async fn reach_again(&self, asked: Asked) -> Result<Connection, ConnectError> {
        Ok(self.upstream.reach(asked).await?.connection)
    }

    /// The connection upstream of a client that came in. For the session of a client that is no relay,
    /// it is made now.
    pub(super) async fn upstream_of(&self, client: &Connection) -> Result<Connection, Farewell> {
        let Some(request) = client.request() else {
            return Err(Farewell::shutting_down());
        };
        let made = request.extensions().get::<Made>();
        let made = made.and_then(|made| made.0.take());
        if let Some(connection) = made {
            return Ok(connection);
        }
        let asked = self.upstream.asked(&request, self.token.is_some());
        let asked = asked.map_err(|_| Farewell::shutting_down())?;
        match self.upstream.reach(asked).await {
            Ok(reached) => Ok(reached.connection),
            Err(error) => {
                self.unreached.fetch_add(1, Relaxed);
                tracing::warn!("upstream cannot be reached: {}", chain(&error));
                Err(Farewell::of_refusal(&error))
            }
        }
    }
}
