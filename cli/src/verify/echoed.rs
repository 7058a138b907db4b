//! The server of a run with a client in any language, which sends every message back.

use std::time::Duration;

use unstall::{CloseCode, Message, Sender, Server};

use super::{
    peer::{Failed, Orders, failed, options},
    plan::Sizes,
    stream::{Halt, Stream},
    talk::{Part, Report, report},
};

/// How long a session may take to close. A new client has replaced the old one, or the network works
/// again: it needs a few round trips.
const CLOSE: Duration = Duration::from_secs(3);

/// Serves one session at a time. A newer session replaces the older one. What the client of the older one
/// has not acknowledged is sent again.
pub(super) async fn serve(part: &Part, mut orders: Orders) -> Result<(), Failed> {
    let options = options(part).close_timeout(CLOSE);
    let server = Server::builder().options(options).bind("127.0.0.1:0").await;
    let server = server.map_err(failed)?;
    report(&[Report::Listening(server.local_addr())])?;
    let halt = Halt::default();
    let mut stream = Stream::new(part, &halt);
    let mut last = None;
    tokio::select! {
        over = serve_clients(&server, &mut stream, part.sizes, &mut last) => over?,
        () = orders.obey(&halt) => {}
    }
    if let Some(sender) = last {
        let closed = sender
            .close(CloseCode::NORMAL, "everything has come back")
            .await;
        if let Some(why) = closed.error {
            return Err(failed(format_args!("closing the session: {why}")));
        }
    }
    server.shutdown(Duration::ZERO).await;
    Ok(())
}

/// `last` has the sender of the last session, to close it.
async fn serve_clients(
    server: &Server,
    stream: &mut Stream<'_>,
    sizes: Sizes,
    last: &mut Option<Sender>,
) -> Result<(), Failed> {
    let mut next = server.accept().await;
    while let Some(connection) = next {
        if !connection.is_session() {
            return Err(failed(
                "the client offers no session: its upgrade request has no subprotocol unstall.v1",
            ));
        }
        report(&[Report::Session])?;
        stream.begins();
        let (sender, mut receiver) = connection.split();
        *last = Some(sender.clone());
        let over = tokio::select! {
            biased;
            newer = server.accept() => Err(newer),
            over = stream.exchange(&sender, &mut receiver) => Ok(over?),
        };
        next = match over {
            Err(newer) => {
                send_again(stream, &sender, sizes).await?;
                newer
            }
            Ok(over) => {
                tracing::info!("the session ended: {over:?}");
                *last = None;
                send_again(stream, &sender, sizes).await?;
                server.accept().await
            }
        };
    }
    Ok(())
}

/// Goes back to the first message that the client has not acknowledged.
async fn send_again(stream: &mut Stream<'_>, sender: &Sender, sizes: Sizes) -> Result<(), Failed> {
    let lost = sender.take_undelivered();
    let closed = sender.close(CloseCode::GOING_AWAY, "a newer session").await;
    let back = lost
        .iter()
        .map(|undelivered| &undelivered.message)
        .chain(&closed.maybe_delivered)
        .chain(&closed.unsent);
    // The text that ends the run has no index. It is sent in each session.
    let first = back
        .filter_map(|message: &Message| sizes.index_of(message))
        .min();
    if let Some(first) = first {
        let messages = stream.go_back(first);
        report(&[Report::Again(messages.start, messages.end)])?;
    }
    Ok(())
}
