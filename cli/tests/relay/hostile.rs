//! Clients and servers that lie: they are bounded, told, and cost the others nothing.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    peers::{Peer, Upstream, closed, echo, numbers, open, refused},
    support::{Serve, send},
};

/// A server that reads a request, and answers as it likes.
fn lying(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                answer(stream);
            });
        }
    });
    url
}

/// Writes something again and again, until it is refused.
fn endlessly(mut stream: &TcpStream, piece: &[u8]) -> usize {
    let mut written = 0;
    while stream.write_all(piece).is_ok() {
        written += piece.len();
        assert!(written < 100 << 20, "nobody refuses it");
    }
    written
}

#[tokio::test]
async fn a_server_with_endless_headers_or_no_websocket_is_502() {
    for beginning in [
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 200 OK\r\n",
        "SSH-2.0\r\n",
    ] {
        let upstream = lying(move |mut stream| {
            let _ = stream.write_all(beginning.as_bytes());
            endlessly(&stream, b"x-header: and so on and on\r\n");
        });
        let relay = Serve::relay(&upstream, &[]);
        assert_eq!(refused(&relay.url).await.0, 502, "{beginning}");
    }
    let no_websocket = lying(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    });
    let relay = Serve::relay(&no_websocket, &[]);
    assert_eq!(refused(&relay.url).await.0, 502);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_1009_on_either_side() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::start(move |mut ws: Peer| {
        let tell = tell.clone();
        async move {
            let first = futures_util::StreamExt::next(&mut ws).await;
            if let Some(Ok(Message::Close(frame))) = first {
                let _ = tell.send((0, frame.map(|it| (it.code.into(), it.reason.to_string()))));
                return;
            }
            let _ = ws.send(Message::binary(vec![0; 2 << 20])).await;
            let _ = tell.send(closed(&mut ws).await);
        }
    })
    .await;
    let relay = Serve::relay(&upstream.url(), &["--max-message", "1MiB"]);
    let mut ws = open(&relay.url).await;
    send(&mut ws, "big").await;
    let (messages, end) = closed(&mut ws).await;
    let (code, reason) = end.unwrap();
    assert_eq!((messages, code), (0, 1009));
    assert!(reason.contains("1048576 bytes"), "{reason}");
    told.recv().await.unwrap();

    let mut ws = open(&relay.url).await;
    // The relay refuses it as soon as the header says its length.
    let sent = ws.send(Message::binary(vec![0; 8 << 20])).await;
    let refused = matches!(
        sent,
        Err(Error::Io(_) | Error::ConnectionClosed | Error::Protocol(_))
    );
    let end = closed(&mut ws).await.1;
    assert!(
        refused
            || end
                .as_ref()
                .is_some_and(|end| end.0 == 1009 || end.0 == 1006),
        "{end:?}"
    );
    let (_, end) = told.recv().await.unwrap();
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1001);
    assert!(reason.contains("larger than the limit"), "{reason}");
}

#[tokio::test]
async fn a_client_with_endless_headers_is_refused_and_a_slow_one_is_cut() {
    let upstream = Upstream::start(echo).await;
    let relay = Serve::relay(&upstream.url(), &["--connect-timeout", "1"]);
    let mut endless = TcpStream::connect(relay.address()).unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    endlessly(&endless, b"x-header: and so on and on\r\n");
    // One that sends a byte now and then. Meanwhile others come in.
    let mut slow = TcpStream::connect(relay.address()).unwrap();
    slow.set_nonblocking(true).unwrap();
    let begun = std::time::Instant::now();
    let mut number = 0;
    loop {
        let alive = slow.write_all(b"G").is_ok();
        let ended = match slow.read(&mut [0; 100]) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if !alive || ended {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never cut");
        let mut ws = open(&relay.url).await;
        send(&mut ws, &number.to_string()).await;
        numbers(&mut ws, number..number + 1).await;
        number += 1;
        // How slow it is.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(number > 10, "{number}");
}
