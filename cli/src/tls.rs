//! The flags `--tls-cert` and `--tls-key` of every subcommand that listens. A certificate can be renewed while the
//! server runs.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use tokio::task::JoinSet;
use unstall::{ServerCertificate, rustls::ServerConfig};

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
    pub(crate) fn read(&self) -> Result<Option<ServerCertificate>, Failure> {
        let Some((certificate, key)) = self.tls_cert.as_ref().zip(self.tls_key.as_ref()) else {
            return Ok(None);
        };
        let read = ServerCertificate::from_pem(certificate, key);
        read.map(Some).map_err(Failure::because)
    }

    /// The configuration of a server, if it uses TLS. Its certificate is read again at SIGHUP, as long as the tasks
    /// live.
    pub(crate) fn renewed(
        &self,
        tasks: &mut JoinSet<()>,
    ) -> Result<Option<Arc<ServerConfig>>, Failure> {
        let Some(certificate) = self.read()?.map(Arc::new) else {
            return Ok(None);
        };
        let config = certificate.config().map_err(Failure::because)?;
        let mut asked = reload_asked().map_err(Failure::work)?;
        let tls = self.clone();
        tasks.spawn(async move {
            loop {
                asked.recv().await;
                match tls.read() {
                    Ok(new) => {
                        new.into_iter().for_each(|new| certificate.renew(new));
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
