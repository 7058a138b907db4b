//! Certificates in files.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A certificate that signs itself, and its key.
pub(crate) struct Pem {
    directory: TempDir,
    names: Vec<String>,
}

impl Pem {
    /// For these names.
    pub(crate) fn of(names: &[&str]) -> Pem {
        let pem = Pem {
            directory: tempfile::tempdir().unwrap(),
            names: names.iter().map(|it| (*it).to_owned()).collect(),
        };
        pem.renew();
        pem
    }

    /// Another certificate takes the place of this one.
    pub(crate) fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(self.names.clone()).unwrap();
        std::fs::write(self.cert(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// What a server is told of it.
    pub(crate) fn args(&self) -> [String; 4] {
        let (cert, key) = (shown(&self.cert()), shown(&self.key()));
        ["--tls-cert".into(), cert, "--tls-key".into(), key]
    }

    /// A copy of the certificate.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let to = self.directory.path().join(name);
        std::fs::copy(self.cert(), &to).unwrap();
        to
    }
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
