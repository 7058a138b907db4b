//! The WebSocket of the page: topics that say what has changed.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::future::{BoxFuture, ready};
use http::HeaderMap;
use unstall::BearerToken;
use unstall_topics::{Denied, Filter, Grants, Permit, Visitor};

use crate::{
    access::{Access, Asked},
    limits::VIEWERS,
};

/// Lets in who may look, to read only.
pub(crate) struct Readers(pub(crate) Access);

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl unstall_topics::Access for Readers {
    fn enter<'a>(&'a self, visitor: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
        let none = HeaderMap::new();
        let headers = visitor.request.map_or(&none, |it| it.headers());
        let shown = BearerToken::of(headers);
        let token = match visitor.token {
            "" => shown.as_ref().map(BearerToken::reveal),
            token => Some(token),
        };
        let asked = Asked {
            headers,
            peer: None,
            token,
        };
        let allowed = self.0.check_token(&asked);
        let grants = || Arc::new(Grants::none().subscribe(Filter::all())) as Arc<dyn Permit>;
        let answer = allowed.map(|()| grants());
        Box::pin(ready(answer.map_err(|why| Denied(why.to_string()))))
    }
}

/// A page that is connected.
pub(crate) struct Viewer(Arc<AtomicUsize>);

impl Viewer {
    /// `None`: there are too many.
    pub(crate) fn enter(viewers: &Arc<AtomicUsize>) -> Option<Viewer> {
        let more = |count: usize| (count < VIEWERS).then_some(count + 1);
        viewers.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Viewer(viewers.clone()))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
