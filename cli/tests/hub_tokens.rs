//! Who may do what at a hub with `--token-key`.

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    time::SystemTime,
};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use support::{
    Ended, Running, Serve,
    http::{get, post},
    run, unstall,
};
use unstall::Client;
use unstall_topics::{Topics, TopicsEvent};

const TEXT: &str = "content-type: text/plain";
const EVENTS: &str = "accept: text/event-stream";

/// A hub that takes tokens of one key, and the key that signs them.
struct Guarded {
    directory: tempfile::TempDir,
    hub: Serve,
    algorithm: Algorithm,
    key: EncodingKey,
}

const SECRET: &str = "a secret of at least thirty-two bytes";

fn pem(kind: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
        STANDARD.encode(der)
    )
}

impl Guarded {
    /// A hub whose key file has this text.
    fn new(file: &str, algorithm: Algorithm, key: EncodingKey) -> Guarded {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, file).unwrap();
        let hub = Serve::hub(&["--token-key", path.to_str().unwrap()]);
        Guarded {
            directory,
            hub,
            algorithm,
            key,
        }
    }

    fn secret() -> Guarded {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        Guarded::new(&format!("{SECRET}\n"), Algorithm::HS256, key.unwrap())
    }

    fn token(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.key).unwrap()
    }

    fn authorization(&self, claims: &Value) -> String {
        format!("authorization: Bearer {}", self.token(claims))
    }

    fn post(&self, topic: &str, headers: &[&str]) -> u16 {
        let path = format!("/topics/{topic}");
        post(
            self.hub.address(),
            &path,
            &[&[TEXT], headers].concat(),
            b"x",
        )
        .status
    }

    fn get(&self, filter: &str, headers: &[&str]) -> u16 {
        get(self.hub.address(), &format!("/topics/{filter}"), headers).status
    }

    /// Publishes a line with the token in the environment.
    fn publish(&self, topic: &str, token: &str) -> Ended {
        let mut command = unstall(&["publish", &self.hub.url, topic]);
        command.env("UNSTALL_TOKEN", token);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = Running {
            child: command.spawn().unwrap(),
        };
        running.write("x\n");
        running.end()
    }
}

/// Seconds since 1970, this many from now.
fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() as i64 + seconds
}

fn claims(publish: &[&str], subscribe: &[&str]) -> Value {
    json!({"pub": publish, "sub": subscribe, "exp": seconds_from_now(600)})
}

#[test]
fn each_kind_of_key_lets_its_tokens_in_by_http_and_by_websocket() {
    let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa);
    let private = pem("PRIVATE KEY", private.unwrap().as_ref());
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
        AsDer::as_der(aws_lc_rs::signature::KeyPair::public_key(&rsa)).unwrap();
    let rsa = Guarded::new(
        &pem("PUBLIC KEY", public.as_ref()),
        Algorithm::RS256,
        EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
    );
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed = Guarded::new(
        &ed.public_key_pem(),
        Algorithm::EdDSA,
        EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).unwrap(),
    );
    for guarded in [Guarded::secret(), rsa, ed] {
        let claims = claims(&["a.>"], &["a.*"]);
        let bearer = guarded.authorization(&claims);
        assert_eq!(guarded.post("a.b", &[&bearer]), 200);
        assert_eq!(guarded.get("a.b", &[&bearer]), 200);
        let published = guarded.publish("a.b", &guarded.token(&claims));
        assert_eq!(published.code, Some(0), "{published:?}");
        // Without one, nobody gets in.
        assert_eq!(guarded.post("a.b", &[]), 401);
        assert_eq!(guarded.get("a.b", &[]), 401);
        let published = guarded.publish("a.b", "");
        assert_eq!(published.code, Some(1), "{published:?}");
        assert!(
            published.stderr.contains("a token is needed"),
            "{published:?}"
        );
        assert_eq!(get(guarded.hub.address(), "/healthz", &[]).status, 200);
    }
}

