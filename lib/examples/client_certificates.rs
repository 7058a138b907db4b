//! cargo run -p unstall --example client_certificates
//!
//! TLS in both directions: a server that accepts only clients with a certificate of its authority. One
//! client has one, another has none, and a third made its own. The authority is made up here; a real
//! one is a file that both ends get, and each end has a file with its certificate and its key.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use unstall::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use unstall::{BoxError, Client, ConnectError, Connection, Incoming, Server};

/// A certificate and its private key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let server = Server::builder()
        .tls(trusting_clients_of(&authority)?)
        .bind("127.0.0.1:0")
        .await?;
    let url = format!("wss://localhost:{}", server.local_addr().port());
    tokio::spawn(async move { server.serve(greet).await });

    for (name, identity) in [
        (
            "a certificate of the authority",
            Some(authority.issue("meter-7")?),
        ),
        ("no certificate", None),
        (
            "a certificate of somebody else",
            Some(stranger.issue("meter-7")?),
        ),
    ] {
        let client = Client::new(&url).tls(presenting(identity, &authority)?);
        match client.connect().await {
            Ok(mut connection) => {
                let greeting = connection.recv().await?.and_then(Incoming::into_message);
                let greeting = greeting.ok_or("no greeting")?;
                println!("{name}: {}", greeting.as_text().unwrap_or("?"));
            }
            Err(error @ ConnectError::Tls { .. }) => {
                println!("{name}: refused");
                println!("worth another attempt: {}", error.is_retryable());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A server's configuration: its own certificate, and whose clients it accepts.
fn trusting_clients_of(authority: &Authority) -> Result<Arc<ServerConfig>, BoxError> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(authority.roots()?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let (chain, key) = authority.issue("localhost")?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// A client's configuration: whose servers it trusts, and what it presents.
fn presenting(
    identity: Option<Identity>,
    authority: &Authority,
) -> Result<Arc<ClientConfig>, BoxError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authority.roots()?);
    Ok(Arc::new(match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    }))
}

/// Whoever comes here has shown a certificate.
async fn greet(connection: Connection) {
    // Nothing is received here. Without a receiver, what comes is discarded.
    let (sender, _) = connection.split();
    let _ = sender.send("welcome").await;
    let _ = sender.ended().await;
}

/// Issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Authority, BoxError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Authority(issuer))
    }

    fn roots(&self) -> Result<RootCertStore, BoxError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        Ok(roots)
    }

    fn issue(&self, name: &str) -> Result<Identity, BoxError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.0)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((vec![certificate.der().clone()], key.into()))
    }
}
