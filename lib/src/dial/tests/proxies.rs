//! HTTP and SOCKS proxies connect to the server and resolve its name.

use super::tls::Authority;
use super::*;
use crate::reports::ProxyError;

/// An HTTP proxy with one user, which knows the address of `server.invalid`.
async fn http_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut tcp).await;
                let answer = match head.lines().next().unwrap() {
                    _ if header(&head, "proxy-authorization") != Some("Basic dXNlcjpwdw==") => {
                        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 3\r\n\r\nwho"
                    }
                    "CONNECT server.invalid:80 HTTP/1.1"
                    | "CONNECT server.invalid:443 HTTP/1.1" => {
                        tcp.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
                            .await
                            .unwrap();
                        let mut on = TcpStream::connect(server).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut tcp, &mut on).await;
                        return;
                    }
                    _ => "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
                };
                tcp.write_all(answer.as_bytes()).await.unwrap();
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

/// A SOCKS5 proxy (RFC 1928, RFC 1929) with one user, which knows the address of `server.invalid`.
async fn socks_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socks_one(tcp, server).await;
            });
        }
    });
    address
}

async fn socks_one(mut tcp: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut methods = vec![
        0;
        {
            tcp.read_u8().await?;
            tcp.read_u8().await?
        } as usize
    ];
    tcp.read_exact(&mut methods).await?;
    if !methods.contains(&2) {
        tcp.write_all(&[5, 0xff]).await?;
        tcp.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    tcp.write_all(&[5, 2]).await?;
    tcp.read_u8().await?;
    let mut user = vec![0; tcp.read_u8().await? as usize];
    tcp.read_exact(&mut user).await?;
    let mut password = vec![0; tcp.read_u8().await? as usize];
    tcp.read_exact(&mut password).await?;
    if (user.as_slice(), password.as_slice()) != (b"user", b"pw") {
        tcp.write_all(&[1, 1]).await?;
        tcp.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    tcp.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    tcp.read_exact(&mut request).await?;
    // CONNECT to a domain name: the proxy gets the name unresolved.
    assert_eq!(request, [5, 1, 0, 3]);
    let mut name = vec![0; tcp.read_u8().await? as usize];
    tcp.read_exact(&mut name).await?;
    tcp.read_u16().await?;
    if name != b"server.invalid" {
        tcp.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        tcp.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    tcp.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await?;
    let mut on = TcpStream::connect(server).await?;
    tokio::io::copy_bidirectional(&mut tcp, &mut on).await?;
    Ok(())
}

/// A SOCKS4a proxy, which knows the user `user` and the address of `server.invalid`.
async fn socks4_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socks4_one(tcp, server).await;
            });
        }
    });
    address
}

async fn socks4_one(mut tcp: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut request = [0; 8];
    tcp.read_exact(&mut request).await?;
    // CONNECT to 0.0.0.1: the name follows, unresolved.
    assert_eq!(
        (&request[..2], &request[4..]),
        (&[4, 1][..], &[0, 0, 0, 1][..])
    );
    let (user, name) = (text(&mut tcp).await?, text(&mut tcp).await?);
    let code = match (user.as_str(), name.as_str()) {
        ("user", "server.invalid") => 90,
        ("user", _) => 91,
        _ => 93,
    };
    tcp.write_all(&[0, code, 0, 0, 0, 0, 0, 0]).await?;
    if code == 90 {
        let mut on = TcpStream::connect(server).await?;
        tokio::io::copy_bidirectional(&mut tcp, &mut on).await?;
    }
    Ok(())
}

/// A text that ends with a zero byte.
async fn text(tcp: &mut TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        match tcp.read_u8().await? {
            0 => return Ok(String::from_utf8(text).unwrap()),
            byte => text.push(byte),
        }
    }
}

/// TLS in front of a proxy.
async fn secured(proxy: SocketAddr, authority: &Authority) -> SocketAddr {
    let config = authority.server_config();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tcp = Transport::tcp_stream(tcp);
            let Ok(mut tls) = crate::dial::tls::accept(config.clone(), tcp).await else {
                continue;
            };
            tokio::spawn(async move {
                let mut on = TcpStream::connect(proxy).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut on).await;
            });
        }
    });
    address
}

fn through(kind: &str, credentials: &str, proxy: SocketAddr) -> DialOptions {
    let url = RedactedUrl::new(format!("{kind}://{credentials}{proxy}"));
    let proxy = Proxy::parse(&url).unwrap();
    DialOptions {
        proxy: Some(proxy),
        ..options()
    }
}