#[test]
fn a_token_allows_what_it_lists_and_no_more() {
    let guarded = Guarded::secret();
    let bearer = guarded.authorization(&claims(&["orders.*", "logs.>"], &["prices.>"]));
    for (topic, status) in [
        ("orders.1", 200),
        ("logs.a.b", 200),
        ("orders", 403),
        ("prices.a", 403),
    ] {
        assert_eq!(guarded.post(topic, &[&bearer]), status, "{topic}");
    }
    for (filter, status) in [
        ("prices.a", 200),
        ("prices.*.b", 200),
        ("prices.%3E", 200),
        ("%3E", 403),
        ("*.a", 403),
        ("orders.1", 403),
    ] {
        assert_eq!(guarded.get(filter, &[&bearer]), status, "{filter}");
    }
    let token = guarded.token(&claims(&["orders.*"], &["prices.>"]));
    assert_eq!(guarded.publish("orders.2", &token).code, Some(0));
    let refused = guarded.publish("prices.a", &token);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("not allowed"), "{refused:?}");
    let file = guarded.directory.path().join("token");
    std::fs::write(&file, token + "\n").unwrap();
    let file = ["--token-file", file.to_str().unwrap()];
    let refused = run(&[&["subscribe", &guarded.hub.url, ">"], &file[..]].concat());
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("not allowed"), "{refused:?}");
    // Nothing is allowed without claims.
    let nothing = guarded.authorization(&json!({"exp": seconds_from_now(600)}));
    assert_eq!(
        (
            guarded.post("a", &[&nothing]),
            guarded.get("a", &[&nothing])
        ),
        (403, 403)
    );
}

#[test]
fn a_token_that_is_not_valid_lets_nobody_in() {
    let guarded = Guarded::secret();
    let good = claims(&[">"], &[">"]);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        guarded.token(&claims)
    };
    let without_exp = guarded.token(&json!({"pub": [">"], "sub": [">"]}));
    let other = EncodingKey::from_secret(b"another secret of more than thirty-two bytes").unwrap();
    let of_another = encode(&Header::new(Algorithm::HS256), &good, &other).unwrap();
    let larger = encode(&Header::new(Algorithm::HS512), &good, &guarded.key).unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".to_owned()]);
    let extended = encode(&header, &good, &guarded.key).unwrap();
    // {"alg":"none"}
    let parts: Vec<_> = guarded.token(&good).split('.').map(str::to_owned).collect();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    for (what, token) in [
        ("no expiry", without_exp),
        ("expired", with("exp", json!(seconds_from_now(-1)))),
        ("not yet valid", with("nbf", json!(seconds_from_now(600)))),
        ("for others", with("aud", json!("another service"))),
        ("no time", with("nbf", json!(-1))),
        (
            "for others, in a list",
            with("aud", json!(["another service"])),
        ),
        ("an expiry as a text", with("exp", json!("2999"))),
        ("an invalid filter", with("pub", json!(["a..b"]))),
        ("an endless expiry", with("exp", json!(1e300))),
        ("another key", of_another),
        ("another algorithm", larger),
        ("an extension", extended),
        ("no algorithm", none),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{}.a", guarded.token(&good))),
        ("nonsense", "nonsense".to_owned()),
    ] {
        let bearer = format!("authorization: Bearer {token}");
        assert_eq!(guarded.post("a", &[&bearer]), 401, "{what}");
        assert_eq!(guarded.get("a", &[&bearer]), 401, "{what}");
        let refused = guarded.publish("a", &token);
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(!refused.stderr.contains(&token), "{what}: {refused:?}");
    }
}

