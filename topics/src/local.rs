//! Subscriptions to a log of the same process: the same way as over WebSocket, so that the same holds.

use unstall_proto::topics::{ClientConfig, NameError, Start, SubscribeOptions};

use crate::{dialer::Dialer, keeper::Handle, log::Log, node::Node, subscription::Subscription};

impl Log {
    /// Subscribes to a filter.
    ///
    /// # Errors
    /// [`NameError`] when the filter is not a valid one.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
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
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn subscribe_with(
        &self,
        filter: impl AsRef<str>,
        start: Start,
        options: SubscribeOptions,
    ) -> Result<Subscription, NameError> {
        let max_message = self.shared.store.max_message_bytes() as u64;
        let config = ClientConfig::new().max_message(max_message);
        let handle = Handle::start(config, Dialer::here(Node::new(self)));
        Subscription::new(&handle, filter.as_ref(), start, options)
    }
}
