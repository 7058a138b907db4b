//! Who is let in by servers that ask for a login or TLS, and what the others are told.

use std::io::{BufRead, BufReader, Write};

use unstall_topics::{
    jetstream::{JetStream, OpenError, async_nats::ConnectOptions},
    store::Store,
};

use crate::{
    common::*,
    servers::{Servers, are_installed},
};

/// The address of the server with a login in it.
fn with_login(servers: &Servers, login: &str) -> String {
    servers.url(0).replace("//", &format!("//{login}@"))
}

/// Why it cannot be opened. It must have been reached before.
async fn refusal(url: &str) -> String {
    let error = JetStream::builder([url], "LOG").open().await.unwrap_err();
    assert!(matches!(error, OpenError::Connect(_)), "{error}");
    println!("{error}");
    error.to_string().to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_lets_in_and_a_wrong_one_is_told_and_not_shown() {
    if !are_installed() {
        return;
    }
    let servers = Servers::with(1, "authorization { user: ann, password: right }");
    let store = open(JetStream::builder(
        [with_login(&servers, "ann:right")],
        "LOG",
    ))
    .await;
    append(&store, &["a"]).await;
    for login in ["ann:wr0ng", "wr0ng"] {
        let told = refusal(&with_login(&servers, login)).await;
        assert!(told.contains("authorization"), "{told}");
        assert!(!told.contains("wr0ng"), "{told}");
    }
    let told = refusal(&servers.url(0)).await;
    assert!(told.contains("authorization"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in() {
    if !are_installed() {
        return;
    }
    let servers = Servers::with(1, "authorization { token: s3cret }");
    let store = open(JetStream::builder([with_login(&servers, "s3cret")], "LOG")).await;
    append(&store, &["a"]).await;
    assert_eq!(store.bounds().await.unwrap().last, at(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_a_certificate_that_is_trusted() {
    if !are_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let servers = Servers::with(
        1,
        &format!(
            "tls {{ cert_file: {:?}, key_file: {:?} }}",
            file("cert.pem"),
            file("key.pem")
        ),
    );
    let url = servers.url(0).replace("nats:", "tls:");
    let trusting = ConnectOptions::new().add_root_certificates(file("cert.pem"));
    let builder = JetStream::builder([&*url], "LOG").connect_options(trusting);
    let store = open(builder).await;
    append(&store, &["a"]).await;
    let told = refusal(&url).await;
    assert!(told.contains("certificate"), "{told}");
}

/// Speaks as an old server does, until it is left.
fn old_server() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let info = r#"INFO {"server_id":"OLD","server_name":"old","version":"2.9.25","proto":1,"go":"","host":"127.0.0.1","port":1,"headers":true,"max_payload":1048576,"jetstream":true,"client_id":1}"#;
            let mut answers = tcp.try_clone().unwrap();
            let _ = write!(answers, "{info}\r\n");
            for line in BufReader::new(tcp).lines().map_while(Result::ok) {
                if line.starts_with("PING") {
                    let _ = write!(answers, "PONG\r\n");
                }
            }
        }
    });
    format!("nats://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_told_with_its_version() {
    let error = JetStream::builder([old_server()], "LOG")
        .open()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, OpenError::ServerTooOld { version } if version == "2.9.25"),
        "{error}"
    );
    let told = error.to_string();
    assert!(told.contains("2.9.25") && told.contains("2.10"), "{told}");
}
