//! TLS for the contestants that are measured with it.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use rcgen::{Certificate, CertificateParams, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
    },
};

use crate::{Result, tcp};

/// `E` over TLS.
pub(crate) struct Secure<E>(PhantomData<E>);

static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let (certificate, key) = identity();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into());
    Arc::new(config.expect("the key is the certificate's"))
});

static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let added = roots.add(identity().0.der().clone());
    added.expect("a certificate");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});

/// Both processes make the same certificate: the key is no secret, and its signatures are deterministic.
fn identity() -> (Certificate, KeyPair) {
    /// An Ed25519 key of ones in the form of RFC 8410, section 7.
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    let der = PrivatePkcs8KeyDer::from([HEAD, [1; 16], [1; 16]].concat());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519);
    let key = key.expect("an Ed25519 key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.self_signed(&key).expect("it can be signed");
    (certificate, key)
}

pub(crate) fn server() -> Arc<ServerConfig> {
    SERVER.clone()
}

pub(crate) fn client() -> Arc<ClientConfig> {
    CLIENT.clone()
}

pub(crate) async fn accept(listener: &TcpListener) -> Result<TlsStream<TcpStream>> {
    let stream = tcp::accept(listener).await?;
    Ok(TlsAcceptor::from(server()).accept(stream).await?.into())
}

pub(crate) async fn connect(address: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let stream = tcp::connect(address).await?;
    let name = ServerName::from(address.ip());
    Ok(TlsConnector::from(client())
        .connect(name, stream)
        .await?
        .into())
}
