//! HTTP and SOCKS5 proxies connect to the server and resolve its name.

use super::tls::Authority;
use super::*;

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

fn through(kind: &str, credentials: &str, proxy: SocketAddr) -> DialOptions {
    let url = RedactedUrl::new(format!("{kind}://{credentials}{proxy}"));
    let proxy = Proxy::parse(&url).unwrap();
    DialOptions {
        proxy: Some(proxy),
        ..options()
    }
}

#[tokio::test]
async fn both_kinds_of_proxy_connect_and_resolve_the_name_themselves() {
    let (plain, mut heads) = server(|head| switching(head, "").into_bytes()).await;
    let authority = Authority::of(&["server.invalid"]);
    let secure = authority.server().await;
    for (kind, to_plain, to_secure) in [
        ("http", http_proxy(plain).await, http_proxy(secure).await),
        (
            "socks5",
            socks_proxy(plain).await,
            socks_proxy(secure).await,
        ),
    ] {
        let options = through(kind, "user:pw@", to_plain);
        let mut upgraded = dial_to("ws://server.invalid/", &options).await.unwrap();
        echoes(&mut upgraded).await;
        let head = heads.recv().await.unwrap();
        assert_eq!(header(&head, "host"), Some("server.invalid"));
        assert_eq!(
            header(&head, "proxy-authorization"),
            None,
            "that was the proxy's to know"
        );

        let options = through(kind, "user:pw@", to_secure);
        let options = DialOptions {
            tls: Some(authority.client()),
            ..options
        };
        let mut upgraded = dial_to("wss://server.invalid/", &options).await.unwrap();
        echoes(&mut upgraded).await;
    }
}

#[tokio::test]
async fn a_proxy_that_wants_other_credentials_stops_at_once() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let (http, socks) = (http_proxy(nowhere).await, socks_proxy(nowhere).await);
    for (kind, credentials, proxy) in [
        ("http", "", http),
        ("http", "user:wrong@", http),
        ("socks5", "", socks),
        ("socks5", "user:wrong@", socks),
    ] {
        let options = through(kind, credentials, proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(!error.is_retryable(), "{error}");
        assert!(
            !error.to_string().contains("wrong"),
            "a password in {error}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_server_is_worth_a_retry() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    for (kind, proxy, why) in [
        ("http", http_proxy(nowhere).await, "502"),
        ("socks5", socks_proxy(nowhere).await, "Host unreachable"),
    ] {
        let options = through(kind, "user:pw@", proxy);
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
    for kind in ["http", "socks5"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        let options = through(kind, "", proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(error.is_retryable(), "{error}");
    }
}
