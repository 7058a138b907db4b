//! `--max-upstream-age`: a client goes over to another plain connection before the server ends the first.

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{Peer, Upstream, close, closed, open, until},
    rules::{file, relay, say},
    support::{Serve, next, next_json, send},
};

/// One connection of the server, from its login on.
#[derive(Clone, Debug)]
struct Life {
    /// What its login said.
    client: String,
    /// Just before the login was confirmed, and when it ended.
    begun: Instant,
    ended: Option<Instant>,
    /// How many numbers were sent on it.
    sent: u64,
    /// The code with which the other side closed it, before the server did.
    code: Option<u16>,
}

#[derive(Clone, Default)]
struct Lives(Arc<Mutex<Vec<Life>>>);

impl Lives {
    fn all(&self) -> Vec<Life> {
        self.0.lock().unwrap().clone()
    }

    fn begin(&self, client: &str) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(Life {
            client: client.to_owned(),
            begun: Instant::now(),
            ended: None,
            sent: 0,
            code: None,
        });
        all.len() - 1
    }

    fn end(&self, number: usize, sent: u64, code: Option<u16>) {
        let life = &mut self.0.lock().unwrap()[number];
        (life.ended, life.sent, life.code) = (Some(Instant::now()), sent, code);
    }

    /// The codes of those that have ended.
    fn codes(&self) -> Vec<Option<u16>> {
        let all = self.all();
        let ended = all.iter().filter(|life| life.ended.is_some());
        ended.map(|life| life.code).collect()
    }
}

/// A server that ends each connection at its age, as OpenAI does. It greets, and demands a login. Then it
/// counts once in every `period`, and sends back what it gets.
async fn capped(age: Duration, period: Duration) -> (Upstream, Lives) {
    let lives = Lives::default();
    let all = lives.clone();
    let upstream = Upstream::start(move |ws| {
        let all = all.clone();
        async move {
            serve_capped(ws, age, period, &all).await;
        }
    })
    .await;
    (upstream, lives)
}

