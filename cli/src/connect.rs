//! The flags of every subcommand that connects, and the logs of its connection.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use unstall::rustls::ClientConfig;
use unstall::{Client, ConnectError, Connection, Event, Events, Options, RedactedUrl, StallCause};

use crate::compress::Compress;
use crate::failure::{Failure, chain};
use crate::time::FOREVER;

/// Where to connect and how
#[derive(Clone, Debug, Args)]
pub(crate) struct Connect {
    /// ws://HOST:PORT/PATH or wss://…
    #[arg(value_parser = url)]
    pub(crate) url: RedactedUrl,

    /// Offer this subprotocol; may be repeated, the preferred one first
    #[arg(long = "subprotocol", value_name = "NAME", help_heading = "Connection")]
    subprotocols: Vec<String>,

    /// Offer no session: the connection is a plain WebSocket
    #[arg(long, help_heading = "Connection")]
    plain: bool,

    #[command(flatten)]
    way: Way,
}

/// How to connect, and whether to compress
#[derive(Clone, Debug, Args)]
pub(crate) struct Way {
    #[command(flatten)]
    reach: Reach,

    /// Connect to this Unix socket; the URL says what to ask for
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["proxy", "no_proxy"],
          help_heading = "Connection")]
    unix_socket: Option<PathBuf>,

    #[command(flatten)]
    compress: Compress,
}

/// How to reach a server
#[derive(Clone, Debug, Args)]
pub(crate) struct Reach {
    /// Send this header with the upgrade request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header,
          help_heading = "Connection")]
    headers: Vec<Header>,

    /// Trust the certificates of this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    tls_roots: Option<PathBuf>,

    /// Connect through this proxy, and not the one of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY:
    /// http://USER:PASSWORD@HOST:PORT, https://…, socks5://… or socks4a://…
    #[arg(long, value_name = "URL", value_parser = url, help_heading = "Connection")]
    proxy: Option<RedactedUrl>,

    /// Connect directly, whatever HTTP_PROXY, HTTPS_PROXY and ALL_PROXY say
    #[arg(long, conflicts_with = "proxy", help_heading = "Connection")]
    no_proxy: bool,

    /// Give up an attempt to connect after this many seconds, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "10",
          help_heading = "Connection")]
    pub(crate) connect_timeout: Duration,
}

impl Connect {
    /// The client that these flags describe.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        check_url(&self.url)?;
        let mut client = self.way.client(self.url.reveal())?;
        if self.plain {
            client = client.plain();
        }
        for name in &self.subprotocols {
            client = client.subprotocol(name);
        }
        Ok(client)
    }
}

impl Way {
    /// A client of this address.
    pub(crate) fn client(&self, url: &str) -> Result<Client, Failure> {
        let options = Options::default()
            .connect_timeout(self.reach.connect_timeout)
            .compression(self.compress.option());
        let mut client = self.reach.prepared()?.client(url).options(options);
        for header in self.reach.headers() {
            let (name, value) = header?;
            client = client.header(name, value);
        }
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            client = client.unix_socket(path);
        }
        Ok(client)
    }
}

impl Reach {
    /// The way to any number of servers. Files are read now.
    pub(crate) fn prepared(&self) -> Result<Prepared, Failure> {
        let roots = self.tls_roots.as_deref();
        let tls = roots.map(unstall::client_config_from_pem).transpose();
        Ok(Prepared {
            tls: tls.map_err(Failure::because)?,
            proxy: self.proxy.clone(),
            direct: self.no_proxy,
        })
    }

    /// The headers, as they were typed.
    pub(crate) fn headers(&self) -> impl Iterator<Item = Result<(&str, &str), Failure>> {
        self.headers.iter().map(Header::split)
    }
}

/// The way to servers, without their addresses.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<RedactedUrl>,
    direct: bool,
}

impl Prepared {
    /// A client of this address, without headers and options.
    pub(crate) fn client(&self, url: &str) -> Client {
        let mut client = Client::new(url);
        if let Some(tls) = &self.tls {
            client = client.tls(tls.clone());
        }
        if let Some(proxy) = &self.proxy {
            client = client.proxy(proxy.reveal());
        }
        match self.direct {
            true => client.without_proxy(),
            false => client,
        }
    }
}

/// A URL as the user typed it. It is checked later, because clap would print an invalid one with
/// its password.
pub(crate) fn url(text: &str) -> Result<RedactedUrl, std::convert::Infallible> {
    Ok(RedactedUrl::new(text))
}

/// Checks that the URL has a WebSocket scheme.
pub(crate) fn check_url(url: &RedactedUrl) -> Result<(), Failure> {
    let scheme = url.reveal().split_once("://").map(|(scheme, _)| scheme);
    let schemes = ["ws", "wss"];
    if scheme.is_some_and(|it| schemes.iter().any(|known| known.eq_ignore_ascii_case(it))) {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "the URL {url} is not a WebSocket URL: it must begin with ws:// or wss://"
    )))
}

