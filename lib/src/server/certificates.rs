//! The certificate with which a client has proved who it is.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;

/// The certificates that a client presented in its TLS handshake, its own first. The server's
/// configuration has verified them.
///
/// A [`Server`](crate::Server) puts it into the extensions of each request, if the configuration of TLS
/// asks clients for certificates and the client had one. The authentication hook finds it there, the
/// router, and a handler by [`Connection::request`](crate::Connection::request). Behind a proxy that ends
/// TLS it is missing.
///
/// ```no_run
/// # fn f(connection: &unstall::Connection) {
/// let request = connection.request();
/// let extensions = request.as_ref().map(|request| request.extensions());
/// if let Some(peer) = extensions.and_then(|it| it.get::<unstall::PeerCertificates>()) {
///     println!("{} bytes of DER", peer.end_entity().len());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PeerCertificates(Arc<[CertificateDer<'static>]>);

impl PeerCertificates {
    /// `None` without a certificate.
    pub(super) fn new(chain: Option<&[CertificateDer<'static>]>) -> Option<PeerCertificates> {
        let chain = chain.filter(|chain| !chain.is_empty())?;
        Some(PeerCertificates(chain.into()))
    }

    /// The client's own certificate, in DER.
    pub fn end_entity(&self) -> &CertificateDer<'static> {
        // There is no value without a certificate.
        &self.0[0]
    }

    /// All certificates that the client presented: its own first, then those of authorities.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}
