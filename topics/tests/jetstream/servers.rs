//! Servers of NATS, on free ports of the loopback interface, with a folder each.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

/// A server alone, or several that are one cluster.
pub(crate) struct Servers {
    folder: TempDir,
    ports: Vec<u16>,
    /// More lines of the configuration.
    more: String,
    running: Mutex<Vec<Option<Child>>>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for at in 0..self.count() {
            self.kill(at);
        }
    }
}

/// Whether there is a server to test with. Says so if there is none.
pub(crate) fn are_installed() -> bool {
    let program = program();
    if program.is_none() {
        assert!(
            env::var_os("CI").is_none(),
            "nats-server is missing; run .ci/nats-server"
        );
        eprintln!("SKIPPED: nats-server is missing; .ci/nats-server installs it");
    }
    program.is_some()
}

/// What `.ci/nats-server` installed.
fn program() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let program = workspace.join("target/nats-server/nats-server");
    program.exists().then_some(program)
}

impl Servers {
    /// One server, or a cluster of as many.
    pub(crate) fn start(count: usize) -> Servers {
        Servers::with(count, "")
    }

    /// The same, with more lines of the configuration.
    pub(crate) fn with(count: usize, more: &str) -> Servers {
        let servers = Servers {
            folder: tempfile::tempdir().unwrap(),
            ports: free_ports(2 * count),
            more: more.to_owned(),
            running: Mutex::new((0..count).map(|_| None).collect()),
        };
        (0..count).for_each(|at| servers.restart(at));
        servers
    }

    pub(crate) fn count(&self) -> usize {
        self.ports.len() / 2
    }

    pub(crate) fn url(&self, at: usize) -> String {
        format!("nats://127.0.0.1:{}", self.ports[at])
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.count()).map(|at| self.url(at)).collect()
    }

    /// Where the server keeps its streams.
    pub(crate) fn store(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("n{at}"))
    }

    /// Starts a server that does not run, with what it had stored.
    pub(crate) fn restart(&self, at: usize) {
        let config = self.folder.path().join(format!("n{at}.conf"));
        fs::write(&config, self.config(at)).unwrap();
        let log = fs::File::create(self.folder.path().join(format!("n{at}.log"))).unwrap();
        let child = Command::new(program().unwrap())
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running()[at] = Some(child);
    }

    fn config(&self, at: usize) -> String {
        let count = self.count();
        let store = self.store(at);
        // Without a size a server takes three quarters of what is free on the disk as its own, and
        // refuses streams whose `max_bytes` are more than that together, however little is in them.
        let jetstream = format!("jetstream {{ store_dir: {store:?}, max_file_store: 1TB }}");
        let mut config = format!(
            "server_name: n{at}\nlisten: 127.0.0.1:{}\n{jetstream}\n{}\n",
            self.ports[at], self.more,
        );
        if count > 1 {
            let route = |at: usize| format!("nats://127.0.0.1:{}", self.ports[count + at]);
            let routes: Vec<_> = (0..count).map(route).collect();
            let port = self.ports[count + at];
            config += &format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?} }}\n"
            );
        }
        config
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, at: usize) {
        let Some(Some(mut child)) = self.running().get_mut(at).map(Option::take) else {
            return;
        };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self, at: usize) {
        self.signal(at, "-STOP");
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self, at: usize) {
        self.signal(at, "-CONT");
    }

    fn signal(&self, at: usize, signal: &str) {
        let id = self.running()[at].as_ref().unwrap().id().to_string();
        let done = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(done.success());
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Option<Child>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    listeners.iter().map(port).collect()
}
