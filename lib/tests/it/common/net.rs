//! Servers, raw HTTP clients and certificates.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use unstall::{Connection, Options, Server, ServerBuilder, rustls::ClientConfig};

use super::{client, echo, frames::upgrade, limit, plain};

pub(crate) async fn bind(builder: ServerBuilder) -> Server {
    builder.bind("127.0.0.1:0").await.unwrap()
}

/// A server at the address of one that has just ended, whose listener may take a moment to be closed.
pub(crate) async fn bind_again(builder: ServerBuilder, address: SocketAddr) -> Server {
    let binding = async {
        loop {
            match builder.clone().bind(address).await {
                Ok(server) => return server,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
            }
            tokio::task::yield_now().await;
        }
    };
    limit(binding).await
}

/// Serves every connection of this server in a task.
pub(crate) fn serve<H, F>(server: &Server, handler: H) -> JoinHandle<()>
where
    H: Fn(Connection) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let server = server.clone();
    tokio::spawn(async move { server.serve(handler).await })
}

/// A server that echoes.
pub(crate) async fn echo_server(builder: ServerBuilder) -> Server {
    let server = bind(builder).await;
    serve(&server, echo);
    server
}

/// A client that does not reconnect.
pub(crate) async fn connect(address: SocketAddr) -> Connection {
    client(address, Options::default()).connect().await.unwrap()
}

/// A client without a session, so that only the close of the WebSocket counts.
pub(crate) async fn connect_plain(address: SocketAddr) -> Connection {
    let client = client(address, Options::default());
    client.plain().connect().await.unwrap()
}

/// A TCP connection from this address of the loopback network.
pub(crate) async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Other systems give the loopback network one address only.
    if cfg!(target_os = "linux") {
        socket.bind((from, 0).into()).unwrap();
    }
    socket.connect(to).await.unwrap()
}

/// The head of the answer to `request`. After a 101 the connection stays open.
pub(crate) async fn ask(tcp: &mut TcpStream, request: &str) -> String {
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match limit(tcp.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Sends `request` and reads everything up to the end of the stream.
pub(crate) async fn answer(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // The server may have answered and closed before all is sent.
    let _ = tcp.write_all(request.as_bytes()).await;
    to_end(&mut tcp).await
}

pub(crate) async fn to_end(tcp: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let end = tcp.read_to_end(&mut text);
    // A reset is an end too.
    let _ = limit(end).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// The status of an HTTP answer.
pub(crate) fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status
        .parse()
        .unwrap_or_else(|_| panic!("no HTTP answer: {answer:?}"))
}

/// A self-signed certificate for `localhost`, in files.
pub(crate) struct Certificate {
    directory: PathBuf,
    /// Removes the files in the end.
    _temporary: Option<tempfile::TempDir>,
}

impl Certificate {
    pub(crate) fn new() -> Certificate {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(
            directory.path().join("key.pem"),
            signing_key.serialize_pem(),
        )
        .unwrap();
        Certificate {
            directory: directory.path().to_owned(),
            _temporary: Some(directory),
        }
    }

    /// A certificate that another process made.
    pub(crate) fn in_directory(directory: impl Into<PathBuf>) -> Certificate {
        Certificate {
            directory: directory.into(),
            _temporary: None,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn serve(&self, builder: ServerBuilder) -> ServerBuilder {
        builder.tls_pem(
            self.directory.join("cert.pem"),
            self.directory.join("key.pem"),
        )
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        unstall::client_config_from_pem(self.directory.join("cert.pem")).unwrap()
    }
}

/// Checks that the server still accepts a new client.
pub(crate) async fn is_alive(server: &Server) {
    let client = connect(server.local_addr());
    let (client, accepted) = tokio::join!(client, server.accept());
    let mut accepted = accepted.unwrap();
    client.send("alive").await.unwrap();
    let message = plain(limit(accepted.recv()).await);
    assert_eq!(message.as_text(), Some("alive"));
}

/// Reads up to the end of an HTTP head, or of the stream. What follows the head is read too.
async fn to_blank_line(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n")
        && let Ok(1..) = tcp.read_buf(&mut head).await
    {}
    String::from_utf8(head).unwrap()
}

/// How many clients were upgraded, refused with a status, and closed without one.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) upgraded: usize,
    pub(crate) told: usize,
    pub(crate) closed: usize,
}

/// One of many clients. Returns what became of its request, and its connection if it was upgraded.
pub(crate) async fn one_of_many(address: SocketAddr) -> (Outcomes, Option<TcpStream>) {
    let mut outcome = Outcomes::default();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let _ = tcp.write_all(upgrade("").as_bytes()).await;
    let head = to_blank_line(&mut tcp).await;
    if head.is_empty() {
        outcome.closed = 1;
        return (outcome, None);
    }
    match status(&head) {
        101 => {
            outcome.upgraded = 1;
            return (outcome, Some(tcp));
        }
        503 => outcome.told = 1,
        other => panic!("a status of {other}"),
    }
    (outcome, None)
}

/// An address of the loopback network where nobody listens, and that nobody else is given: another
/// test, here or in a second run beside this one, binds a port of 127.0.0.1 or an address of its own.
pub(crate) fn unused_address() -> SocketAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let [_, second, third, fourth] = std::process::id().to_be_bytes();
    let own = [127, third | 0x80, fourth, GIVEN.fetch_add(1, Relaxed)];
    SocketAddr::from((own, 10_000 + u16::from(second)))
}
