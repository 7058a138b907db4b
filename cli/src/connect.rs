//! What every subcommand that connects lets its user choose, and what it tells of the connection.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use unstall::{Client, ConnectError, Event, Events, Options, StallCause};

use crate::failure::Failure;
use crate::time::FOREVER;

/// Where to connect and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Connect {
    /// ws://HOST:PORT/PATH or wss://…
    #[arg(value_parser = parse_url)]
    pub(crate) url: String,

    /// Send this header with the upgrade request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header,
          help_heading = "Connection")]
    headers: Vec<(String, String)>,

    /// Offer this subprotocol; may be repeated, the preferred one first
    #[arg(long = "subprotocol", value_name = "NAME", help_heading = "Connection")]
    subprotocols: Vec<String>,

    /// Trust the certificates of this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    tls_roots: Option<PathBuf>,

    /// Connect through this proxy: http://USER:PASSWORD@HOST:PORT, socks5://…
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    proxy: Option<String>,

    /// Give up an attempt to connect after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "10",
          help_heading = "Connection")]
    connect_timeout: Duration,

    /// Offer no session, also to a server that speaks them
    #[arg(long, help_heading = "Connection")]
    plain: bool,
}

impl Connect {
    /// The client that these flags describe.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let mut client = Client::new(&self.url)
            .options(Options::default().connect_timeout(self.connect_timeout));
        if self.plain {
            client = client.plain();
        }
        for (name, value) in &self.headers {
            client = client.header(name, value);
        }
        for name in &self.subprotocols {
            client = client.subprotocol(name);
        }
        if let Some(file) = &self.tls_roots {
            client = client.tls(unstall::client_config_from_pem(file).map_err(Failure::work)?);
        }
        if let Some(proxy) = &self.proxy {
            client = client.proxy(proxy);
        }
        Ok(client)
    }
}

/// A failed first attempt: what the user typed is wrong, or the world is.
pub(crate) fn connect_failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::Url { .. } | ConnectError::Header { .. } => Failure::usage(error),
        _ => Failure::work(error),
    }
}

/// Logs what happens to a connection until it ends.
pub(crate) async fn log_events(mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Disconnected { why, .. } => tracing::warn!("connection lost: {why}"),
            Event::AttemptFailed { attempt, why } => {
                tracing::warn!("attempt {attempt} to connect again failed: {why}");
            }
            Event::Reconnecting { attempt, after } => {
                tracing::info!("attempt {attempt} to connect again starts in {after:.1?}");
            }
            Event::Connected { generation } if generation > 1 => {
                tracing::warn!("connected again");
            }
            Event::Resumed { after, replayed } => {
                tracing::info!(
                    "the session goes on after {after:.1?}, {replayed} records sent again"
                );
            }
            Event::SessionLost { why, undelivered } => {
                tracing::warn!("{why}; {undelivered} messages come back undelivered");
            }
            // Told already, by the loss.
            Event::Stalled {
                cause: StallCause::Connecting,
                ..
            }
            | Event::Moving {
                cause: StallCause::Connecting,
                ..
            } => {}
            Event::Stalled { cause, since } => tracing::warn!("stalled for {since:.1?}: {cause}"),
            Event::Moving { cause, after } => tracing::info!("moving after {after:.1?}: {cause}"),
            other => tracing::info!("{other:?}"),
        }
    }
}

pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    let scheme = text
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("ws" | "wss") => Ok(text.to_owned()),
        _ => Err("a WebSocket URL begins with ws:// or wss://".to_owned()),
    }
}

pub(crate) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("a header is NAME: VALUE".to_owned()),
    }
}

/// Seconds with a fraction, or `forever`.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    if text == "forever" {
        return Ok(FOREVER);
    }
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    let length = Duration::try_from_secs_f64(seconds);
    length
        .map(|length| length.min(FOREVER))
        .map_err(|_| "not a length of time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_websocket_urls_are_taken() {
        assert!(parse_url("ws://localhost:1").is_ok());
        assert!(parse_url("WSS://example.com/a?b=c").is_ok());
        for wrong in ["http://localhost", "localhost:9100", "", "wss:/x"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        let header = ("Authorization".to_owned(), "Basic a:b".to_owned());
        assert_eq!(parse_header("Authorization: Basic a:b"), Ok(header));
        assert_eq!(
            parse_header("X-Empty:"),
            Ok(("X-Empty".to_owned(), String::new()))
        );
        assert!(parse_header(": value").is_err());
        assert!(parse_header("no colon").is_err());
    }

    #[test]
    fn seconds_may_have_a_fraction_or_no_end() {
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        assert_eq!(parse_seconds("forever"), Ok(FOREVER));
        for wrong in ["-1", "inf", "nan", "1e300", "soon", ""] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
