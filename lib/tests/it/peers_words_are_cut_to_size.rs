//! What a peer announces is bounded: waits are cut, and words are cut and made safe to print.

use crate::common::{
    events::wait_for,
    frames::{BINARY, CLOSE, RawPeer, close, frame, listen, read_head, switching},
    limit,
};
use std::{error::Error, net::SocketAddr, num::NonZeroU64, time::Duration};
use tokio::io::AsyncWriteExt;
use unstall::{Client, ConnectError, Connection, ConnectionError, Event, Reconnect, defaults};
use unstall_proto::{
    CloseFrame, Epoch, ErrorCode, Generation, Offset, Packet, Rejection, SUBPROTOCOL, Seq, Token,
    Welcome, limits,
};

const TEN_YEARS: Duration = Duration::from_secs(86_400 * 365 * 10);

/// Escape codes, a forged line, a right-to-left override, and too many characters.
const WORDS: &str = "\x1b]0;title\x07\x1b[2J\u{9b}31m\u{202e}red\r\n2026 WARN forged";

/// A server that agrees to a session, sends `packets`, and answers the end of the session.
async fn sessions_that_hear(packets: Vec<Packet>) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let head = read_head(&mut tcp).await;
            let agreed = format!("sec-websocket-protocol: {SUBPROTOCOL}\r\n");
            let _ = tcp.write_all(switching(&head, &agreed).as_bytes()).await;
            let mut raw = RawPeer::server(tcp);
            let _hello = raw.see_beyond_heartbeats().await;
            for packet in &packets {
                raw.say(frame(BINARY, packet.to_bytes())).await;
            }
            let end = Packet::End.to_bytes();
            while let Ok(seen) = raw.see().await {
                match seen.opcode {
                    CLOSE => break,
                    BINARY if seen.payload == end => raw.say(frame(BINARY, &end)).await,
                    _ => {}
                }
            }
        }
    });
    address
}

/// The WELCOME for a client's first HELLO.
fn welcome() -> Packet {
    Packet::Welcome(Welcome {
        token: Token([7; 16]),
        epoch: Epoch(NonZeroU64::MIN),
        generation: Generation::new(1),
        received: Seq::new(0),
        acked: Seq::new(0),
        credit: Offset::new(1 << 20),
        max_message: 1 << 20,
        life_millis: 60_000,
    })
}

/// A server that answers each request with these bytes.
async fn answering(answer: String) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            read_head(&mut tcp).await;
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn client(address: SocketAddr) -> Client {
    Client::new(format!("ws://{address}/")).reconnect(Reconnect::default().first(Duration::ZERO))
}

/// The first wait before an attempt to connect that is longer than a minute.
async fn long_wait(connection: &Connection) -> Duration {
    let mut events = connection.events();
    let wait = wait_for(&mut events, |event| match event {
        Event::Reconnecting { after, .. } if after.as_secs() > 60 => Some(*after),
        _ => None,
    });
    limit(wait).await
}

/// A server that agrees to a plain WebSocket, and closes it with [`WORDS`].
async fn closing() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let mut raw = RawPeer::accept(&listener).await;
            raw.say(close(1011, WORDS)).await;
            while raw.see().await.is_ok_and(|frame| frame.opcode != CLOSE) {}
        }
    });
    address
}

/// Checks that the error and its causes are one bounded line each, without characters that act on a
/// terminal.
fn is_fit_to_print(error: &dyn Error) {
    let mut next = Some(error);
    while let Some(error) = next {
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.len() < 2000, "{} bytes: {text}", text.len());
            let acts = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!text.contains(acts), "{text:?}");
        }
        next = error.source();
    }
}

/// Once a server that refused a session could make a client wait for ten years. HTTP's Retry-After was
/// cut to a day already.
#[tokio::test]
async fn wait_that_a_server_asks_for_is_granted_up_to_a_day() {
    let full = Rejection::Full {
        retry_after_millis: TEN_YEARS.as_millis() as u64,
    };
    let refusing = sessions_that_hear(vec![Packet::decode(full.to_packet()).unwrap()]).await;
    let busy = format!(
        "HTTP/1.1 503 Busy\r\nretry-after: {}\r\ncontent-length: 0\r\n\r\n",
        TEN_YEARS.as_secs()
    );
    for address in [refusing, answering(busy).await] {
        let connection = client(address).connect_lazy().unwrap();
        assert_eq!(long_wait(&connection).await, defaults::RETRY_AFTER_MAX);
    }
}

#[tokio::test]
async fn time_over_which_a_server_spreads_its_clients_is_granted_up_to_an_hour() {
    let going = Packet::GoAway {
        within_millis: TEN_YEARS.as_millis() as u64,
        reason: WORDS.to_owned(),
    };
    let address = sessions_that_hear(vec![welcome(), going]).await;
    let connection = client(address).connect().await.unwrap();
    let mut events = connection.events();
    let within = wait_for(&mut events, |event| match event {
        Event::GoAway { within } => Some(*within),
        _ => None,
    });
    assert_eq!(limit(within).await, limits::MAX_GO_AWAY);
}

/// Once a server's words reached the terminal and the log with their escape codes and line ends.
#[tokio::test]
async fn words_of_a_server_that_refuses_are_fit_to_print() {
    let long = "é".repeat(5000);
    for body in [WORDS, &long] {
        let length = body.len();
        let refusal = format!("HTTP/1.1 403 No\r\nContent-Length: {length}\r\n\r\n{body}");
        let error = client(answering(refusal).await)
            .connect()
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        is_fit_to_print(&error);
    }
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let head = read_head(&mut tcp).await;
        let chosen = "sec-websocket-protocol: \u{202e}lla\u{9b}m\r\n";
        let _ = tcp.write_all(switching(&head, chosen).as_bytes()).await;
    });
    let error = client(address).connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Subprotocol { .. }),
        "{error:?}"
    );
    is_fit_to_print(&error);
}

#[tokio::test]
async fn words_of_a_peer_that_ends_a_connection_are_fit_to_print() {
    let abort = Packet::Abort {
        code: ErrorCode::APPLICATION,
        reason: WORDS.to_owned(),
    };
    let ending = Packet::Close {
        last: Seq::new(0),
        within_millis: 5000,
        frame: CloseFrame::new(1011, WORDS),
    };
    for (address, plain) in [
        (closing().await, true),
        (sessions_that_hear(vec![welcome(), abort]).await, false),
        (sessions_that_hear(vec![welcome(), ending]).await, false),
    ] {
        let client = client(address).without_reconnect();
        let client = if plain { client.plain() } else { client };
        let mut connection = client.connect().await.unwrap();
        let end = limit(async {
            loop {
                match connection.recv().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("that was no normal close"),
                    Err(error) => return error,
                }
            }
        })
        .await;
        let words = match &end {
            ConnectionError::ClosedByPeer(close) => &close.reason,
            ConnectionError::SessionLost(unstall::SessionLoss::AbortedByPeer(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert!(
            words.contains("\x1b"),
            "the application can have them as they were sent"
        );
        is_fit_to_print(&end);
        let mut events = connection.events();
        while let Some(event) = limit(events.recv()).await {
            assert!(
                !format!("{event:?}").contains(char::is_control),
                "{event:?}"
            );
        }
    }
}
