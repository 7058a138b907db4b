//! `Duration::MAX`, the usual way to say "never", is allowed wherever a duration is.

use crate::common::{events::wait_for, limit, plain, until};
use std::time::Duration;
use tokio::net::TcpListener;
use unstall::{
    Client, CloseCode, Event, Message, Options, Reconnect, Server, ServerLimits, StallCause,
    tokio_tungstenite,
};

const FOREVER: Duration = Duration::MAX;

/// Options with `Duration::MAX` for every duration.
fn options() -> Options {
    Options::default()
        .connect_timeout(FOREVER)
        .setup_timeout(FOREVER)
        .ping_interval(FOREVER)
        .silence_timeout(FOREVER)
        .write_timeout(Some(FOREVER))
        .close_timeout(FOREVER)
        .stall_after(FOREVER)
        .pack_delay(FOREVER)
        .session_life(FOREVER)
}

async fn server() -> Server {
    let limits = ServerLimits::default()
        .handshake_timeout(FOREVER)
        .retry_after(FOREVER);
    let builder = Server::builder().options(options()).limits(limits);
    builder.bind("127.0.0.1:0").await.unwrap()
}

/// Once each of these panicked in the connection's task, because of `Instant + Duration::MAX`. The error
/// said that the runtime had shut down.
#[tokio::test]
async fn connection_whose_every_duration_is_forever_opens_sends_and_closes() {
    for session in [false, true] {
        let server = server().await;
        let client = Client::new(format!("ws://{}/", server.local_addr()))
            .options(options())
            .reconnect(Reconnect::default().max(FOREVER).proof(FOREVER))
            .on_connect(async |setup| Ok(setup.send("hook").await?));
        let client = match session {
            true => client.require_session(),
            false => client.plain(),
        };
        limit(async {
            let (client, accepted) = tokio::join!(client.connect(), server.accept());
            let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
            assert_eq!(client.is_session(), session);
            assert_eq!(plain(accepted.recv().await), Message::from("hook"));
            client.send_within("up", FOREVER).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(plain(accepted.recv().await), Message::from("up"));
            accepted.send("down").await.unwrap();
            accepted.flush().await.unwrap();
            assert_eq!(plain(client.recv().await), Message::from("down"));
            let serving = async { assert!(accepted.recv().await.unwrap().is_none()) };
            let (report, ()) = tokio::join!(client.close(CloseCode::NORMAL, ""), serving);
            assert!(report.clean, "{report:?}");
            drop(accepted);
            server.shutdown(FOREVER).await;
        })
        .await;
    }
}

/// A client whose wait before the next attempt is "forever" waits, and can be closed during that.
#[tokio::test]
async fn client_that_waits_forever_to_reconnect_can_be_closed() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(format!("ws://{}/", listener.local_addr().unwrap()))
            .options(options())
            .reconnect(Reconnect::default().first(FOREVER).max(FOREVER));
        let server = async {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio_tungstenite::accept_async(tcp).await.unwrap()
        };
        let (client, server) = tokio::join!(client.connect(), server);
        let client = client.unwrap();
        let mut events = client.events();
        drop(server);
        let wait = wait_for(&mut events, |event| match event {
            Event::Reconnecting { after, .. } => Some(*after),
            _ => None,
        })
        .await;
        assert!(wait > Duration::from_secs(86_400), "{wait:?}");
        until("the stall is counted", || {
            let stalls = client.stats().stalls;
            let connecting = |it: &unstall::StallStats| it.cause == StallCause::Connecting;
            stalls.iter().any(|it| connecting(it) && it.now.is_some())
        })
        .await;
        let _ = client.close(CloseCode::NORMAL, "").await;
    })
    .await;
}
