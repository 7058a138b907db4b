//! The flags `--tls-cert` and `--tls-key` of every subcommand that listens. A certificate can be renewed while the
//! server runs.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;
use tokio::task::JoinSet;
use unstall::rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{failure::Failure, serve::reload_asked};

/// Whether a server uses TLS
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct Tls {
    /// Serve wss:// with the certificate chain of this PEM file. SIGHUP reads it again, with the key
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// The certificate that a server shows, and its key. Connections that are open keep the one that they have seen.
#[derive(Debug)]
pub(crate) struct Certificate(Mutex<Arc<CertifiedKey>>);

impl Tls {
    /// Whether clients use TLS.
    pub(crate) fn is_on(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// The scheme of the server's URL.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_on() { "wss" } else { "ws" }
    }

    /// Reads the certificate and its key. `None` without TLS.
    pub(crate) fn read(&self) -> Result<Option<Arc<CertifiedKey>>, Failure> {
        let Some((certificate, key)) = self.tls_cert.as_ref().zip(self.tls_key.as_ref()) else {
            return Ok(None);
        };
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
        let read = CertifiedKey::from_der(chain, private, &provider());
        let read = read.map_err(|error| unusable(key, error))?;
        Ok(Some(Arc::new(read)))
    }

    /// The configuration of a server, if it uses TLS. Its certificate is read again at SIGHUP, as long as the tasks
    /// live.
    pub(crate) fn renewed(&self, tasks: &mut JoinSet<()>) -> Result<Option<Config>, Failure> {
        let Some(key) = self.read()? else {
            return Ok(None);
        };
        let certificate = Certificate::new(key);
        let config = certificate.config()?;
        let mut asked = reload_asked().map_err(Failure::work)?;
        let tls = self.clone();
        tasks.spawn(async move {
            loop {
                asked.recv().await;
                match tls.read() {
                    Ok(key) => {
                        key.into_iter().for_each(|key| certificate.replace(key));
                        tracing::info!("read the certificate and its key again");
                    }
                    Err(failure) => tracing::error!(
                        "the certificate stays as it was: {}",
                        failure.into_reason()
                    ),
                }
            }
        });
        Ok(Some(config))
    }
}

type Config = Arc<ServerConfig>;

impl Certificate {
    pub(crate) fn new(key: Arc<CertifiedKey>) -> Arc<Certificate> {
        Arc::new(Certificate(Mutex::new(key)))
    }

    /// New connections see this one.
    pub(crate) fn replace(&self, key: Arc<CertifiedKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// The configuration of a server that shows it.
    pub(crate) fn config(self: &Arc<Self>) -> Result<Config, Failure> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(Failure::because)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        // WebSockets are upgraded from HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(key.clone())
    }
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(file, error))?;
    match found.is_empty() {
        true => Err(unusable(file, "there is no certificate in it")),
        false => Ok(found),
    }
}

/// The provider of cryptography of the process, as in the library.
fn provider() -> Arc<CryptoProvider> {
    let installed = CryptoProvider::get_default().cloned();
    installed.unwrap_or_else(|| Arc::new(ring::default_provider()))
}

fn unusable(file: &Path, why: impl Display) -> Failure {
    Failure::work(format_args!(
        "the PEM file {} cannot be used: {why}",
        file.display()
    ))
}
