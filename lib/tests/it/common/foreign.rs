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
}

impl Drop for Foreign {
    /// These programs end their children when they are asked to end.
    fn drop(&mut self) {
        if let Some(id) = self.child.id() {
            let _ = std::process::Command::new("kill")
                .args(["-TERM", &id.to_string()])
                .status();
        }
    }
}
