//! Raw HTTP clients, certificates and waiting without luck, for the tests of the server.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use unstall::{Client, Connection, ServerBuilder, rustls::ClientConfig};

/// The longest that anything may take on a loaded machine before a test gives up.
pub const AMPLE: Duration = Duration::from_secs(60);

/// Waits until `done`; each look is an event of its own, the time only bounds a failing test.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(AMPLE, wait).await.is_err() {
        panic!("never came: {what}");
    }
}

/// A client that does not reconnect.
pub async fn connect(address: SocketAddr) -> Connection {
    let client = Client::new(format!("ws://{address}/")).without_reconnect();
    client.connect().await.unwrap()
}

/// The same without a session: the WebSocket's own close is all there is.
pub async fn connect_plain(address: SocketAddr) -> Connection {
    let client = Client::new(format!("ws://{address}/")).without_reconnect();
    client.plain().connect().await.unwrap()
}

/// A good upgrade request with `more` header lines.
pub fn upgrade(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Sends `request` and reads everything up to the end of the stream.
pub async fn answer(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // The server may have answered and closed before all is sent.
    let _ = tcp.write_all(request.as_bytes()).await;
    to_end(&mut tcp).await
}

pub async fn to_end(tcp: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let end = tcp.read_to_end(&mut text);
    let ended = tokio::time::timeout(AMPLE, end).await;
    // A reset is an end as well.
    let _ = ended.expect("the server closes the connection");
    String::from_utf8_lossy(&text).into_owned()
}

/// The status of an HTTP answer.
pub fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status
        .parse()
        .unwrap_or_else(|_| panic!("no HTTP answer: {answer:?}"))
}

/// A self-signed certificate for `localhost`, in files.
pub struct Certificate(PathBuf, Option<tempfile::TempDir>);

impl Certificate {
    pub fn new() -> Certificate {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(
            directory.path().join("key.pem"),
            signing_key.serialize_pem(),
        )
        .unwrap();
        Certificate(directory.path().to_owned(), Some(directory))
    }

    /// One that another process made.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Certificate {
        Certificate(directory.into(), None)
    }

    pub fn directory(&self) -> &Path {
        &self.0
    }

    pub fn serve(&self, builder: ServerBuilder) -> ServerBuilder {
        builder.tls_pem(self.0.join("cert.pem"), self.0.join("key.pem"))
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        unstall::client_config_from_pem(self.0.join("cert.pem")).unwrap()
    }
}