/// A page cannot set headers. It shows its token among the subprotocols.
#[tokio::test]
async fn a_page_shows_its_token_among_the_subprotocols() {
    let guarded = Guarded::secret();
    let topics = |token: &str| {
        let offer = format!("unstall.bearer.{}", URL_SAFE_NO_PAD.encode(token));
        let client = Client::new(format!("{}/topics", guarded.hub.url));
        Topics::over([client.without_proxy().subprotocol(offer)]).start()
    };
    let page = topics(&guarded.token(&claims(&["a"], &["a"])));
    page.publish("a", "x").await.unwrap();
    assert!(page.publish("b", "x").await.is_err());
    let stranger = topics("nonsense");
    let mut events = stranger.events();
    let why = loop {
        match events.next().await.unwrap() {
            TopicsEvent::Disconnected { why } => break why,
            _ => continue,
        }
    };
    assert!(why.contains("not a signed JSON Web Token"), "{why}");
    assert!(!why.contains("nonsense"), "{why}");
}

/// Once every token was refused like these: the library that checks them took `sub` for a text, whatever
/// the hub said.
#[test]
fn claims_of_another_form_are_told() {
    let guarded = Guarded::secret();
    for (name, value) in [
        ("sub", json!("somebody")),
        ("sub", json!([1])),
        ("pub", json!({"a": 1})),
        ("exp", json!(["600"])),
        ("id", json!(7)),
    ] {
        let mut claims = claims(&[">"], &[">"]);
        claims[name] = value;
        let refused = guarded.publish("a", &guarded.token(&claims));
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        let told = "pub and sub are lists of filters, exp and nbf numbers, id a text";
        assert!(refused.stderr.contains(told), "{name}: {refused:?}");
    }
}

/// The classic confusion: whoever has the public key, which is no secret, signs with it as if it were
/// one.
#[test]
fn a_public_key_is_not_taken_for_a_secret() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let public = pair.public_key_pem();
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let guarded = Guarded::new(&public, Algorithm::EdDSA, key);
    for secret in [
        public.as_bytes(),
        public.trim().as_bytes(),
        pair.public_key_raw(),
    ] {
        let forged = EncodingKey::from_secret(secret).unwrap();
        let claims = claims(&[">"], &[">"]);
        let token = encode(&Header::new(Algorithm::HS256), &claims, &forged).unwrap();
        let bearer = format!("authorization: Bearer {token}");
        assert_eq!(guarded.post("a", &[&bearer]), 401);
    }
}

