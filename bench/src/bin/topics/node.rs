//! The server of unstall, in a process of its own.

use std::{io::Read, path::PathBuf};

use futures_util::future::Either;
use serde::{Deserialize, Serialize};
use unstall::{Connection, Incoming, Server, ServerLimits};
use unstall_topics::{Limits, Log, Node, SUBPROTOCOL, jetstream::JetStream};

use crate::{Result, harness, limits};

/// What the process has to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) store: Place,
    /// One thread on this core. Without, tokio's default: a thread for each core.
    pub(crate) core: Option<usize>,
    pub(crate) listen: String,
    pub(crate) max_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    Memory,
    Directory(PathBuf),
    /// The address of a server of NATS. The stream is `LOG`.
    JetStream(String),
}

impl Job {
    /// All cores, and any free port.
    pub(crate) fn new(store: Place) -> Job {
        Job {
            store,
            core: None,
            listen: "127.0.0.1:0".into(),
            max_bytes: None,
        }
    }

    pub(crate) fn on_a_core(self) -> Job {
        Job {
            core: Some(harness::SERVER),
            ..self
        }
    }
}

pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    limits::connections();
    let mut builder = match job.core {
        Some(core) => {
            harness::pin(core);
            tokio::runtime::Builder::new_current_thread()
        }
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    // Whoever has started this process may be killed.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    builder.enable_all().build()?.block_on(serve(job))
}

async fn serve(job: Job) -> Result<()> {
    let mut limits = Limits::default();
    if let Some(bytes) = job.max_bytes {
        limits = limits.max_bytes(bytes);
    }
    let log = match &job.store {
        Place::Memory => Log::memory(limits).await?,
        Place::Directory(directory) => Log::open(directory, limits).await?,
        Place::JetStream(url) => {
            Log::with_store(JetStream::builder([url], "LOG").open().await?).await?
        }
    };
    let limits = ServerLimits::default()
        .max_connections(20_000)
        .connections_per_address(20_000)
        .handshakes_per_address(4_000)
        .max_handshakes(4_000)
        .bytes_per_address(usize::MAX);
    let server = Server::builder()
        .subprotocols([SUBPROTOCOL])
        .options(Node::options())
        .limits(limits)
        .bind(&job.listen)
        .await?;
    let address = server.local_addr().to_string();
    let node = Node::new(&log).name(&address);
    println!("{address}");
    let serve = move |connection: Connection| match connection.subprotocol() {
        Some(_) => Either::Left(node.serve(connection)),
        None => Either::Right(Box::pin(hold(connection))),
    };
    server.serve(serve).await;
    Ok(())
}

/// A connection without topics, for comparison: it sends back what comes.
async fn hold(mut connection: Connection) {
    while let Ok(Some(Incoming::Message(message))) = connection.recv().await {
        if connection.send(message).await.is_err() {
            return;
        }
    }
}
