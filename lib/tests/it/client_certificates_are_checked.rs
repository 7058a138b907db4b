//! TLS in both directions: the server accepts only clients that have a certificate of its authority.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use unstall::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use unstall::{Client, ConnectError, PeerCertificates, Server};

use crate::common::{
    echo, echoed, limit,
    net::{bind, serve},
};

/// An authority that issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A certificate for this name, and its key.
    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], key.into())
    }
}

fn server_config(authority: &Authority) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(authority.roots());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let (chain, key) = authority.issue("localhost");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain, key);
    Arc::new(config.unwrap())
}

fn client_config(server: &Authority, own: Option<&Authority>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(server.roots());
    Arc::new(match own {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let (chain, key) = authority.issue("client");
            config.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// Once a client whose certificate was refused went on trying: TLS 1.3 says so only after the client's
/// handshake, and that was taken for a lost connection.
#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_connect() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = bind(Server::builder().tls(server_config(&authority))).await;
    serve(&server, echo);
    let url = format!("wss://localhost:{}/", server.local_addr().port());
    let client = |own| {
        let client = Client::new(&url).tls(client_config(&authority, own));
        client.without_reconnect().connect()
    };
    let mut connection = limit(client(Some(&authority))).await.unwrap();
    echoed(&mut connection, "hello").await;
    for stranger in [None, Some(&other)] {
        let error = limit(client(stranger)).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(!error.is_retryable(), "{error}");
    }
    assert_eq!(server.stats().accepted, 1);
}

/// Once neither the hook nor a handler could tell which certificate a client had.
#[tokio::test]
async fn hook_and_handler_see_the_certificate_of_the_client() {
    let authority = Authority::new();
    let (hook_saw, hook_sees) = std::sync::mpsc::channel();
    let builder = Server::builder().tls(server_config(&authority));
    let server = bind(builder.authenticate(move |request| {
        let certificates = request.extensions().get::<PeerCertificates>();
        hook_saw.send(certificates.cloned()).unwrap();
        std::future::ready(Ok(request))
    }))
    .await;
    let config = client_config(&authority, Some(&authority));
    for plain in [true, false] {
        let url = format!("wss://localhost:{}/", server.local_addr().port());
        let client = Client::new(&url).tls(config.clone()).without_reconnect();
        let client = if plain { client.plain() } else { client };
        let mut connection = limit(client.connect()).await.unwrap();
        connection.send("hello").await.unwrap();
        let accepted = limit(server.accept()).await.unwrap();
        let request = accepted.request().unwrap();
        let seen = request.extensions().get::<PeerCertificates>().unwrap();
        let hook = hook_sees.recv().unwrap().unwrap();
        assert_eq!(seen.chain(), hook.chain());
        assert_eq!(seen.chain().len(), 1);
        let issued = is_the_clients(seen.end_entity());
        assert!(issued, "it is the client's, with its name");
        accepted.send("seen").await.unwrap();
        limit(connection.recv()).await.unwrap();
    }
}

/// Whether the certificate has the name `client`.
fn is_the_clients(certificate: &CertificateDer<'_>) -> bool {
    certificate.windows(6).any(|bytes| bytes == b"client")
}
