//! The nodes to connect to, and the token for them.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use unstall::{BoxError, Client, RedactedUrl};
use unstall_topics::{Topics, TopicsEvent, TopicsEvents};

use crate::{
    connect::{Way, check_url, url},
    failure::Failure,
};

/// The environment variable with the token.
const TOKEN: &str = "UNSTALL_TOKEN";

/// The nodes to connect to, and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Nodes {
    /// ws://HOST:PORT or wss://…, several with commas between; the path is /topics by default
    #[arg(value_name = "URL[,URL…]", value_parser = url)]
    urls: RedactedUrl,

    /// Show the token in this file, which is read anew for each connection, and not the one of the
    /// environment variable UNSTALL_TOKEN
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    way: Way,
}

impl Nodes {
    /// Starts a client of these nodes. It connects in the background.
    pub(crate) fn start(&self) -> Result<Connecting, Failure> {
        let urls: Vec<_> = self.urls.reveal().split(',').map(with_path).collect();
        let clients: Result<Vec<Client>, Failure> = urls
            .iter()
            .map(|url| {
                check_url(&RedactedUrl::new(url))?;
                self.way.client(url)
            })
            .collect();
        let mut builder = Topics::over(clients?);
        if let Some(file) = self.token_file.clone() {
            // Each connection shows what the file has by then.
            read(&file).map_err(|why| Failure::work(format_args!("{why}")))?;
            builder = builder.token_with(move || {
                let file = file.clone();
                async move { read(&file).map_err(BoxError::from) }
            });
        } else if let Ok(token) = std::env::var(TOKEN) {
            builder = builder.token(token.trim());
        }
        let topics = builder.start();
        Ok(Connecting {
            events: topics.events(),
            topics,
            addresses: urls.len(),
        })
    }
}

/// A hub listens for WebSockets at `/topics`, and says its address without that.
fn with_path(url: &str) -> String {
    let url = url.trim();
    let after_scheme = url.find("://").map_or(0, |at| at.saturating_add(3));
    let rest = url.get(after_scheme..).unwrap_or_default();
    match rest.find(['/', '?', '#']) {
        None => format!("{url}/topics"),
        Some(at) if rest.get(at..) == Some("/") => format!("{url}topics"),
        Some(_) => url.to_owned(),
    }
}

fn read(file: &std::path::Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the token in {}: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// A client that has just started.
pub(crate) struct Connecting {
    pub(crate) topics: Topics,
    events: TopicsEvents,
    addresses: usize,
}

impl Connecting {
    /// Waits for the first connection, and then logs what happens. Fails when no address can be
    /// connected to.
    pub(crate) async fn connected(mut self) -> Result<Topics, Failure> {
        let mut failed = 0usize;
        loop {
            match self.events.next().await {
                Some(TopicsEvent::Connected { log, node }) => {
                    tracing::info!(%log, node, "connected");
                    tokio::spawn(follow(self.events));
                    return Ok(self.topics);
                }
                Some(TopicsEvent::Disconnected { why }) => {
                    failed = failed.saturating_add(1);
                    if failed >= self.addresses {
                        self.topics.close();
                        return Err(Failure::work(why));
                    }
                    tracing::warn!("{why}");
                }
                Some(_) => {}
                None => return Err(Failure::work("no node can be connected to")),
            }
        }
    }
}

async fn follow(mut events: TopicsEvents) {
    while let Some(event) = events.next().await {
        match event {
            TopicsEvent::Connected { log, node } => tracing::info!(%log, node, "connected again"),
            TopicsEvent::Disconnected { why } => lost(why),
            _ => {}
        }
    }
}

fn lost(why: Arc<str>) {
    tracing::warn!("connection lost: {}", unstall::printable(&why));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_is_that_of_a_hub() {
        for (url, whole) in [
            ("ws://a:1", "ws://a:1/topics"),
            ("ws://a:1/", "ws://a:1/topics"),
            ("ws://a/topics", "ws://a/topics"),
            ("wss://a/b/", "wss://a/b/"),
            ("wss://a?b=c/", "wss://a?b=c/"),
        ] {
            assert_eq!(with_path(url), whole);
        }
    }
}
