//! A hub as a process of its own, which can be killed and started again at the same address.

use std::{io, net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::process_group;

/// How long a hub may take to start. After a kill it reads its journal, on a disk that may be busy.
const START: Duration = Duration::from_secs(30);

/// A running hub. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct HubProcess {
    store: Vec<String>,
    address: SocketAddr,
    child: Child,
}

impl HubProcess {
    /// Starts a hub on a free port, with these flags.
    pub(crate) async fn start(store: Vec<String>) -> io::Result<HubProcess> {
        let (child, address) = spawn(SocketAddr::from(([127, 0, 0, 1], 0)), &store).await?;
        Ok(HubProcess {
            store,
            address,
            child,
        })
    }

    /// Where it listens. It stays the same.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, as `kill -9` does, and waits until it has ended.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        // Windows has no signal for it.
        #[cfg(unix)]
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            use nix::{sys::signal, unistd::Pid};
            signal::kill(Pid::from_raw(id), signal::Signal::SIGTERM)?;
            if let Ok(ended) = timeout(START, self.child.wait()).await {
                return ended.map(|_| ());
            }
        }
        self.child.kill().await
    }

    /// Starts it again, at its address. It must have ended.
    pub(crate) async fn start_again(&mut self) -> io::Result<()> {
        (self.child, _) = spawn(self.address, &self.store).await?;
        Ok(())
    }
}

async fn spawn(listen: SocketAddr, store: &[String]) -> io::Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["hub", "--listen", &listen.to_string()])
        .args(store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    process_group::lead(&mut command);
    let mut child = command.spawn()?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("no pipe"))?;
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    timeout(START, stdout.read_line(&mut line))
        .await
        .map_err(|_| io::Error::other("a hub did not start in time"))??;
    let address = line.trim_end().strip_prefix("listening on ws://");
    let address = address.and_then(|address| address.parse().ok());
    let failed = || io::Error::other("a hub did not start; standard error says why");
    Ok((child, address.ok_or_else(failed)?))
}
