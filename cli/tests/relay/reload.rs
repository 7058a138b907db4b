//! SIGHUP: a relay reads its files again, and whoever is there notices nothing.

use std::{
    io::{BufRead, BufReader},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    file::{File, route, status},
    peers::{Network, Upstream, connect, echo, numbers, open, refused},
    support::{Serve, http::get, next, send},
};

/// What a relay logs, line by line.
pub(crate) struct Log(Receiver<String>);

impl Log {
    pub(crate) fn of(relay: &mut Serve) -> Log {
        let (tell, told) = channel();
        let stderr = BufReader::new(relay.running.child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Log(told)
    }

    /// Waits for a line with this text.
    pub(crate) fn line(&self, text: &str) -> String {
        loop {
            let line = self.0.recv_timeout(Duration::from_secs(60));
            let line = line.unwrap_or_else(|_| panic!("no line has {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reloads, and waits for the end of it.
    pub(crate) fn reload(&self, relay: &Serve, outcome: &str) -> String {
        relay.running.signal("HUP");
        self.line(outcome)
    }
}

const DONE: &str = "reloaded: ";
const FAILED: &str = "all stays as it was";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_live_over_reloads_and_new_clients_get_the_new_routes() {
    const COUNT: u64 = 20_000;
    let (old, new) = (Upstream::start(echo).await, Upstream::start(echo).await);
    let file = File::new(&(route("/a", &old.url(), "") + &route("/b", &old.url(), "")));
    let mut relay = file.relay(&["-v"]);
    let log = Log::of(&mut relay);
    let (mut sink, mut stream) = open(&relay.at("/a")).await.split();
    // Five reloads while messages pass.
    let sending = async {
        for number in 0..COUNT {
            sink.send(Message::text(number.to_string())).await.unwrap();
            if number % (COUNT / 5) == COUNT / 10 {
                relay.running.signal("HUP");
            }
        }
    };
    let receiving = numbers(&mut stream, 0..COUNT);
    tokio::join!(sending, receiving);
    let mut ws = sink.reunite(stream).unwrap();
    log.line(DONE);
    assert_eq!(refused(&relay.at("/c")).await.0, 404);

    file.write(&(route("/b", &new.url(), "") + &route("/c", &new.url(), "")));
    // Those that came before may still be on their way.
    while status(&relay.at("/c")).await != 101 {
        log.reload(&relay, DONE);
    }
    assert_eq!(refused(&relay.at("/a")).await.0, 404);
    open(&relay.at("/b")).await;
    assert_eq!((old.requests().len(), new.requests().len()), (1, 2));
    send(&mut ws, "7").await;
    numbers(&mut ws, 7..8).await;
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_is_told() {
    let upstream = Upstream::start(echo).await;
    let to = upstream.url();
    let good = route("/a", &to, "");
    let file = File::new(&good);
    let mut relay = file.relay(&["-v"]);
    let log = Log::of(&mut relay);
    let mut ws = open(&relay.at("/a")).await;
    for (wrong, why) in [
        (route("/b", &to, "header = [\"s3cret"), "relay.toml:5:"),
        (
            route("/b", &to, "nothing = 1"),
            "there is no option `nothing`",
        ),
        (
            route("/b", &to, "tls-roots = \"/no/such/file\""),
            "/no/such/file",
        ),
        (
            format!("token = \"/no/such/file\"\n{}", route("/b", &to, "")),
            "/no/such/file",
        ),
        (
            // The second route is as good as the first one is not.
            route("/c", "http://h", "") + &route("/b", &to, ""),
            "the route of line 2",
        ),
    ] {
        file.write(&wrong);
        let told = log.reload(&relay, FAILED);
        assert!(told.contains(why), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
        assert_eq!(refused(&relay.at("/b")).await.0, 404);
        open(&relay.at("/a")).await;
    }
    std::fs::remove_file(&file.path).unwrap();
    log.reload(&relay, FAILED);
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    file.write(&route("/b", &to, ""));
    log.reload(&relay, DONE);
    open(&relay.at("/b")).await;
}

#[tokio::test]
async fn a_token_is_read_again_also_without_a_file_of_routes() {
    let upstream = Upstream::start(echo).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "first\n").unwrap();
    let args = ["-v", "--token", token.path().to_str().unwrap()];
    let mut relay = Serve::relay(&upstream.url(), &args);
    let log = Log::of(&mut relay);
    let shows = async |token: &str| {
        let header = format!("Bearer {token}");
        let opened = connect(&relay.url, &[("authorization", &header)]).await;
        let header = format!("authorization: {header}");
        let page = get(relay.address(), "/metrics", &[&header]).status;
        let status = get(relay.address(), "/status.json", &[&header]).status;
        (opened.is_ok(), page, status)
    };
    assert_eq!(shows("first").await, (true, 200, 200));
    assert_eq!(shows("second").await, (false, 401, 401));
    std::fs::write(token.path(), "second\n").unwrap();
    log.reload(&relay, DONE);
    assert_eq!(shows("first").await, (false, 401, 401));
    assert_eq!(shows("second").await, (true, 200, 200));
    std::fs::write(token.path(), "\n").unwrap();
    log.reload(&relay, FAILED);
    assert_eq!(shows("second").await, (true, 200, 200));
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_the_rest_counts() {
    let upstream = Upstream::start(echo).await;
    let to = upstream.url();
    let file = File::new(&route("/a", &to, ""));
    let mut relay = file.relay(&["-v"]);
    let log = Log::of(&mut relay);
    let text = format!(
        "max-connections = 7\n{}",
        route("/b", &to, "connect-timeout = 99")
    );
    std::fs::write(&file.path, format!("listen = \"ws://127.0.0.1:1\"\n{text}")).unwrap();
    relay.running.signal("HUP");
    for name in ["`listen`", "`max-connections`", "`connect-timeout`"] {
        let told = log.line(name);
        assert!(told.contains("restart") && told.contains("ERROR"), "{told}");
    }
    log.line(DONE);
    open(&relay.at("/b")).await;
}

/// A cut while the file changes must not end a stream, because the relays promise to hide cuts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_a_route_that_is_gone_resumes_and_a_new_one_is_refused() {
    let upstream = Upstream::start(echo).await;
    let file = File::new(&(route("/a", &upstream.url(), "") + &route("/b", &upstream.url(), "")));
    let mut inner = file.relay(&["-v"]);
    let log = Log::of(&mut inner);
    let network = Network::to(inner.address()).await;
    let outer = Serve::relay(&network.url(), &["--require-session"]);
    let mut ws = open(&outer.at("/a")).await;
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    file.write(&route("/b", &upstream.url(), ""));
    log.reload(&inner, DONE);
    network.cut();
    send(&mut ws, "1").await;
    numbers(&mut ws, 1..2).await;
    assert!(*network.connections.borrow() > 1, "it resumed");
    assert_eq!(refused(&outer.at("/a")).await.0, 404);
    // A client of the library says not whether it resumes.
    let mut session = unstall::Client::new(inner.at("/a"))
        .connect()
        .await
        .unwrap();
    let ended = format!("{:?}", session.recv().await);
    assert!(
        ended.contains("SessionLost") && ended.contains("1008"),
        "{ended}"
    );
    send(&mut ws, "2").await;
    numbers(&mut ws, 2..3).await;
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1, "only the first stream: {requests:?}");
}

#[tokio::test]
async fn a_recording_goes_on_over_a_reload() {
    let upstream = Upstream::start(echo).await;
    let directory = tempfile::tempdir().unwrap();
    let record = format!("record = \"{}/feed\"", directory.path().display());
    let text = route("/a", &upstream.url(), &record);
    let file = File::new(&text);
    let mut relay = file.relay(&["-v"]);
    let log = Log::of(&mut relay);
    let mut ws = open(&relay.at("/a")).await;
    log.reload(&relay, DONE);
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    let mut other = open(&relay.at("/a")).await;
    send(&mut other, "1").await;
    next(&mut other).await;
    file.write(&(text.clone() + "record-bytes = \"2GiB\"\n"));
    assert!(log.reload(&relay, FAILED).contains("record-bytes"));
    file.write(&text);
    log.reload(&relay, DONE);
    open(&relay.at("/a")).await;
}
