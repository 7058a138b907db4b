//! Programs that others wrote, such as proxies. A test finds nothing to do where its program is not
//! installed.

use std::{net::SocketAddr, path::Path, process::Stdio};

use tokio::process::{Child, Command};

use super::{net::unused_address, until};

/// A running program, which ends when it is dropped.
pub(crate) struct Foreign {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Foreign {
    /// `None` where it is not installed.
    ///
    /// Once it had a free port of 127.0.0.1, which another test took before the program did: each of the
    /// two tests then talked to the other's server.
    pub(crate) async fn start(
        program: &str,
        arguments: &[&str],
        configuration: impl Fn(SocketAddr, &Path) -> String,
    ) -> Option<Foreign> {
        let directory = tempfile::tempdir().unwrap();
        let address = unused_address();
        let file = directory.path().join("configuration");
        std::fs::write(&file, configuration(address, directory.path())).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("skipped: {program} is not installed");
            return None;
        };
        until("the program listens", || {
            std::net::TcpStream::connect(address).is_ok()
        })
        .await;
        Some(Foreign {
            child,
            address,
            _directory: directory,
        })
    }

    /// Sends it a signal, such as `-HUP`. It must still run.
    pub(crate) fn tell(&self, signal: &str) {
        assert!(self.signal(signal), "the program does not run");
    }

    fn signal(&self, signal: &str) -> bool {
        let Some(id) = self.child.id() else {
            return false;
        };
        let told = std::process::Command::new("kill")
            .args([signal, &id.to_string()])
            .status();
        told.is_ok_and(|status| status.success())
    }
}

impl Drop for Foreign {
    /// These programs end their children when they are asked to end.
    fn drop(&mut self) {
        self.signal("-TERM");
    }
}
