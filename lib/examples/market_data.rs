//! cargo run -p unstall --example market_data
//!
//! A client of a market-data feed that it does not control. Prices conflate: a slow program gets the
//! latest price of each symbol. Trades must not be missed: on each new connection the client
//! subscribes again, and then fetches the trades that happened meanwhile. The feed, which closes the
//! connection now and then, runs in this process too.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::broadcast, time::sleep};
use unstall::{
    BoxError, Client, CloseCode, Connection, Gap, Incoming, Message, Options, Overflow, Server,
};

const TRADES: u64 = 300;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let feed = start_feed().await?;
    let options = Options::default()
        .inbox_bytes(4096)
        .overflow(Overflow::Conflate(Arc::new(symbol_of_price)));
    let client = Client::new(format!("ws://{feed}/feed"))
        .options(options)
        .on_connect(|setup| async move { Ok(setup.send("subscribe").await?) });
    let mut connection = client.connect().await?;

    let (mut last, mut backfilled, mut reconnects, mut replaced) = (0, 0, 0, 0);
    while last < TRADES {
        match connection.recv().await?.ok_or("the feed has ended")? {
            // From here on every trade comes. Those before may have been missed.
            Incoming::Message(message) if message.as_text() == Some("subscribed") => {
                for trade in trades_after(feed, last).await? {
                    last = take(trade, last)?;
                    backfilled += 1;
                }
            }
            Incoming::Message(message) => match number_of_trade(&message) {
                Some(trade) if trade > last => last = take(trade, last)?,
                Some(_) => {} // It was among those that were fetched.
                None => sleep(Duration::from_millis(2)).await, // A price, and a slow program.
            },
            Incoming::Gap(Gap::Conflated { messages, .. }) => replaced += messages,
            Incoming::Gap(gap) => {
                eprintln!("something is missing here: {gap:?}");
                reconnects += 1;
            }
        }
    }
    println!("{last} trades, each once and in order");
    println!("{reconnects} reconnects, {backfilled} trades backfilled");
    println!("{replaced} prices replaced by later ones");
    Ok(())
}

/// Prices with the same symbol replace each other. Nothing replaces a trade.
fn symbol_of_price(message: &Message) -> Option<Vec<u8>> {
    let symbol = message
        .as_text()?
        .strip_prefix("price ")?
        .split(' ')
        .next()?;
    Some(symbol.into())
}

fn number_of_trade(message: &Message) -> Option<u64> {
    message.as_text()?.strip_prefix("trade ")?.parse().ok()
}

/// Handles a trade, which must be the one after `last`.
fn take(trade: u64, last: u64) -> Result<u64, BoxError> {
    match trade == last + 1 {
        true => Ok(trade),
        false => Err(format!("trade {trade} came after {last}").into()),
    }
}

/// Fetches the trades after `last`. Many feeds have an HTTP request for this.
async fn trades_after(feed: SocketAddr, last: u64) -> Result<Vec<u64>, BoxError> {
    let client = Client::new(format!("ws://{feed}/history?{last}")).without_reconnect();
    let mut connection = client.connect().await?;
    let mut trades = Vec::new();
    while let Some(Incoming::Message(message)) = connection.recv().await? {
        trades.extend(number_of_trade(&message));
    }
    Ok(trades)
}

/// The feed: a trade each few milliseconds, and ten times as many prices.
struct Feed {
    trades: Mutex<u64>,
    live: broadcast::Sender<String>,
}

async fn start_feed() -> Result<SocketAddr, BoxError> {
    let feed = Arc::new(Feed {
        trades: Mutex::new(0),
        live: broadcast::channel(4096).0,
    });
    let server = Server::builder().plain().bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(trade(feed.clone()));
    tokio::spawn(async move {
        let handler = move |connection| serve(connection, feed.clone());
        server.serve(handler).await;
    });
    Ok(address)
}

async fn trade(feed: Arc<Feed>) {
    for price in 0.. {
        let symbol = ["BTC", "ETH"][price % 2];
        let _ = feed.live.send(format!("price {symbol} {price}"));
        if price % 10 == 0 {
            {
                let mut trades = feed.trades.lock().unwrap();
                *trades += 1;
                let _ = feed.live.send(format!("trade {trades}"));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn serve(mut connection: Connection, feed: Arc<Feed>) {
    let uri = connection.request().map(|request| request.uri().clone());
    let after: Option<u64> = uri.and_then(|uri| uri.query()?.parse().ok());
    if let Some(after) = after {
        let until = *feed.trades.lock().unwrap();
        let trades = (after + 1..=until).map(|trade| format!("trade {trade}"));
        let _ = connection.send_many(trades).await;
        let _ = connection.close(CloseCode::NORMAL, "").await;
        return;
    }
    let _ = connection.recv().await; // "subscribe"
    let mut live = feed.live.subscribe();
    let _ = connection.send("subscribed").await;
    for _ in 0..1000 {
        let Ok(update) = live.recv().await else { break };
        let _ = connection.send(update).await;
    }
    // Dropped: the connection closes with code 1001, and the client connects again.
}
