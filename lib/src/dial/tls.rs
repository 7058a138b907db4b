//! TLS for clients and servers, with rustls.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

#[cfg(feature = "server")]
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::{
    TlsConnector,
    rustls::{RootCertStore, version},
};

pub(crate) use tokio_rustls::rustls::ClientConfig;
#[cfg(feature = "server")]
pub(crate) use tokio_rustls::rustls::ServerConfig;

use crate::ws::transport::Transport;

/// The only ALPN protocol (RFC 7301), because the upgrade to WebSocket is a part of HTTP/1.1. It
/// replaces the list of a given configuration, which may name HTTP/2 first.
pub(super) const ALPN: &[u8] = b"http/1.1";

/// The provider of cryptography that the process has installed, or the one that a feature names.
pub(super) fn provider() -> io::Result<Arc<CryptoProvider>> {
    static BUILT_IN: OnceLock<Option<Arc<CryptoProvider>>> = OnceLock::new();
    if let Some(installed) = CryptoProvider::get_default() {
        return Ok(installed.clone());
    }
    let built_in = BUILT_IN.get_or_init(built_in).clone();
    built_in.ok_or_else(|| {
        io::Error::other(
            "there is no provider of cryptography: enable the feature `ring` or `aws-lc-rs`, or \
             install one with rustls::crypto::CryptoProvider::install_default",
        )
    })
}

#[cfg(feature = "aws-lc-rs")]
fn built_in() -> Option<Arc<CryptoProvider>> {
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    Some(Arc::new(provider))
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn built_in() -> Option<Arc<CryptoProvider>> {
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    Some(Arc::new(provider))
}

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
fn built_in() -> Option<Arc<CryptoProvider>> {
    None
}

/// Does the client's side of the TLS handshake with `host` over `below`.
pub(crate) async fn connect(
    config: Option<&Arc<ClientConfig>>,
    host: &str,
    below: Transport,
) -> io::Result<Transport> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let config = match config {
        Some(config) => config.clone(),
        None => default_client_config().await?,
    };
    let tls = TlsConnector::from(with_alpn(config))
        .connect(name, below)
        .await?;
    Ok(Transport::tls_client(tls))
}

#[cfg(feature = "server")]
/// Does the server's side of the TLS handshake over `below`.
pub(crate) async fn accept(config: Arc<ServerConfig>, below: Transport) -> io::Result<Transport> {
    let tls = TlsAcceptor::from(config).accept(below).await?;
    Ok(Transport::tls_server(tls))
}

/// The same configuration, with HTTP/2 before HTTP/1.1 in its list of protocols.
#[cfg(feature = "http2")]
pub(crate) fn offering_http2(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    let mut config = (*config).clone();
    let others = std::mem::take(&mut config.alpn_protocols);
    config.alpn_protocols = vec![b"h2".to_vec(), ALPN.to_vec()];
    for other in others {
        if !config.alpn_protocols.contains(&other) {
            config.alpn_protocols.push(other);
        }
    }
    Arc::new(config)
}

fn with_alpn(config: Arc<ClientConfig>) -> Arc<ClientConfig> {
    if config.alpn_protocols == [ALPN] {
        return config;
    }
    let mut config = (*config).clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// The configuration of clients that set none. It trusts what the crate's features name. It is made
/// once per process, on a blocking thread, because reading the system's store blocks.
async fn default_client_config() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let made = tokio::task::spawn_blocking(|| trusting_by_default(provider()?));
    let mut config = made.await.map_err(io::Error::other)??;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

/// The operating system verifies certificates.
#[cfg(feature = "platform-verifier")]
fn trusting_by_default(provider: Arc<CryptoProvider>) -> io::Result<ClientConfig> {
    let verifier = rustls_platform_verifier::Verifier::new(provider.clone());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(io::Error::other)?));
    Ok(config.with_no_client_auth())
}

#[cfg(not(feature = "platform-verifier"))]
fn trusting_by_default(provider: Arc<CryptoProvider>) -> io::Result<ClientConfig> {
    let roots = roots();
    if roots.is_empty() {
        return Err(io::Error::other(
            "there are no trusted roots: install the system's certificates, enable the feature \
             `webpki-roots`, or give the client a rustls::ClientConfig",
        ));
    }
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(not(feature = "platform-verifier"))]
#[allow(unused_mut)]
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    #[cfg(feature = "native-roots")]
    {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's certificates could not be read; they are not trusted");
        }
        roots.add_parsable_certificates(found.certs);
    }
    #[cfg(feature = "webpki-roots")]
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots
}

/// A client's configuration that trusts the certificates of the PEM file `path` and no others.
///
/// For servers with a private or self-signed certificate. Give the result to
/// [`Client::tls`](crate::Client::tls).
///
/// # Errors
/// The file cannot be read, or holds no usable certificate. The error names the file.
pub fn client_config_from_pem(path: impl AsRef<Path>) -> io::Result<Arc<ClientConfig>> {
    let path = path.as_ref();
    let mut roots = RootCertStore::empty();
    for certificate in certificates_from_pem(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, &error))?;
    }
    let config = ClientConfig::builder_with_provider(provider()?)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(with_alpn(Arc::new(config)))
}

/// The certificates of a PEM file, at least one, for a configuration of your own.
///
/// # Errors
/// The file cannot be read, or holds no certificate. The error names the file.
pub fn certificates_from_pem(path: impl AsRef<Path>) -> io::Result<Vec<CertificateDer<'static>>> {
    let path = path.as_ref();
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(unusable(path, &"there is no certificate in it"));
    }
    Ok(found)
}

pub(super) fn unusable(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the PEM file {} cannot be used: {why}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("absent.pem");
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "no certificate here").unwrap();
        for path in [&missing, &empty] {
            let error = client_config_from_pem(path).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
