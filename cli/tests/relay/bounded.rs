//! What a relay holds is bounded, and where messages are missing the client is told.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{Network, Peer, Upstream, close, closed, echo, numbers, open, until},
    support::{Raw, Serve, next, send},
};

/// The length of the messages of a flood.
const MESSAGE_BYTES: usize = 64 << 10;

/// What a relay may take beyond its buffers: the program, its windows, and what the kernel counts.
const BESIDE_BYTES: u64 = 40 << 20;

/// Sends so many numbered messages to a client that says "flood", then closes. Echoes to others. The
/// channel gets how many were sent.
async fn floods(count: u64) -> (Upstream, UnboundedReceiver<u64>) {
    let (tell, told) = unbounded_channel();
    let upstream = Upstream::start(move |mut ws: Peer| {
        let tell = tell.clone();
        async move {
            match ws.next().await {
                Some(Ok(message)) if message == Message::text("flood") => {}
                Some(Ok(message)) => {
                    ws.send(message).await.unwrap();
                    return echo(ws).await;
                }
                _ => return,
            }
            let mut sent = 0;
            while sent < count {
                let mut message = vec![0; MESSAGE_BYTES];
                message[..8].copy_from_slice(&sent.to_be_bytes());
                if ws.send(Message::binary(message)).await.is_err() {
                    break;
                }
                sent += 1;
            }
            tell.send(sent).unwrap();
            if sent == count {
                close(&mut ws, 1000, "whole").await;
                while let Some(Ok(_)) = ws.next().await {}
            }
        }
    })
    .await;
    (upstream, told)
}

