//! A log on other machines: the same calls as on a [`Log`](crate::Log), over WebSocket.

use std::{fmt, sync::Arc};

use unstall::{BoxError, Client, IntoMessage, Reconnect};
use unstall_proto::topics::{
    ClientConfig, NameError, Offset, Publisher, Refusal, Start, SubscribeOptions,
};

use crate::{
    dialer::Dialer, events::TopicsEvents, keeper::Handle, message::publication,
    publish_error::PublishError, spans, stats::TopicsStats, store::Publication,
    subscription::Subscription, tokens::Tokens,
};

/// A client of one or more nodes that serve the same log. Clones share the connection.
///
/// It connects in the background and goes on for as long as a handle or a subscription lives: when a
/// connection is lost, it goes to the next address, and every subscription continues from its
/// position. Messages without an answer are published again, with the same numbers, so each is
/// stored once.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use unstall_topics::{Delivery, Start, Topics};
///
/// let topics = Topics::connect(["wss://a.example/topics", "wss://b.example/topics"]);
/// let offset = topics.publish("orders", r#"{"id":7}"#).await?;
/// println!("stored at {offset}");
/// let mut feed = topics.subscribe("prices.>", Start::Latest(None))?;
/// while let Some(delivery) = feed.recv().await? {
///     match delivery {
///         Delivery::Message(message) => println!("{} {:?}", message.topic(), message.as_text()),
///         Delivery::Gap(gap) => println!("messages are missing: {gap:?}"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Topics {
    handle: Arc<Handle>,
}

/// What a client of topics is made with. See [`Topics::builder`].
#[must_use = "it does nothing until `start`"]
pub struct TopicsBuilder {
    clients: Vec<Client>,
    tokens: Tokens,
    publisher: Option<Publisher>,
    reconnect: Reconnect,
    publish_window: Option<u64>,
    max_message: Option<u64>,
}

impl Topics {
    /// A client of these addresses, with the defaults. It returns at once, and connects in the
    /// background.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn connect<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Topics {
        Topics::builder(urls).start()
    }

    /// A client of these addresses. They are tried in order, beginning with a random one. One that
    /// asks to be left alone for a time is passed over meanwhile.
    pub fn builder<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> TopicsBuilder {
        Topics::over(urls.into_iter().map(Client::new))
    }

    /// A client of these addresses, each with headers, TLS, a proxy or a connector of its own. The
    /// subprotocol and what concerns sessions and reconnecting is set by this crate.
    pub fn over(clients: impl IntoIterator<Item = Client>) -> TopicsBuilder {
        TopicsBuilder {
            clients: clients.into_iter().collect(),
            tokens: Tokens::None,
            publisher: None,
            reconnect: Reconnect::default(),
            publish_window: None,
            max_message: None,
        }
    }

    /// Publishes a message, and waits until it is safe. While there is no connection, it waits for
    /// one. See [`Topics::publish_many`] for many at a time.
    ///
    /// Cancel safety: if dropped before it resolves, the message may be published or not.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        topic: impl AsRef<str>,
        message: impl IntoMessage,
    ) -> Result<Offset, PublishError> {
        self.publish_one(publication(topic.as_ref(), message, false)?)
            .await
    }

    /// Publishes the last message of a topic. Subscriptions to exactly this topic end behind it.
    ///
    /// Cancel safety: as [`publish`](Topics::publish).
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish_final(
        &self,
        topic: impl AsRef<str>,
        message: impl IntoMessage,
    ) -> Result<Offset, PublishError> {
        self.publish_one(publication(topic.as_ref(), message, true)?)
            .await
    }

    /// Publishes messages in order, many in a packet, and waits until all are safe. The results are
    /// in the same order. It takes more than one round trip only if the window of messages without
    /// an answer is used up.
    ///
    /// Cancel safety: if dropped before it resolves, each message may be published or not.
    pub async fn publish_many(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let span = spans::publish(&batch);
        span.follows_from(&self.handle.shared.span);
        spans::published(span, self.handle.publish(batch)).await
    }

    /// What happens to the connection, from now on. The first call gets what has happened before, too.
    pub fn events(&self) -> TopicsEvents {
        self.handle.shared.events.subscribe()
    }

    /// What the client counts, and how it stands.
    pub fn stats(&self) -> TopicsStats {
        self.handle.shared.lock().stats()
    }

    /// Ends the client for all its clones and subscriptions, without waiting for answers. Messages
    /// without an answer get their [`PublishError`], which says whether they may be stored. To lose
    /// none, wait for each [`publish`](Topics::publish) first.
    ///
    /// Subscriptions deliver what has arrived, and then
    /// [`SubscriptionError::ClientEnded`](crate::SubscriptionError::ClientEnded).
    pub fn close(&self) {
        self.handle.close();
    }

    async fn publish_one(&self, publication: Publication) -> Result<Offset, PublishError> {
        let results = self.publish_many(vec![publication]).await;
        let unknown = Err(PublishError::Refused(Refusal::Unknown));
        results.into_iter().next().unwrap_or(unknown)
    }

    /// Subscribes to a filter. It returns at once: the connection is made in the background, and the
    /// subscription begins when the node has it.
    ///
    /// # Errors
    /// [`NameError`] when the filter is not a valid one.
    pub fn subscribe(
        &self,
        filter: impl AsRef<str>,
        start: Start,
    ) -> Result<Subscription, NameError> {
        self.subscribe_with(filter, start, SubscribeOptions::default())
    }

    /// Subscribes to a filter, with options.
    ///
    /// # Errors
    /// [`NameError`] when the filter is not a valid one.
    pub fn subscribe_with(
        &self,
        filter: impl AsRef<str>,
        start: Start,
        options: SubscribeOptions,
    ) -> Result<Subscription, NameError> {
        Subscription::new(&self.handle, filter.as_ref(), start, options)
    }
}

