//! The provider of cryptography that a process installs is used by clients and servers alike. It is
//! one for each process, so this test has a process of its own.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpStream;
use unstall::rustls::{
    self, CipherSuite, ClientConfig,
    crypto::{CryptoProvider, ring},
};
use unstall::{Client, Incoming, Server};

const ONLY: CipherSuite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;

fn provider(keep: impl Fn(CipherSuite) -> bool) -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| keep(suite.suite()));
    provider
}

/// Once the library always used ring, whatever the process had installed.
#[tokio::test]
async fn provider_that_the_process_installed_is_used() {
    provider(|suite| suite == ONLY).install_default().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&chain, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let server = Server::builder().tls_pem(&chain, &key);
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();

    // The client.
    let config = unstall::client_config_from_pem(&chain).unwrap();
    let suites = &config.crypto_provider().cipher_suites;
    let suites: Vec<_> = suites.iter().map(|suite| suite.suite()).collect();
    assert_eq!(suites, [ONLY]);
    let client = Client::new(format!("wss://localhost:{}/", address.port())).tls(config.clone());
    let (client, accepted) = tokio::join!(client.connect(), server.accept());
    client.unwrap().send("hello").await.unwrap();
    let received = accepted.unwrap().recv().await.unwrap();
    assert_eq!(
        received.and_then(Incoming::into_message),
        Some("hello".into())
    );

    // The server, asked by a client that prefers other suites.
    let everything = Arc::new(provider(|_| true));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(everything)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = tls
        .connect("localhost".try_into().unwrap(), tcp)
        .await
        .unwrap();
    let agreed = tls.get_ref().1.negotiated_cipher_suite().unwrap();
    assert_eq!(agreed.suite(), ONLY);
}