async fn serve_capped(mut ws: Peer, age: Duration, period: Duration, lives: &Lives) -> Option<()> {
    ws.send(Message::text(r#"{"type":"hello"}"#)).await.ok()?;
    let login = ws.next().await?.ok()?.to_text().ok()?.to_owned();
    // Whatever else comes first is no login.
    let Some(client) = login.strip_prefix("s3cret ") else {
        close(&mut ws, 4001, "log in first").await;
        return None;
    };
    // Who does not wait for the welcome sends its next message meanwhile.
    let early = tokio::time::timeout(Duration::from_millis(20), ws.next()).await;
    assert!(early.is_err(), "{early:?} came before the welcome");
    let (life, mut sent, mut code) = (lives.begin(client), 0, None);
    let welcome = json!({"type": "welcome", "client": client});
    ws.send(Message::text(welcome.to_string())).await.ok()?;
    let end = tokio::time::sleep(age);
    tokio::pin!(end);
    let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    loop {
        tokio::select! {
            () = &mut end => {
                close(&mut ws, 1001, "session expired").await;
                break;
            }
            _ = clock.tick() => {
                let number = json!({"number": sent});
                ws.send(Message::text(number.to_string())).await.ok()?;
                sent += 1;
            }
            message = ws.next() => match message?.ok()? {
                Message::Close(frame) => {
                    code = frame.map(|frame| frame.code.into());
                    break;
                }
                message if message.is_text() => ws.send(message).await.ok()?,
                _ => {}
            },
        }
    }
    lives.end(life, sent, code);
    // The close that answers goes out.
    ws.flush().await.ok()
}

const LOGIN: &str = r#"
snapshot = true
greeting = { "/type" = "hello" }

[[rule]]
first = true
remember = "login"
answer = { "/type" = "welcome" }

[[rule]]
when = { "/type" = "say" }
may_be_lost = true
"#;

/// The promise: the server never ends a connection, and the client is never closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_over_before_its_connection_is_too_old_and_logs_in_again() {
    let age = Duration::from_secs(2);
    let (upstream, lives) = capped(age, Duration::from_secs(60)).await;
    let rules = file(LOGIN);
    let fresh = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(fresh.path(), "x-token: first\n").unwrap();
    let args = [
        "--max-upstream-age",
        "2",
        "--headers-file",
        fresh.path().to_str().unwrap(),
        "--json",
    ];
    let relay = relay(&upstream.url(), &rules, &args);
    let mut ws = open(&relay.url).await;
    assert_eq!(next_json(&mut ws).await["type"], "hello");
    send(&mut ws, "s3cret 1").await;
    assert_eq!(next_json(&mut ws).await["type"], "welcome");
    std::fs::write(fresh.path(), "x-token: second\n").unwrap();
    for said in 0..3 {
        until("the client goes over", || {
            upstream.requests().len() == said + 2
        })
        .await;
        until("the old connection is closed", || {
            lives.codes().len() == said + 1
        })
        .await;
        // Neither the greeting nor the welcome comes again.
        let what = json!({"type": "say", "number": said});
        say(&mut ws, what.clone()).await;
        assert_eq!(next_json(&mut ws).await, what);
    }
    assert_eq!(lives.codes(), [Some(1000); 3], "the server ended none");
    let tokens: Vec<_> = upstream.requests();
    let tokens: Vec<_> = tokens.iter().map(|it| &it.headers()["x-token"]).collect();
    assert_eq!(tokens, ["first", "second", "second", "second"]);
    close(&mut ws, 1000, "").await;
    closed(&mut ws).await;
    relay.running.signal("TERM");
    let Serve {
        running,
        mut stdout,
        ..
    } = relay;
    let ended = running.end();
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
    let mut counts = String::new();
    stdout.read_to_string(&mut counts).unwrap();
    let counts: Value = serde_json::from_str(&counts).unwrap();
    assert_eq!(
        (&counts["rotations"], &counts["reconnects"]),
        (&json!(3), &json!(0))
    );
}

/// A feed that is never quiet goes over all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_of_a_busy_feed_go_over_at_different_times_and_miss_nothing() {
    const CLIENTS: usize = 100;
    let (upstream, lives) = capped(Duration::from_secs(30), Duration::from_millis(40)).await;
    let rules = file(LOGIN);
    let relay = relay(&upstream.url(), &rules, &["--max-upstream-age", "4"]);
    let enough = watch::Sender::new(false);
    // Of how many clients the second connection has brought something.
    let went_on = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (url, enough) = (relay.url.clone(), enough.subscribe());
            let went_on = went_on.clone();
            tokio::spawn(async move {
                let mut ws = open(&url).await;
                send(&mut ws, &format!("s3cret {client}")).await;
                // How many came of each connection, one after the other.
                let mut connections = vec![0u64];
                while !*enough.borrow() {
                    let message = next(&mut ws).await;
                    let Ok(message) =
                        serde_json::from_str::<Value>(message.to_text().unwrap_or_default())
                    else {
                        continue;
                    };
                    let Some(number) = message["number"].as_u64() else {
                        continue;
                    };
                    if number == 0 && connections.last() != Some(&0) {
                        connections.push(0);
                        went_on.fetch_add(usize::from(connections.len() == 2), SeqCst);
                    }
                    let count = connections.last_mut().unwrap();
                    assert_eq!(number, *count, "one after the other");
                    *count += 1;
                }
                connections
            })
        })
        .collect();
    until("all have gone over", || {
        let of = |client: usize| client.to_string();
        let all = lives.all();
        let has_ended = |client| {
            all.iter()
                .any(|life| life.client == client && life.ended.is_some())
        };
        (0..CLIENTS).map(of).all(has_ended)
    })
    .await;
    until("all have received more", || went_on.load(SeqCst) == CLIENTS).await;
    enough.send_replace(true);
    let mut received = Vec::new();
    for client in clients {
        received.push(client.await.unwrap());
    }
    let lives = lives.all();
    let mut ages = Vec::new();
    for (client, received) in received.iter().enumerate() {
        let mut of = lives
            .iter()
            .filter(|life| life.client == client.to_string());
        let (life, second) = (of.next().unwrap(), of.next().unwrap());
        let ended = life.ended.unwrap();
        assert_eq!(life.code, Some(1000), "{life:?}");
        // Everything that was sent on the first connection has come.
        assert_eq!(
            (received[0], received.len() > 1),
            (life.sent, true),
            "{life:?}"
        );
        ages.push(ended - life.begun);
        // The second one had begun before the first one ended.
        assert!(second.begun < ended, "{life:?} {second:?}");
    }
    // Each goes at the latest moment of its own, between 85 and 95 percent of the age.
    ages.sort();
    assert!(ages[0] >= Duration::from_millis(3300), "{ages:?}");
    assert!(
        ages[CLIENTS - 1] - ages[0] > Duration::from_millis(150),
        "{ages:?}"
    );
}

#[tokio::test]
async fn the_text_stands_between_the_old_connection_and_the_new_one() {
    let number = Arc::new(Mutex::new(0));
    let upstream = Upstream::start(move |mut ws: Peer| {
        let number = {
            let mut number = number.lock().unwrap();
            *number += 1;
            *number
        };
        async move {
            ws.send(Message::text(format!("{number} begins")))
                .await
                .unwrap();
            closed(&mut ws).await;
        }
    })
    .await;
    let args = [
        "--plain",
        "--reconnect",
        "--gap-message",
        "GAP",
        "--max-upstream-age",
        "1",
    ];
    let relay = Serve::relay(&upstream.url(), &args);
    let mut ws = open(&relay.url).await;
    for connection in 1..4 {
        assert_eq!(
            next(&mut ws).await,
            Message::text(format!("{connection} begins"))
        );
        assert_eq!(next(&mut ws).await, Message::text("GAP"));
    }
}

