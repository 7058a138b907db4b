//! `unstall verify-peer`: one of the two processes of a run. It reads its orders from standard
//! input.

use std::io;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use unstall::{
    Client, CloseCode, CloseReport, Connection, Message, Options, Reconnect, Sender, Server,
};

use super::echoed;
use super::plan::Sizes;
use super::stream::{Halt, Over, Stream};
use super::talk::{Order, Part, Report, Side, report, runs};
use crate::compress::How;
use crate::failure::{Failure, chain};
use crate::runtime;

/// The silence timeout. It is short, so that it expires during a run of seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// Four pings fit into the silence timeout.
const PING_INTERVAL: Duration = Duration::from_millis(250);

/// The connect timeout. On loopback an attempt succeeds immediately, or hits a fault.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The bound of the first wait before connecting again. It is short, because there is only one
/// client, and its recovery time is measured.
const RECONNECT_FIRST: Duration = Duration::from_millis(10);

/// The longest wait before connecting again. A fault refuses connections only for a moment.
const RECONNECT_MAX: Duration = Duration::from_millis(250);

/// One process of a run; `unstall verify` starts it
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct VerifyPeer {}

impl VerifyPeer {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            let mut orders = Orders::new();
            let part: Part = orders.first().await?;
            let done = match &part.side {
                Side::Server if part.echoed => echoed::serve(&part, orders).await,
                Side::Server => serve(&part, orders).await,
                Side::Client { .. } => connect(&part, orders).await,
            };
            match done {
                Ok(()) | Err(Failed::Told) => Ok(()),
                Err(Failed::Pipe(error)) => Err(Failure::work(error)),
            }
        })
    }
}

pub(super) enum Failed {
    /// It was reported to the verifier.
    Told,
    /// The verifier has ended.
    Pipe(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

pub(super) fn failed(why: impl std::fmt::Display) -> Failed {
    match report(&[Report::Failed(why.to_string())]) {
        Ok(()) => Failed::Told,
        Err(error) => Failed::Pipe(error),
    }
}

/// The lines of standard input.
pub(super) struct Orders(Lines<BufReader<Stdin>>);

impl Orders {
    fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()).lines())
    }

    async fn first(&mut self) -> Result<Part, Failure> {
        let line = self.0.next_line().await.map_err(Failure::work)?;
        let usage = || Failure::usage("only `unstall verify` starts verify-peer");
        let line = line.ok_or_else(usage)?;
        serde_json::from_str(&line).map_err(|_| usage())
    }

    /// Follows orders until the order to finish. Ends the process if the verifier has ended.
    pub(super) async fn obey(&mut self, halt: &Halt) {
        loop {
            let line = self.0.next_line().await;
            let order = line.ok().flatten().map(|line| serde_json::from_str(&line));
            match order {
                Some(Ok(Order::Pause(millis))) => halt.pause(Duration::from_millis(millis)),
                Some(Ok(Order::Stop)) => halt.stop(),
                Some(Ok(Order::Finish)) => return,
                Some(Err(_)) | None => std::process::exit(1),
            }
        }
    }
}

pub(super) fn options(part: &Part) -> Options {
    Options::default()
        // Every message must be at least as long as the text that ends the run.
        .max_message_bytes(part.sizes.largest().max(128))
        .acknowledge_by_hand(true)
        .compression(part.compress.as_ref().map(How::compression))
        .connect_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .silence_timeout(SILENCE)
}

/// Serves one client connection at a time. A newer connection replaces the older one.
async fn serve(part: &Part, mut orders: Orders) -> Result<(), Failed> {
    let mut builder = Server::builder().options(options(part));
    if part.plain {
        builder = builder.plain();
    }
    let server = builder.bind("127.0.0.1:0").await.map_err(failed)?;
    report(&[Report::Listening(server.local_addr())])?;
    let halt = Halt::default();
    let mut stream = Stream::new(part, &halt);
    tokio::select! {
        result = serve_clients(&server, &mut stream, part.sizes) => result?,
        () = orders.obey(&halt) => {}
    }
    // The client has closed already.
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

async fn serve_clients(
    server: &Server,
    stream: &mut Stream<'_>,
    sizes: Sizes,
) -> Result<(), Failed> {
    let mut next = server.accept().await;
    while let Some(connection) = next {
        let (sender, mut receiver) = connection.split();
        let over = tokio::select! {
            biased;
            newer = server.accept() => Err(newer),
            over = stream.exchange(&sender, &mut receiver) => Ok(over?),
        };
        next = match over {
            // Messages that the old connection may still hold are not received. They count as a
            // gap.
            Err(newer) => {
                report(&[Report::Gap])?;
                newer
            }
            Ok(Over::Closed) => server.accept().await,
            Ok(Over::Broken(_)) => {
                report(&[
                    Report::Gap,
                    back(&sender, Some(sender.ended().await), sizes),
                ])?;
                server.accept().await
            }
        };
    }
    Ok(())
}

async fn connect(part: &Part, mut orders: Orders) -> Result<(), Failed> {
    let connection = dial(part).await?;
    let (sender, mut receiver) = connection.split();
    let halt = Halt::default();
    let mut stream = Stream::new(part, &halt);
    let over = tokio::select! {
        over = stream.exchange(&sender, &mut receiver) => over?,
        () = orders.obey(&halt) => Over::Closed,
    };
    let (closed, rest) = tokio::join!(
        sender.close(CloseCode::NORMAL, ""),
        stream.take_rest(&sender, &mut receiver),
    );
    rest?;
    let connections = stream.connections(&sender.stats());
    report(&[
        back(&sender, Some(closed), part.sizes),
        Report::Connections(connections),
    ])?;
    match over {
        Over::Closed => Ok(()),
        Over::Broken(why) => Err(failed(chain(&why))),
    }
}

async fn dial(part: &Part) -> Result<Connection, Failed> {
    let Side::Client {
        url,
        proxy,
        headers,
        tls_roots,
    } = &part.side
    else {
        return Err(failed("these orders are not for a client"));
    };
    let mut client = Client::new(url).options(options(part)).reconnect(
        Reconnect::default()
            .first(RECONNECT_FIRST)
            .max(RECONNECT_MAX)
            .proof(Duration::ZERO),
    );
    client = if part.plain {
        client.plain()
    } else {
        client.require_session()
    };
    if let Some(proxy) = proxy {
        client = client.proxy(proxy);
    }
    for (name, value) in headers {
        client = client.header(name, value);
    }
    if let Some(file) = tls_roots {
        client = client.tls(unstall::client_config_from_pem(file).map_err(failed)?);
    }
    let connected = client.connect().await;
    connected.map_err(|error| failed(chain(&error)))
}

/// The messages that came back to this process since the last call.
pub(super) fn back(sender: &Sender, closed: Option<CloseReport>, sizes: Sizes) -> Report {
    let undelivered = sender.take_undelivered();
    let closed = closed.unwrap_or_default();
    let messages = undelivered
        .iter()
        .map(|undelivered| &undelivered.message)
        .chain(&closed.maybe_delivered)
        .chain(&closed.unsent);
    let index = |message: &Message| sizes.index_of(message);
    Report::Undelivered(runs(messages.filter_map(index)))
}
