//! Behind a trusted proxy, a client's address is its own and not the proxy's. Only trusted proxies are
//! believed.

use std::net::SocketAddr;

use crate::common::{
    frames::upgrade,
    limit,
    net::{Certificate, answer, ask, bind, connect_from, status, to_end},
    until,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use unstall::{
    Client, Connection, PeerAddr, Rejection, Server, ServerBuilder, ServerLimits, TrustedProxies,
};

const CLIENT: &str = "192.0.2.1:5000";
const TEXT: &str = "PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n";

fn loopback() -> TrustedProxies {
    TrustedProxies::new(["127.0.0.1", "10.0.0.0/8"]).unwrap()
}

async fn behind(proxies: TrustedProxies) -> Server {
    bind(Server::builder().trusted_proxies(proxies)).await
}

/// The server's connection for a client that begins with these bytes.
async fn opened(server: &Server, bytes: &[u8]) -> (TcpStream, Connection) {
    let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let accepted = limit(server.accept()).await.unwrap();
    (tcp, accepted)
}

fn told(connection: &Connection) -> PeerAddr {
    let request = connection.request().unwrap();
    *request.extensions().get().unwrap()
}

#[tokio::test]
async fn the_proxy_protocol_tells_the_clients_address_in_both_versions() {
    let server = behind(loopback().proxy_protocol()).await;
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    binary.extend([192, 0, 2, 1, 127, 0, 0, 1, 0x13, 0x88, 0, 80]);
    for header in [TEXT.as_bytes(), &binary] {
        let bytes = [header, upgrade("").as_bytes()].concat();
        let (tcp, accepted) = opened(&server, &bytes).await;
        let client = CLIENT.parse().unwrap();
        assert_eq!(accepted.peer_addr(), Some(client));
        assert_eq!(told(&accepted).client, client);
        assert_eq!(told(&accepted).proxy, Some(tcp.local_addr().unwrap()));
        // The connection works as any other.
        accepted.send("hello").await.unwrap();
        limit(accepted.flush()).await.unwrap();
    }
    let bare = answer(server.local_addr(), &upgrade("")).await;
    assert_eq!(bare, "", "a trusted proxy that says nothing is closed");
    until("it was counted", || server.stats().handshakes.failed == 1).await;
}

#[tokio::test]
async fn tls_begins_after_the_header_of_the_proxy() {
    let certificate = Certificate::new();
    let builder = certificate.serve(Server::builder());
    let server = bind(builder.trusted_proxies(loopback().proxy_protocol())).await;
    let to = server.local_addr();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        server.write_all(TEXT.as_bytes()).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let client = Client::new(format!("wss://localhost:{port}/"))
        .tls(certificate.client())
        .connect();
    let (client, accepted) = tokio::join!(client, server.accept());
    let _ = client.unwrap();
    assert_eq!(accepted.unwrap().peer_addr(), Some(CLIENT.parse().unwrap()));
}

#[tokio::test]
async fn the_header_of_a_trusted_proxy_names_the_client() {
    for (proxies, header) in [
        (
            loopback().x_forwarded_for(),
            "x-forwarded-for: 6.6.6.6, 192.0.2.1, 10.0.0.9\r\n",
        ),
        (
            loopback().forwarded(),
            "forwarded: for=6.6.6.6, for=192.0.2.1;proto=https\r\n",
        ),
    ] {
        let server = behind(proxies).await;
        let (_tcp, accepted) = opened(&server, upgrade(header).as_bytes()).await;
        assert_eq!(told(&accepted).client.ip().to_string(), "192.0.2.1");
        assert_eq!(accepted.peer_addr().unwrap().port(), 0, "it was not told");
    }
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_not_believed() {
    let lies = upgrade("x-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1\r\n");
    let elsewhere = || TrustedProxies::new(["10.0.0.0/8"]).unwrap();
    for builder in [
        Server::builder(),
        Server::builder().trusted_proxies(elsewhere().x_forwarded_for()),
        Server::builder().trusted_proxies(elsewhere().forwarded().proxy_protocol()),
        Server::builder().trusted_proxies(loopback()),
    ] {
        let server = bind(builder).await;
        let (tcp, accepted) = opened(&server, lies.as_bytes()).await;
        assert_eq!(accepted.peer_addr(), Some(tcp.local_addr().unwrap()));
        assert_eq!(told(&accepted).proxy, None);
    }
    // A trusted proxy passes on a header of a client that is not trusted.
    let server = behind(loopback().proxy_protocol().forwarded()).await;
    let passed_on = "PROXY TCP4 198.51.100.1 127.0.0.1 5 80\r\n".to_owned() + &lies;
    let (_tcp, accepted) = opened(&server, passed_on.as_bytes()).await;
    assert_eq!(
        accepted.peer_addr(),
        Some("198.51.100.1:5".parse().unwrap())
    );
    // A peer that is not trusted may not send a header of the PROXY protocol.
    let server = behind(elsewhere().proxy_protocol()).await;
    let head = answer(server.local_addr(), &(TEXT.to_owned() + &upgrade(""))).await;
    assert_eq!(status(&head), 400);
}

/// Otherwise all clients behind a proxy would share the limits of one address.
#[tokio::test]
async fn limits_count_by_the_address_that_the_proxy_tells() {
    let limits = ServerLimits::default().connections_per_address(1);
    let builder = || Server::builder().limits(limits.clone());
    let preface = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 5 80\r\n") + &upgrade("");
    let header = |client: &str| upgrade(&format!("x-forwarded-for: {client}\r\n"));
    for by_header in [false, true] {
        let (proxies, request): (_, &dyn Fn(&str) -> String) = match by_header {
            false => (loopback().proxy_protocol(), &preface),
            true => (loopback().x_forwarded_for(), &header),
        };
        let server = bind(builder().trusted_proxies(proxies)).await;
        let mut open = Vec::new();
        for (client, expected) in [("192.0.2.1", 101), ("192.0.2.2", 101), ("192.0.2.1", 429)] {
            let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
            let head = ask(&mut tcp, &request(client)).await;
            assert_eq!(status(&head), expected, "{client}");
            open.push(tcp);
        }
        assert_eq!(server.stats().refused.address, 1);
    }
}

#[tokio::test]
async fn handshakes_count_by_the_address_that_the_proxy_tells() {
    let limits = ServerLimits::default().handshakes_per_address(2);
    let builder = Server::builder().limits(limits);
    let server = bind(builder.trusted_proxies(loopback().proxy_protocol())).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
        tcp.write_all(TEXT.as_bytes()).await.unwrap();
        silent.push(tcp);
    }
    until("they are under way", || server.stats().handshaking == 2).await;
    let other = "PROXY TCP4 192.0.2.2 127.0.0.1 5 80\r\n".to_owned() + &upgrade("");
    let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    assert_eq!(status(&ask(&mut tcp, &other).await), 101);
    let third = answer(server.local_addr(), &(TEXT.to_owned() + &upgrade(""))).await;
    assert_eq!(status(&third), 429);
    assert_eq!(server.stats().refused.address, 1);
}

/// The hook sees the client's own address.
#[tokio::test]
async fn the_hook_decides_by_the_clients_address() {
    let builder: ServerBuilder = Server::builder()
        .trusted_proxies(loopback().x_forwarded_for())
        .authenticate(|request| async move {
            let peer: &PeerAddr = request.extensions().get().unwrap();
            match peer.client.ip().to_string().as_str() {
                "192.0.2.66" => Err(Rejection::forbidden("this address is banned")),
                _ => Ok(request),
            }
        });
    let server = bind(builder).await;
    let banned = answer(
        server.local_addr(),
        &upgrade("x-forwarded-for: 192.0.2.66\r\n"),
    )
    .await;
    assert_eq!(status(&banned), 403);
    let mut tcp = connect_from([127, 0, 0, 1].into(), server.local_addr()).await;
    assert_eq!(
        status(&ask(&mut tcp, &upgrade("x-forwarded-for: 192.0.2.67\r\n")).await),
        101
    );
}

/// A proxy that sends nothing is closed at the handshake's deadline, as every client is.
#[tokio::test]
async fn a_header_that_does_not_come_ends_at_the_deadline() {
    let limits = ServerLimits::default().handshake_timeout(std::time::Duration::from_millis(200));
    let builder = Server::builder().limits(limits);
    let server = bind(builder.trusted_proxies(loopback().proxy_protocol())).await;
    let address: SocketAddr = server.local_addr();
    let mut mute = TcpStream::connect(address).await.unwrap();
    mute.write_all(b"PROXY TCP4 ").await.unwrap();
    assert_eq!(to_end(&mut mute).await, "");
    until("it was counted", || {
        server.stats().handshakes.timed_out == 1
    })
    .await;
}