/// Receives what there is of a flood. It has no gap.
async fn flood(ws: &mut Raw) -> (u64, (u16, String)) {
    let mut count = 0u64;
    loop {
        match next(ws).await {
            Message::Binary(message) => {
                assert_eq!(message[..8], count.to_be_bytes());
                count += 1;
            }
            Message::Close(frame) => {
                let frame = frame.unwrap();
                return (count, (frame.code.into(), frame.reason.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The most memory that the relay ever had, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn peak(relay: &Serve) -> u64 {
    let status = format!("/proc/{}/status", relay.running.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn peak(_: &Serve) -> u64 {
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_is_closed_with_1008_and_the_others_go_on() {
    let (upstream, mut sent) = floods(u64::MAX).await;
    let relay = Serve::relay(
        &upstream.url(),
        &["--buffer", "1MiB", "--overflow", "close"],
    );
    let before = peak(&relay);
    let mut stopped = open(&relay.url).await;
    let mut other = open(&relay.url).await;
    send(&mut stopped, "flood").await;
    let mut number = 0;
    let sent = loop {
        send(&mut other, &number.to_string()).await;
        numbers(&mut other, number..number + 1).await;
        number += 1;
        if let Ok(sent) = sent.try_recv() {
            break sent;
        }
    };
    // The relay has given up. What it accepted for the client is still there, without a gap.
    let (received, (code, reason)) = flood(&mut stopped).await;
    assert_eq!(code, 1008);
    assert!(reason.starts_with("read faster"), "{reason}");
    assert!(0 < received && received < sent, "{received} of {sent}");
    assert!(peak(&relay) < before + BESIDE_BYTES);
    send(&mut other, "last").await;
    assert_eq!(next(&mut other).await, Message::text("last"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_client_does_not_take_waits_in_a_file_of_bounded_size() {
    const COUNT: u64 = 1000;
    let (upstream, mut sent) = floods(COUNT).await;
    let args = ["--buffer", "256KiB", "--spill", "100MiB"];
    let relay = Serve::relay(&upstream.url(), &args);
    let before = peak(&relay);
    let mut slow = open(&relay.url).await;
    send(&mut slow, "flood").await;
    // It begins to read when upstream has sent everything.
    assert_eq!(sent.recv().await, Some(COUNT));
    let end = (1000, "whole".to_owned());
    assert_eq!(flood(&mut slow).await, (COUNT, end));
    assert!(peak(&relay) < before + BESIDE_BYTES);

    let small = ["--buffer", "256KiB", "--spill", "1MiB"];
    let relay = Serve::relay(&upstream.url(), &small);
    let mut slow = open(&relay.url).await;
    send(&mut slow, "flood").await;
    let sent = sent.recv().await.unwrap();
    let (received, (code, _)) = flood(&mut slow).await;
    assert!(received < sent, "{received} of {sent}");
    assert_eq!(code, 1008);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_upstream_waits_for_its_client() {
    const COUNT: u64 = 500;
    let (upstream, mut sent) = floods(COUNT).await;
    let args = ["--buffer", "256KiB"];
    let relay = Serve::relay(&upstream.url(), &args);
    let mut slow = open(&relay.url).await;
    send(&mut slow, "flood").await;
    // The time in which it does not read. The kernels of both connections hold some MiB.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(sent.try_recv().is_err());
    let end = (1000, "whole".to_owned());
    assert_eq!(flood(&mut slow).await, (COUNT, end));
}

/// Once only what clients had sent counted, and a relay held every buffer in full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_connections_hold_together_is_bounded_and_nothing_is_lost() {
    const COUNT: u64 = 2000;
    let (upstream, mut sent) = floods(COUNT).await;
    let args = ["--buffer", "1GiB", "--memory", "8MiB"];
    let relay = Serve::relay(&upstream.url(), &args);
    let before = peak(&relay);
    let mut slow = open(&relay.url).await;
    send(&mut slow, "flood").await;
    // The time in which it does not read. Without the bound all of it arrives at the relay.
    let all = tokio::time::timeout(Duration::from_millis(700), sent.recv());
    assert!(all.await.is_err(), "upstream has to wait");
    assert!(peak(&relay) < before + BESIDE_BYTES);
    let end = (1000, "whole".to_owned());
    assert_eq!(flood(&mut slow).await, (COUNT, end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_read_makes_its_client_wait() {
    let (go, went) = tokio::sync::watch::channel(false);
    let upstream = Upstream::start(move |mut ws: Peer| {
        let mut went = went.clone();
        async move {
            went.wait_for(|it| *it).await.unwrap();
            let mut count = 0u64;
            while let Some(Ok(message)) = ws.next().await {
                if message.is_close() {
                    break;
                }
                count += message.len() as u64;
                if message.is_text() {
                    ws.send(Message::text(count.to_string())).await.unwrap();
                }
            }
        }
    })
    .await;
    let relay = Serve::relay(&upstream.url(), &[]);
    let before = peak(&relay);
    let mut ws = open(&relay.url).await;
    let mut sent = 0u64;
    let message = Message::binary(vec![0; 1 << 20]);
    // Until nothing more is taken.
    while let Ok(done) =
        tokio::time::timeout(Duration::from_millis(500), ws.send(message.clone())).await
    {
        done.unwrap();
        sent += 1 << 20;
        assert!(sent < 200 << 20, "nobody waits");
    }
    assert!(peak(&relay) < before + BESIDE_BYTES);
    go.send_replace(true);
    // The message that waited is sent too.
    ws.flush().await.unwrap();
    send(&mut ws, "?").await;
    let counted: u64 = next(&mut ws).await.to_text().unwrap().parse().unwrap();
    assert!(
        counted == sent + 1 || counted == sent + (1 << 20) + 1,
        "{counted} of {sent}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_upstream_that_is_cut_is_never_a_silent_gap() {
    let upstream = Upstream::start(echo).await;
    for (args, goes_on_unused, goes_on) in [
        (&["--plain"][..], false, false),
        (&[], false, false),
        (&["--reconnect"], true, false),
        (&["--reconnect", "--gap-message", "GAP"], true, true),
    ] {
        let network = Network::to(&upstream.address.to_string()).await;
        let relay = Serve::relay(&network.url(), args);
        let mut ws = open(&relay.url).await;
        network.cut();
        if goes_on_unused {
            // Nothing had passed, so nothing is missing.
            until("upstream is there again", || {
                *network.connections.borrow() == 2
            })
            .await;
            send(&mut ws, "0").await;
            numbers(&mut ws, 0..1).await;
        } else {
            assert_eq!(closed(&mut ws).await.1.unwrap().0, 1012, "{args:?}");
            ws = open(&relay.url).await;
            send(&mut ws, "0").await;
            numbers(&mut ws, 0..1).await;
        }
        network.cut();
        if goes_on {
            assert_eq!(next(&mut ws).await, Message::text("GAP"));
            send(&mut ws, "1").await;
            numbers(&mut ws, 1..2).await;
        } else {
            let (messages, end) = closed(&mut ws).await;
            assert_eq!((messages, end.unwrap().0), (0, 1012), "{args:?}");
        }
    }
}
