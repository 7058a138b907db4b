//! The certificate of a server.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version;

use super::tls::{ALPN, ServerConfig, certificates_from_pem, provider, unusable};

/// A certificate and its key, as a server shows them. It can be renewed while the server runs.
///
/// ```no_run
/// # async fn f() -> std::io::Result<()> {
/// use std::sync::Arc;
/// use unstall::{Server, ServerCertificate};
///
/// let read = || ServerCertificate::from_pem("cert.pem", "key.pem");
/// let certificate = Arc::new(read()?);
/// let server = Server::builder().tls(certificate.config()?).bind("0.0.0.0:443").await?;
/// // Later, when the files have changed:
/// certificate.renew(read()?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ServerCertificate(Mutex<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Reads two PEM files: the certificate chain, the server's own certificate first, and the private
    /// key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// A file cannot be read or used, or the key is not that of the certificate. The error names the
    /// file.
    pub fn from_pem(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> io::Result<ServerCertificate> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let chain = certificates_from_pem(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
        let read = CertifiedKey::from_der(chain, private, &*provider()?);
        let read = read.map_err(|error| unusable(key, &error))?;
        Ok(ServerCertificate(Mutex::new(Arc::new(read))))
    }

    /// Shows another certificate from now on. Connections that are open are not affected.
    pub fn renew(&self, other: ServerCertificate) {
        let other = other.0.into_inner();
        *self.lock() = other.unwrap_or_else(PoisonError::into_inner);
    }

    /// The configuration of servers that show this certificate, for
    /// [`ServerBuilder::tls`](crate::ServerBuilder::tls).
    ///
    /// # Errors
    /// The provider of cryptography knows neither TLS 1.3 nor 1.2.
    pub fn config(self: &Arc<Self>) -> io::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(provider()?)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.lock().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let (chain, key) = (file("chain", &chain), file("key", &key));
        let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let other = file("other", &other.signing_key.serialize_pem());
        let empty = file("empty", "no certificate here");
        let absent = directory.path().join("absent");
        assert!(ServerCertificate::from_pem(&chain, &key).is_ok());
        for (chain, key, named) in [
            (&absent, &key, &absent),
            (&empty, &key, &empty),
            (&chain, &absent, &absent),
            (&chain, &empty, &empty),
            (&chain, &other, &other),
        ] {
            let error = ServerCertificate::from_pem(chain, key).unwrap_err();
            assert!(
                error.to_string().contains(&named.display().to_string()),
                "{error}"
            );
        }
    }
}