/// `NAME: VALUE` as the user typed it. The value may be a secret.
#[derive(Clone)]
pub(crate) struct Header(String);

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Header(…)")
    }
}

/// A header as the user typed it. It is checked later, because clap would print an invalid one with
/// its value.
pub(crate) fn header(text: &str) -> Result<Header, std::convert::Infallible> {
    Ok(Header(text.to_owned()))
}

impl Header {
    /// Name and value.
    pub(crate) fn split(&self) -> Result<(&str, &str), Failure> {
        match self.0.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => Ok((name.trim(), value.trim())),
            _ => Err(Failure::usage(
                "a header must be written as NAME: VALUE, with a colon",
            )),
        }
    }
}

/// The failure of the first attempt. An invalid URL or header is wrong usage.
pub(crate) fn connect_failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::Url { .. } | ConnectError::Header { .. } => Failure::usage(error),
        _ => Failure::because(error),
    }
}

/// Logs the events of a connection until it ends, and first whether it is compressed.
pub(crate) fn log_events(connection: &Connection) -> impl Future<Output = ()> + Send + 'static {
    if connection.is_compressed() {
        tracing::info!("messages are compressed");
    }
    follow(connection.events())
}

/// Logs events until they end.
pub(crate) async fn follow(mut events: Events) {
    while let Some(event) = events.recv().await {
        log(event);
    }
}

fn log(event: Event) {
    match event {
        Event::Connected { generation: 1 } => tracing::info!("connected"),
        Event::Connected { .. } => tracing::warn!("connected again"),
        Event::Disconnected { why, .. } => tracing::warn!("connection lost: {}", chain(&*why)),
        Event::AttemptFailed { attempt, why } => {
            let why = chain(&*why);
            tracing::warn!("attempt {attempt} to connect again failed: {why}");
        }
        Event::Reconnecting { attempt, after } => {
            tracing::info!("attempt {attempt} to connect again starts in {after:.1?}");
        }
        Event::SessionOpened => tracing::info!("session opened"),
        Event::SessionNotSpoken => {
            tracing::warn!(
                "the server agreed to unstall.v1 but does not speak it: the next connection is plain"
            );
        }
        Event::Resumed { after, replayed } => {
            tracing::info!("session resumed after {after:.1?}; {replayed} records were sent again");
        }
        Event::SessionLost { why, undelivered } => {
            let why = chain(&*why);
            tracing::warn!("{why}; {undelivered} messages come back undelivered");
        }
        Event::UndeliveredDropped { messages } => {
            tracing::warn!(
                "{messages} undelivered messages were dropped, because there is no room for more"
            );
        }
        Event::GoAway { within } => {
            tracing::info!("the server is shutting down; connecting again within {within:.1?}");
        }
        Event::Overflow { messages, bytes } => {
            tracing::warn!(
                "the inbox was full: {messages} messages ({bytes} bytes) were dropped, replaced or spilled"
            );
        }
        Event::SpillFailed { why } => tracing::warn!("the spill file failed: {why}"),
        // The loss of the connection has been logged already.
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
        Event::Expired { messages } => {
            tracing::warn!(
                "{messages} messages were dropped, because their time to live had passed"
            );
        }
        Event::PeerClosed(close) => tracing::info!("the peer closed the connection: {close}"),
        Event::Ended { why: Some(why) } => tracing::info!("ended: {}", chain(&*why)),
        Event::Ended { why: None } => tracing::info!("ended by a normal close"),
        Event::Missed(events) => tracing::warn!("{events} events were missed"),
        other => tracing::info!("{other:?}"),
    }
}

/// Parses seconds, which may have a fraction, or `forever`.
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
        assert!(check_url(&"ws://localhost:1".into()).is_ok());
        assert!(check_url(&"WSS://example.com/a?b=c".into()).is_ok());
        for wrong in ["http://localhost", "localhost:9100", "", "wss:/x"] {
            let Err(Failure::Usage(_)) = check_url(&wrong.into()) else {
                panic!("{wrong}");
            };
        }
    }

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        let split = |text| {
            header(text)
                .unwrap()
                .split()
                .map(|(n, v)| format!("{n}|{v}"))
        };
        let whole = split("Authorization: Basic a:b");
        assert_eq!(whole, Ok("Authorization|Basic a:b".to_owned()));
        assert_eq!(split("X-Empty:"), Ok("X-Empty|".to_owned()));
        for wrong in [": secret", "secret"] {
            let Err(Failure::Usage(why)) = split(wrong) else {
                panic!("{wrong}");
            };
            assert!(!why.contains("secret"), "{why}");
        }
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
