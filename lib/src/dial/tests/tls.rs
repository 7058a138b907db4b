//! Certificates are checked, and TLS errors say what to do.

use tokio_rustls::rustls::ServerConfig;

use super::*;
use crate::dial::certificate::ServerCertificate;

pub(super) struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    pub(super) fn of(names: &[&str]) -> Authority {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(
            directory.path().join("key.pem"),
            signing_key.serialize_pem(),
        )
        .unwrap();
        Authority { directory }
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        crate::dial::tls::client_config_from_pem(self.directory.path().join("cert.pem")).unwrap()
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        let path = self.directory.path();
        let read = ServerCertificate::from_pem(path.join("cert.pem"), path.join("key.pem"));
        Arc::new(read.unwrap()).config().unwrap()
    }

    pub(super) async fn server(&self) -> SocketAddr {
        let config = self.server_config();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let answer = Arc::new(|head: &str| switching(head, "").into_bytes());
            while let Ok((tcp, _)) = listener.accept().await {
                let tcp = Transport::tcp_stream(tcp);
                let Ok(transport) = crate::dial::tls::accept(config.clone(), tcp).await else {
                    continue;
                };
                tokio::spawn(answer_one(
                    transport,
                    answer.clone(),
                    mpsc::unbounded_channel().0,
                ));
            }
        });
        address
    }
}

#[tokio::test]
async fn tls_carries_the_websocket() {
    let authority = Authority::of(&["localhost"]);
    let address = authority.server().await;
    let url = format!("wss://localhost:{}/", address.port());
    let mut upgraded = dial_to(
        &url,
        &DialOptions {
            tls: Some(authority.client()),
            ..options()
        },
    )
    .await
    .unwrap();
    assert_eq!(upgraded.peer, Some(address));
    echoes(&mut upgraded).await;
}

#[tokio::test]
async fn a_configuration_shared_with_an_http2_client_still_agrees_on_http1() {
    let authority = Authority::of(&["localhost"]);
    let address = authority.server().await;
    let mut config = (*authority.client()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let url = format!("wss://localhost:{}/", address.port());
    dial_to(
        &url,
        &DialOptions {
            tls: Some(Arc::new(config)),
            ..options()
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_stops_at_once() {
    let authority = Authority::of(&["localhost"]);
    let other = Authority::of(&["localhost"]);
    let address = authority.server().await;
    let untrusted = DialOptions {
        tls: Some(other.client()),
        ..options()
    };
    let misnamed = DialOptions {
        tls: Some(authority.client()),
        ..options()
    };
    for (url, options) in [
        (format!("wss://localhost:{}/", address.port()), untrusted),
        (format!("wss://{address}/"), misnamed),
    ] {
        let error = dial_to(&url, &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn tls_to_a_port_that_speaks_plain_http_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let error = dial_to(&format!("wss://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("may not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_connection_cut_during_tls_is_worth_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let error = dial_to(&format!("wss://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert!(error.is_retryable(), "{error}");
}
