//! Who may publish and subscribe to what.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;
use unstall_proto::topics::{Filter, Publisher, Topic};

use crate::defaults::ENTER_TIMEOUT;

/// Decides who may enter a [`Node`](crate::Node), and what for.
///
/// ```
/// use std::sync::Arc;
/// use futures_util::future::BoxFuture;
/// use unstall_topics::{Access, Denied, Filter, Grants, Permit, Visitor};
///
/// #[derive(Debug)]
/// struct ReadersOnly;
///
/// impl Access for ReadersOnly {
///     fn enter<'a>(&'a self, _: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
///         let grants = Grants::none().subscribe(Filter::all());
///         Box::pin(async move { Ok(Arc::new(grants) as Arc<dyn Permit>) })
///     }
/// }
/// ```
pub trait Access: fmt::Debug + Send + Sync + 'static {
    /// Somebody connects, or brings another token on the same connection. The connection waits for
    /// the answer, and no other one does.
    ///
    /// If it panics, or takes more than 10 seconds, the client is told that the node is unavailable.
    /// It then tries again, here or elsewhere.
    ///
    /// # Errors
    /// [`Denied`] rejects a connection, or ends what an open one may do.
    fn enter<'a>(&'a self, visitor: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>>;
}

/// What one visitor may do. It is asked at each subscription, and for each published message, so it
/// should answer from memory. If it panics, the answer is no.
pub trait Permit: Send + Sync {
    /// Whether messages may be published under this topic.
    fn may_publish(&self, topic: &Topic) -> bool;

    /// Whether everything that this filter can match may be read.
    fn may_subscribe(&self, filter: &Filter) -> bool;

    /// When the permit ends. Subscriptions end then, and messages are refused, until the client
    /// brings another token. `None`: never. It is asked once, when the permit is given.
    fn expires(&self) -> Option<SystemTime>;

    /// The publisher under which messages are stored, if the client says that it is this one. By
    /// default it is believed.
    ///
    /// Who knows the id of a publisher can make it lose messages. To keep visitors apart, return an
    /// id that is made of the visitor's identity and the given id, for example by a hash. It must
    /// always be the same one, at every node of the log, or messages are stored twice.
    fn publisher(&self, publisher: Publisher) -> Publisher {
        publisher
    }
}

/// Who wants to enter.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Visitor<'a> {
    /// The token that the client sent in its first packet, or empty. A browser can set no headers,
    /// so its token is here.
    pub token: &'a str,
    /// The upgrade request, with its headers, and what a hook of the server has put into its
    /// extensions.
    pub request: Option<&'a http::Request<()>>,
}

impl fmt::Debug for Visitor<'_> {
    // Without the token, and without headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitor").finish_non_exhaustive()
    }
}

/// A visitor may not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
#[expect(clippy::exhaustive_structs, reason = "it is only a text")]
pub struct Denied(
    /// What the client is told. At most 123 bytes reach it.
    pub String,
);

/// A [`Permit`] made of lists of filters.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    publish: Vec<Filter>,
    subscribe: Vec<Filter>,
    expires: Option<SystemTime>,
}

impl Grants {
    /// Nothing is allowed.
    #[must_use]
    pub fn none() -> Grants {
        Grants::default()
    }

    /// Everything is allowed.
    #[must_use]
    pub fn all() -> Grants {
        Grants::none()
            .publish(Filter::all())
            .subscribe(Filter::all())
    }

    /// Allows publishing under the topics that the filter matches.
    #[must_use]
    pub fn publish(mut self, filter: Filter) -> Grants {
        self.publish.push(filter);
        self
    }

    /// Allows subscribing to the filter, and to narrower ones.
    #[must_use]
    pub fn subscribe(mut self, filter: Filter) -> Grants {
        self.subscribe.push(filter);
        self
    }

    /// Ends everything at this time.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Grants {
        self.expires = Some(time);
        self
    }
}

impl Permit for Grants {
    fn may_publish(&self, topic: &Topic) -> bool {
        self.publish
            .iter()
            .any(|filter| filter.matches(topic.as_str()))
    }

    fn may_subscribe(&self, filter: &Filter) -> bool {
        self.subscribe.iter().any(|mine| mine.covers(filter))
    }

    fn expires(&self) -> Option<SystemTime> {
        self.expires
    }
}

/// Lets everybody in, to do everything. The default of a [`Node`](crate::Node).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open;

impl Access for Open {
    fn enter<'a>(&'a self, _: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
        // All connections share it.
        static ALL: LazyLock<Arc<Grants>> = LazyLock::new(|| Arc::new(Grants::all()));
        Box::pin(async { Ok(ALL.clone() as Arc<dyn Permit>) })
    }
}

/// A permit that was given. Nothing in it panics.
pub(crate) struct Given {
    permit: Arc<dyn Permit>,
    pub(crate) expires: Option<SystemTime>,
}

/// Why no permit was given.
#[derive(Debug)]
pub(crate) enum NotGiven {
    Denied(Denied),
    /// The hook failed, and not the visitor.
    Unavailable(&'static str),
}

impl Given {
    fn new(permit: Arc<dyn Permit>) -> Result<Given, NotGiven> {
        match catch_unwind(AssertUnwindSafe(|| permit.expires())) {
            Ok(expires) => Ok(Given { permit, expires }),
            Err(_) => Err(NotGiven::Unavailable(FAILED)),
        }
    }

    /// Nothing is allowed any more.
    pub(crate) fn nothing() -> Given {
        Given {
            permit: Arc::new(Grants::none()),
            expires: None,
        }
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|end| end <= SystemTime::now())
    }

    pub(crate) fn may_publish(&self, topic: &Topic) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.permit.may_publish(topic))).unwrap_or(false)
    }

    /// The publisher under which to store messages. `None`: the hook failed.
    pub(crate) fn publisher(&self, publisher: Publisher) -> Option<Publisher> {
        catch_unwind(AssertUnwindSafe(|| self.permit.publisher(publisher))).ok()
    }

    pub(crate) fn may_subscribe(&self, filter: &Filter) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.permit.may_subscribe(filter))).unwrap_or(false)
    }
}

const FAILED: &str = "the node could not decide who may enter";
const LATE: &str = "the node could not decide in time who may enter";

/// Asks the hook, which may panic, or never come back.
pub(crate) async fn enter(access: &dyn Access, visitor: Visitor<'_>) -> Result<Given, NotGiven> {
    let asking = AssertUnwindSafe(async { access.enter(visitor).await }).catch_unwind();
    match timeout(ENTER_TIMEOUT, asking).await {
        Ok(Ok(Ok(permit))) => Given::new(permit),
        Ok(Ok(Err(denied))) => Err(NotGiven::Denied(denied)),
        Ok(Err(_)) => {
            tracing::error!("the hook that says who may enter panicked");
            Err(NotGiven::Unavailable(FAILED))
        }
        Err(_) => {
            tracing::warn!("the hook that says who may enter took too long");
            Err(NotGiven::Unavailable(LATE))
        }
    }
}

impl<'a> Visitor<'a> {
    pub(crate) fn new(token: &'a str, request: Option<&'a http::Request<()>>) -> Visitor<'a> {
        Visitor { token, request }
    }
}
