//! The connection to NATS. If it is lost, a new client connects to any of the servers.
//!
//! The client's own reconnect is not used, because it would send later whatever had not been sent when
//! the connection was lost. After minutes this could store a message a second time, behind the
//! duplicate window. A client that is replaced takes such messages with it.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

use super::limits::{
    CLIENT_CAPACITY, CONNECT_TIMEOUT, PING_INTERVAL, QUESTION_TIMEOUT, RECONNECT_DELAY,
};

/// Holds the client that is connected now.
#[derive(Debug)]
pub(super) struct Link {
    now: watch::Receiver<Option<Client>>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Connects to one of the servers.
    pub(super) async fn open(
        servers: Vec<ServerAddr>,
        options: ConnectOptions,
    ) -> Result<Link, async_nats::ConnectError> {
        let (lost_sender, lost) = mpsc::channel(16);
        let mut dialer = Dialer {
            servers,
            discovered: Vec::new(),
            options: prepared(options),
            epoch: 0,
            lost: lost_sender,
        };
        let connected = dialer.dial().await?;
        let (sender, now) = watch::channel(Some(connected));
        let task = tokio::spawn(supervise(dialer, lost, sender));
        Ok(Link { now, task })
    }

    /// The client, if one is connected.
    pub(super) fn connected(&self) -> Option<Client> {
        self.now.borrow().clone()
    }

    /// Tells of lost and of new connections.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Client>> {
        self.now.clone()
    }
}

/// The options that this store depends on.
fn prepared(options: ConnectOptions) -> ConnectOptions {
    options
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .client_capacity(CLIENT_CAPACITY)
        .request_timeout(Some(QUESTION_TIMEOUT))
        // One attempt, since none cannot be said. It comes at once or not at all.
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO)
}

async fn supervise(
    mut dialer: Dialer,
    mut lost: mpsc::Receiver<u64>,
    now: watch::Sender<Option<Client>>,
) {
    while let Some(epoch) = lost.recv().await {
        if epoch != dialer.epoch {
            continue;
        }
        tracing::warn!("the connection to NATS is lost");
        now.send_replace(None);
        let mut delay = RECONNECT_DELAY.0;
        let connected = loop {
            match dialer.dial().await {
                Ok(connected) => break connected,
                Err(error) => tracing::debug!(%error, "no server of NATS can be reached"),
            }
            sleep(delay).await;
            delay = (delay * 2).min(RECONNECT_DELAY.1);
        };
        tracing::info!(
            server = connected.server_info().server_name,
            "connected to NATS"
        );
        now.send_replace(Some(connected));
    }
}

#[derive(Debug)]
struct Dialer {
    servers: Vec<ServerAddr>,
    /// What the last server said of others.
    discovered: Vec<ServerAddr>,
    options: ConnectOptions,
    epoch: u64,
    lost: mpsc::Sender<u64>,
}

impl Dialer {
    /// Tries each server once, in random order.
    async fn dial(&mut self) -> Result<Client, async_nats::ConnectError> {
        self.epoch += 1;
        let epoch = self.epoch;
        let lost = self.lost.clone();
        let options = self.options.clone().event_callback(move |event| {
            let lost = lost.clone();
            async move {
                match event {
                    Event::Disconnected | Event::Closed => {
                        // Fails when the store is dropped.
                        let _ = lost.send(epoch).await;
                    }
                    Event::SlowConsumer(_) => tracing::warn!("a subscription of NATS overflowed"),
                    other => tracing::debug!(event = %other, "NATS"),
                }
            }
        });
        let mut candidates = self.servers.clone();
        fastrand::shuffle(&mut candidates);
        let mut others = self.discovered.clone();
        fastrand::shuffle(&mut others);
        candidates.extend(
            others
                .into_iter()
                .filter(|other| !self.servers.contains(other)),
        );
        let mut failed = None;
        for server in candidates {
            match async_nats::connect_with_options(server, options.clone()).await {
                Ok(client) => {
                    self.discover(&client);
                    return Ok(client);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("a link has at least one server"))
    }

    fn discover(&mut self, client: &Client) {
        let info = client.server_info();
        self.discovered = info
            .connect_urls
            .iter()
            .filter_map(|url| url.parse().ok())
            .collect();
    }
}

/// How a verb says that there is no connection.
pub(super) fn not_connected() -> Arc<str> {
    "no server of NATS is connected".into()
}
