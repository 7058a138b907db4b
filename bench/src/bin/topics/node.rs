//! The server of unstall: a log in memory, on one core.

use unstall::{Server, ServerLimits};
use unstall_topics::{Limits, Log, Node, SUBPROTOCOL};

use crate::{Result, pin};

pub(crate) fn run() -> Result<()> {
    pin(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve())
}

async fn serve() -> Result<()> {
    let node = Node::new(&Log::memory(Limits::default()).await?);
    let limits = ServerLimits::default()
        .max_connections(20_000)
        .connections_per_address(20_000)
        .handshakes_per_address(4_000)
        .max_handshakes(4_000)
        .bytes_per_address(usize::MAX);
    let server = Server::builder()
        .subprotocols([SUBPROTOCOL])
        .limits(limits)
        .bind("127.0.0.1:0")
        .await?;
    println!("{}", server.local_addr());
    server
        .serve(move |connection| {
            let node = node.clone();
            async move { node.serve(connection).await }
        })
        .await;
    Ok(())
}