impl TopicsBuilder {
    /// A token for all connections: at most 8,192 visible ASCII characters. It is a secret.
    ///
    /// If the nodes reject it, the client ends. If it expires, its subscriptions end.
    pub fn token(mut self, token: impl Into<String>) -> TopicsBuilder {
        self.tokens = Tokens::Fixed(token.into().into());
        self
    }

    /// Asks for a token before each connection. When a token expires, the client connects again with
    /// the next one, its subscriptions go on, and what was refused is published again.
    ///
    /// If the function fails, panics, or takes more than 10 seconds, the client tries again later. If
    /// every node rejects a token that the function gives again, the client ends.
    pub fn token_with<F, R>(mut self, token: F) -> TopicsBuilder
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        self.tokens = Tokens::Renewed(Arc::new(move || Box::pin(token())));
        self
    }

    /// The publisher's id and epoch, for an application that keeps its own numbers over restarts.
    /// Default: a random id, so that what this process publishes is stored once, over all lost
    /// connections.
    pub fn publisher(mut self, publisher: Publisher) -> TopicsBuilder {
        self.publisher = Some(publisher);
        self
    }

    /// When and how often to connect again. Default: without end, see [`Reconnect`].
    pub fn reconnect(mut self, reconnect: Reconnect) -> TopicsBuilder {
        self.reconnect = reconnect;
        self
    }

    /// The messages that may be published and without an answer, in bytes: each costs its payload,
    /// its topic, and 64. Publishing waits when they are used up. A node may allow less at a time. Default 4
    /// MiB.
    pub fn publish_window(mut self, bytes: u64) -> TopicsBuilder {
        self.publish_window = Some(bytes);
        self
    }

    /// The largest message that is received, in bytes. In place of a larger one comes a gap. Default
    /// 64 MiB.
    pub fn max_message_bytes(mut self, bytes: u64) -> TopicsBuilder {
        self.max_message = Some(bytes);
        self
    }

    /// Starts the client, in a task on the current Tokio runtime.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start(self) -> Topics {
        let mut config = ClientConfig::new();
        let publisher = self.publisher.unwrap_or_else(crate::random::publisher);
        config = config.publisher(publisher);
        if let Some(bytes) = self.publish_window {
            config = config.unanswered(bytes);
        }
        if let Some(bytes) = self.max_message {
            config = config.max_message(bytes);
        }
        let dialer = Dialer::nodes(self.clients, self.tokens, self.reconnect);
        Topics {
            handle: Handle::start(config, dialer),
        }
    }
}

impl fmt::Debug for TopicsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicsBuilder")
            .field("clients", &self.clients)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}