/// Once nothing can be told to a client, it is closed at the quiet moment.
#[tokio::test]
async fn a_client_that_cannot_be_told_is_closed_with_1012_at_a_quiet_moment() {
    let (upstream, lives) = capped(Duration::from_secs(60), Duration::from_secs(60)).await;
    let rules = file(&LOGIN.replace("snapshot = true", ""));
    let relay = relay(&upstream.url(), &rules, &["--max-upstream-age", "1"]);
    let mut ws = open(&relay.url).await;
    send(&mut ws, "s3cret 1").await;
    let (messages, end) = closed(&mut ws).await;
    let (code, reason) = end.unwrap();
    assert_eq!((messages, code), (2, 1012));
    assert!(reason.contains("as old as it may get"), "{reason}");
    until("upstream is closed", || lives.codes() == [Some(1000)]).await;
    assert_eq!(upstream.requests().len(), 1, "no other one was made");
    // If nothing has passed, there is nothing to tell.
    let silent = Upstream::start(|mut ws: Peer| async move {
        closed(&mut ws).await;
    })
    .await;
    let relay = self::relay(&silent.url(), &rules, &["--max-upstream-age", "1"]);
    let _ws = open(&relay.url).await;
    until("it goes over", || silent.requests().len() == 3).await;
}

/// A client that speaks all the time goes over at the latest moment.
#[tokio::test]
async fn a_moment_is_quiet_if_no_message_passes_and_is_not_waited_for_forever() {
    let (upstream, lives) = capped(Duration::from_secs(60), Duration::from_secs(60)).await;
    let rules = file(LOGIN);
    let relay = relay(&upstream.url(), &rules, &["--max-upstream-age", "2"]);
    let mut ws = open(&relay.url).await;
    let begun = Instant::now();
    send(&mut ws, "s3cret 1").await;
    next_json(&mut ws).await;
    next_json(&mut ws).await;
    let mut number = 0;
    while lives.codes().is_empty() {
        say(&mut ws, json!({"type": "say", "number": number})).await;
        assert_eq!(next_json(&mut ws).await["number"], number);
        number += 1;
        // Shorter than what counts as quiet, which is a fortieth of the age.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let age = begun.elapsed();
    assert!(age > Duration::from_millis(1650), "{age:?}");
    assert_eq!(lives.codes(), [Some(1000)]);
}

/// If the new connection is refused or does not answer, the old one goes on.
#[tokio::test]
async fn the_old_connection_goes_on_while_no_new_one_can_be_made() {
    let (refuses, silent) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(false)));
    let (refuse, be_silent) = (refuses.clone(), silent.clone());
    let answer = move |_: &_, response| match *refuse.lock().unwrap() {
        true => crate::peers::refusal(503, ("x-a", "b"), "full"),
        false => Ok(response),
    };
    let upstream = Upstream::answering(answer, move |mut ws: Peer| {
        let silent = *be_silent.lock().unwrap();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                if message.is_text() && !silent {
                    ws.send(message).await.unwrap();
                }
            }
        }
    })
    .await;
    let rules = r#"
        snapshot = true
        [[rule]]
        when = { "/type" = "login" }
        remember = "login"
        answer = { "/type" = "login" }
        [[rule]]
        when = { "/type" = "say" }
        may_be_lost = true
    "#;
    let rules = file(rules);
    let relay = relay(&upstream.url(), &rules, &["--max-upstream-age", "1"]);
    let mut ws = open(&relay.url).await;
    say(&mut ws, json!({"type": "login"})).await;
    next_json(&mut ws).await;
    *refuses.lock().unwrap() = true;
    until("it was refused", || upstream.requests().len() >= 3).await;
    let echoed = |number: u64| json!({"type": "say", "number": number});
    say(&mut ws, echoed(1)).await;
    assert_eq!(next_json(&mut ws).await, echoed(1));
    (*refuses.lock().unwrap(), *silent.lock().unwrap()) = (false, true);
    let asked = upstream.requests().len();
    until("a silent one was made", || {
        upstream.requests().len() > asked
    })
    .await;
    // What the client sends meanwhile waits, and is not lost.
    say(&mut ws, echoed(2)).await;
    // The relay gives up after ten seconds, in which it may ping.
    let message = loop {
        match next(&mut ws).await {
            Message::Ping(_) => {}
            message => break message,
        }
    };
    assert_eq!(message, Message::text(echoed(2).to_string()));
    *silent.lock().unwrap() = false;
}

/// A session is not gone over: it resumes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_upstream_has_no_age() {
    let serve = Serve::start(&[]);
    let network = crate::peers::Network::to(serve.address()).await;
    let args = ["--reconnect", "--max-upstream-age", "1"];
    let relay = Serve::relay(&network.url(), &args);
    let mut ws = open(&relay.at("/echo")).await;
    for number in 0..3 {
        send(&mut ws, &number.to_string()).await;
        crate::peers::numbers(&mut ws, number..number + 1).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(*network.connections.borrow(), 1);
}