#[tokio::test]
async fn every_kind_of_proxy_connects_and_resolves_the_name_itself() {
    let (plain, mut heads) = server(|head| switching(head, "").into_bytes()).await;
    let authority = Authority::of(&["server.invalid", "127.0.0.1"]);
    let secure = authority.server().await;
    let (http_plain, http_secure) = (http_proxy(plain).await, http_proxy(secure).await);
    for (kind, user, to_plain, to_secure) in [
        ("http", "user:pw@", http_plain, http_secure),
        (
            "https",
            "user:pw@",
            secured(http_plain, &authority).await,
            secured(http_secure, &authority).await,
        ),
        (
            "socks5",
            "user:pw@",
            socks_proxy(plain).await,
            socks_proxy(secure).await,
        ),
        (
            "socks4a",
            "user@",
            socks4_proxy(plain).await,
            socks4_proxy(secure).await,
        ),
    ] {
        let with_tls = |to| DialOptions {
            tls: Some(authority.client()),
            ..through(kind, user, to)
        };
        let options = with_tls(to_plain);
        let mut upgraded = dial_to("ws://server.invalid/", &options).await.unwrap();
        echoes(&mut upgraded).await;
        assert_eq!(upgraded.peer, Some(to_plain), "{kind}");
        let head = heads.recv().await.unwrap();
        assert_eq!(header(&head, "host"), Some("server.invalid"));
        let theirs = header(&head, "proxy-authorization");
        assert_eq!(theirs, None, "that was the proxy's to know");

        let options = with_tls(to_secure);
        let mut upgraded = dial_to("wss://server.invalid/", &options).await.unwrap();
        echoes(&mut upgraded).await;
    }
}

#[tokio::test]
async fn a_proxy_whose_certificate_is_not_trusted_stops_at_once() {
    let (authority, other) = (Authority::of(&["127.0.0.1"]), Authority::of(&["127.0.0.1"]));
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let proxy = secured(http_proxy(nowhere).await, &authority).await;
    let options = DialOptions {
        tls: Some(other.client()),
        ..through("https", "user:pw@", proxy)
    };
    let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
    assert!(matches!(failure(&error), ProxyError::Tls(_)), "{error:?}");
    assert!(!error.is_retryable(), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Why the proxy failed.
fn failure(error: &ConnectError) -> &ProxyError {
    match error {
        ConnectError::Proxy { why, .. } => why,
        _ => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_proxy_that_wants_other_credentials_stops_at_once() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let (http, socks) = (http_proxy(nowhere).await, socks_proxy(nowhere).await);
    let socks4 = socks4_proxy(nowhere).await;
    for (kind, credentials, proxy) in [
        ("http", "", http),
        ("http", "user:wrong@", http),
        ("socks5", "", socks),
        ("socks5", "user:wrong@", socks),
        ("socks4a", "", socks4),
        ("socks4a", "wrong@", socks4),
    ] {
        let options = through(kind, credentials, proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        match failure(&error) {
            ProxyError::Credentials => {}
            ProxyError::Refused { status, .. } if status.as_u16() == 407 => {}
            why => panic!("{why:?}"),
        }
        assert!(!error.is_retryable(), "{error}");
        assert!(
            !error.to_string().contains("wrong"),
            "a password in {error}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_nobody_runs_is_told_from_the_server_and_worth_a_retry() {
    // Bound but not listening, so that nothing else can take the port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let proxy = socket.local_addr().unwrap().as_socket().unwrap();
    for kind in ["http", "https", "socks5", "socks4a"] {
        let options = through(kind, "", proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        assert!(matches!(failure(&error), ProxyError::Tcp(_)), "{error:?}");
        assert!(error.is_retryable(), "{error}");
    }
    let gone = Proxy::parse(&"http://nowhere.invalid:3128".into()).unwrap();
    let options = DialOptions {
        proxy: Some(gone),
        ..options()
    };
    let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
    assert!(matches!(failure(&error), ProxyError::Dns(_)), "{error:?}");
    assert!(error.is_retryable(), "{error}");
}

#[test]
fn credentials_that_a_proxy_cannot_take_are_refused_before_dialing() {
    let long = "u".repeat(defaults::SOCKS4_USER_BYTES + 1);
    for url in [
        "socks5://user@p".to_owned(),
        "socks5://:pw@p".to_owned(),
        "socks4://user:secret@p".to_owned(),
        "socks4://a%00b@p".to_owned(),
        format!("socks4a://{long}@p"),
        "socks4a://:@p".to_owned(),
        "quic://p".to_owned(),
    ] {
        let error = Proxy::parse(&RedactedUrl::new(&*url)).unwrap_err();
        assert!(matches!(error, ConnectError::Url { .. }), "{url}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// The longest name of a user and of a host fit into a request together.
#[tokio::test]
async fn the_longest_names_fit_into_a_socks4_request() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let proxy = socks4_proxy(nowhere).await;
    let user = "u".repeat(defaults::SOCKS4_USER_BYTES);
    let options = through("socks4a", &format!("{user}@"), proxy);
    let host = "h".repeat(255);
    let error = dial_to(&format!("ws://{host}/"), &options)
        .await
        .unwrap_err();
    assert!(
        matches!(failure(&error), ProxyError::Credentials),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_server_is_worth_a_retry() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    for (kind, proxy, why) in [
        ("http", http_proxy(nowhere).await, "502"),
        ("socks5", socks_proxy(nowhere).await, "Host unreachable"),
        ("socks4a", socks4_proxy(nowhere).await, "failure"),
    ] {
        let user = if kind == "socks4a" {
            "user@"
        } else {
            "user:pw@"
        };
        let options = through(kind, user, proxy);
        let error = dial_to("ws://elsewhere.invalid/", &options)
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_up_is_worth_a_retry() {
    for kind in ["http", "https", "socks5", "socks4a"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        let options = through(kind, "", proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(error.is_retryable(), "{error}");
    }
}
