//! Clients reach servers through proxies that others wrote: tinyproxy (CONNECT), Dante (SOCKS4 and
//! SOCKS5), and haproxy with TLS in front of tinyproxy. A test finds nothing to do where its proxy is
//! not installed.

use std::net::SocketAddr;
use std::path::Path;

use unstall::{Client, ConnectError, ProxyError, Server};

use crate::common::{
    echoed,
    foreign::Foreign,
    limit,
    net::{Certificate, echo_server},
    proxy::Proxy,
};

/// CONNECT, for the user `user` with the password `pw`, to these ports only.
async fn tinyproxy(ports: &[u16]) -> Option<Foreign> {
    let ports: String = ports
        .iter()
        .map(|port| format!("ConnectPort {port}\n"))
        .collect();
    let configuration = |address: SocketAddr, directory: &Path| {
        format!(
            "Listen {}\nPort {}\nTimeout 60\nBasicAuth user pw\nLogLevel Critical\n\
             LogFile \"{}/log\"\n{ports}",
            address.ip(),
            address.port(),
            directory.display(),
        )
    };
    Foreign::start("tinyproxy", &["-d", "-c"], configuration).await
}

/// SOCKS4 and SOCKS5, without credentials, to this port only.
async fn danted(port: u16) -> Option<Foreign> {
    let configuration = |address: SocketAddr, directory: &Path| {
        format!(
            "logoutput: {}/log\n\
             internal: {} port = {}\nexternal: 127.0.0.1\n\
             clientmethod: none\nsocksmethod: none\n\
             client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
             socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = {port} }}\n",
            directory.display(),
            address.ip(),
            address.port(),
        )
    };
    Foreign::start("danted", &["-f"], configuration).await
}

/// TLS in front of another proxy.
async fn haproxy(certificate: &Certificate, to: SocketAddr) -> Option<Foreign> {
    let of = |name: &str| std::fs::read_to_string(certificate.directory().join(name)).unwrap();
    let both = of("cert.pem") + &of("key.pem");
    let configuration = |address: SocketAddr, directory: &Path| {
        let pem = directory.join("both.pem");
        std::fs::write(&pem, &both).unwrap();
        format!(
            "global\n  maxconn 100\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\n\
             frontend in\n  bind {address} ssl crt {}\n  default_backend out\n\
             backend out\n  server one {to}\n",
            pem.display(),
        )
    };
    Foreign::start("haproxy", &["-db", "-q", "-f"], configuration).await
}

/// A client of `server` by a name, so that the proxy has to resolve it.
fn client(server: &Server, scheme: &str) -> Client {
    let port = server.local_addr().port();
    Client::new(format!("{scheme}://localhost:{port}/"))
}

/// A server without TLS, and one with it.
async fn servers(certificate: &Certificate) -> (Server, Server) {
    let plain = echo_server(Server::builder()).await;
    (
        plain,
        echo_server(certificate.serve(Server::builder())).await,
    )
}

async fn passes(client: Client) {
    let mut session = limit(client.require_session().connect()).await.unwrap();
    echoed(&mut session, "through the proxy").await;
    assert_eq!(session.stats().connections, 1);
}

async fn failure(client: Client) -> (ProxyError, bool) {
    let error = limit(client.connect()).await.map(|_| ()).unwrap_err();
    let retryable = error.is_retryable();
    match error {
        ConnectError::Proxy { why, .. } => (why, retryable),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn tinyproxy_connects_with_and_without_tls_to_the_server() {
    let certificate = Certificate::new();
    let (plain, secure) = servers(&certificate).await;
    let ports = [&plain, &secure].map(|server| server.local_addr().port());
    let Some(proxy) = tinyproxy(&ports).await else {
        return;
    };
    let url = format!("http://user:pw@{}", proxy.address);
    passes(client(&plain, "ws").proxy(&url)).await;
    let client = client(&secure, "wss").tls(certificate.client());
    passes(client.proxy(&url)).await;
}

#[tokio::test]
async fn tinyproxy_says_why_it_refuses_and_whether_to_try_again() {
    let server = echo_server(Server::builder()).await;
    let Some(proxy) = tinyproxy(&[server.local_addr().port()]).await else {
        return;
    };
    let proxied =
        |user: &str, url: &str| Client::new(url).proxy(format!("http://{user}{}", proxy.address));
    let refused = |(why, retryable): (ProxyError, bool)| match why {
        ProxyError::Refused { status, .. } => (status.as_u16(), retryable),
        why => panic!("{why:?}"),
    };
    let url = format!("ws://{}/", server.local_addr());
    let failed = failure(proxied("", &url)).await;
    assert_eq!(refused(failed), (407, false), "no credentials");
    // tinyproxy answers 401 in place of 407.
    let failed = failure(proxied("user:wrong@", &url)).await;
    assert_eq!(refused(failed), (401, false), "wrong credentials");
    let failed = failure(proxied("user:pw@", "ws://localhost:9/")).await;
    assert_eq!(refused(failed), (403, false), "a port that is not allowed");
    let name = format!("ws://nowhere.invalid:{}/", server.local_addr().port());
    let failed = failure(proxied("user:pw@", &name)).await;
    assert_eq!(refused(failed), (500, true), "a name that does not resolve");
}

#[tokio::test]
async fn dante_connects_by_socks4_and_socks5_with_and_without_tls_to_the_server() {
    let certificate = Certificate::new();
    for secure in [false, true] {
        let builder = match secure {
            false => Server::builder(),
            true => certificate.serve(Server::builder()),
        };
        let server = echo_server(builder).await;
        let Some(proxy) = danted(server.local_addr().port()).await else {
            return;
        };
        for scheme in ["socks4", "socks5", "socks5h"] {
            let url = format!("{scheme}://{}", proxy.address);
            let client = match secure {
                false => client(&server, "ws"),
                true => client(&server, "wss").tls(certificate.client()),
            };
            passes(client.proxy(url)).await;
        }
        let forbidden = Client::new("ws://localhost:9/");
        let url = format!("socks5://{}", proxy.address);
        let (why, retryable) = failure(forbidden.proxy(url)).await;
        assert!(matches!(why, ProxyError::Forbidden), "{why:?}");
        assert!(!retryable);
    }
}

#[tokio::test]
async fn tls_leads_to_a_proxy_behind_haproxy_and_through_it_to_the_server() {
    let certificate = Certificate::new();
    let (plain, secure) = servers(&certificate).await;
    let ports = [&plain, &secure].map(|server| server.local_addr().port());
    let Some(proxy) = tinyproxy(&ports).await else {
        return;
    };
    let Some(front) = haproxy(&certificate, proxy.address).await else {
        return;
    };
    // haproxy listens on an address of its own; the certificate is for `localhost`.
    let front = Proxy::to(front.address).await;
    let url = format!("https://user:pw@localhost:{}", front.address.port());
    for (server, scheme) in [(&plain, "ws"), (&secure, "wss")] {
        let client = client(server, scheme).tls(certificate.client());
        passes(client.proxy(&url)).await;
    }
}