#[test]
fn a_key_that_cannot_be_used_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        let path = directory.path().join("key");
        std::fs::write(&path, text).unwrap();
        path
    };
    let hub = |path: &Path| {
        run(&[
            "hub",
            "--listen",
            "127.0.0.1:0",
            "--token-key",
            path.to_str().unwrap(),
        ])
    };
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    for (text, told) in [
        ("too short", "at least 32 bytes"),
        (&*pair.serialize_pem(), "it is a private key"),
        (&*ec.public_key_pem(), "not a public key of RSA or Ed25519"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "not a public key",
        ),
    ] {
        let ended = hub(&write(text));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(told), "{told}: {ended:?}");
        assert!(!ended.stderr.contains(text.trim()), "{ended:?}");
    }
    let ended = hub(&directory.path().join("missing"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    // With a key, it may listen everywhere.
    let path = write(SECRET);
    let args = [
        "hub",
        "--listen",
        "0.0.0.0:0",
        "--token-key",
        path.to_str().unwrap(),
    ];
    let mut hub = Running::start(&args);
    let mut line = String::new();
    BufReader::new(hub.child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("listening on ws://0.0.0.0:"), "{line}");
}

/// An `EventSource` can set no header. Its cookie counts for reading alone, because a browser sends
/// it with what other sites ask for, too.
#[test]
fn a_cookie_lets_a_page_read_and_not_publish() {
    let guarded = Guarded::secret();
    let claims = claims(&[">"], &[">"]);
    let cookie = format!("cookie: other=1; unstall-token={}", guarded.token(&claims));
    assert_eq!(guarded.get("a", &[&cookie]), 200);
    let answer = get(guarded.hub.address(), "/topics/a", &[&cookie, EVENTS]);
    assert_eq!(answer.events().next().unwrap().kind, "caught_up");
    assert_eq!(guarded.post("a", &[&cookie]), 401);
    // And a token in a URL counts for nothing.
    let token = guarded.token(&claims);
    for name in ["token", "access_token"] {
        assert_eq!(guarded.get(&format!("a?{name}={token}"), &[]), 401);
    }
}

#[test]
fn a_token_that_expires_ends_streams_and_subscriptions() {
    let guarded = Guarded::secret();
    let short = json!({"pub": [">"], "sub": [">"], "exp": seconds_from_now(3)});
    let bearer = guarded.authorization(&short);
    let mut events = get(guarded.hub.address(), "/topics/a", &[EVENTS, &bearer]).events();
    assert_eq!(events.next().unwrap().kind, "caught_up");
    let mut command = unstall(&[
        "subscribe",
        "--json",
        &guarded.hub.url,
        "a",
        "--from",
        "start",
    ]);
    command.env("UNSTALL_TOKEN", guarded.token(&short));
    let mut feed = Running {
        child: command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    };
    let mut marks = BufReader::new(feed.child.stdout.take().unwrap());
    marks.read_line(&mut String::new()).unwrap();
    let last = events.next().unwrap();
    assert_eq!((&*last.kind, events.next()), ("expired", None));
    // The subscriber has no other token, so it ends.
    let ended = feed.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the token has expired"), "{ended:?}");
    let unexpired = guarded.authorization(&claims(&[">"], &[">"]));
    assert_eq!(guarded.post("a", &[&unexpired]), 200);
    assert_eq!(guarded.post("a", &[&bearer]), 401);
}

/// Keys are guessed easily. Whoever sends the same one first must not swallow another's message.
#[test]
fn an_idempotency_key_counts_for_one_identity() {
    let guarded = Guarded::secret();
    let of = |id: &str, life: i64| {
        let exp = seconds_from_now(life);
        guarded.authorization(&json!({"pub": [">"], "sub": [">"], "id": id, "exp": exp}))
    };
    let offset = |bearer: &str| {
        let headers = [TEXT, bearer, "idempotency-key: order-1"];
        let answer = post(guarded.hub.address(), "/topics/orders", &headers, b"x");
        answer.json()["offset"].as_u64().unwrap()
    };
    assert_eq!(offset(&of("eve", 600)), 1);
    assert_eq!(offset(&of("ann", 600)), 2);
    // Also after ann's token was renewed.
    assert_eq!(offset(&of("ann", 700)), 2);
    assert_eq!(offset(&of("eve", 700)), 1);
}

#[test]
fn figures_are_for_operators() {
    let guarded = Guarded::secret();
    let address = guarded.hub.address();
    let everything = guarded.authorization(&claims(&[">"], &[">"]));
    let operator = json!({"operate": true, "exp": seconds_from_now(600)});
    let operator = guarded.authorization(&operator);
    let cookie = operator.replace("authorization: Bearer ", "cookie: a=b; unstall-token=");
    assert!(cookie.starts_with("cookie: "), "{operator}");
    for path in ["/metrics", "/status.json", "/status/history.json"] {
        assert_eq!(get(address, path, &[]).status, 401, "{path}");
        assert_eq!(get(address, path, &[&everything]).status, 403, "{path}");
        assert_eq!(get(address, path, &[&operator]).status, 200, "{path}");
        assert_eq!(get(address, path, &[&cookie]).status, 200, "{path}");
        let other_site = [cookie.as_str(), "origin: https://evil.example"];
        assert_eq!(get(address, path, &other_site).status, 403, "{path}");
    }
    // The page has no figure in it, and asks for the token.
    assert_eq!(get(address, "/", &[]).status, 200);
    assert_eq!(guarded.get("a", &[&operator]), 403, "and nothing else");
}
