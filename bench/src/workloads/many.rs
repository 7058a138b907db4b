//! Many connections at once, for the workloads that need them.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::words::{hear, say};
use crate::{
    Result,
    engine::{Engine, Rx},
    limits,
    meter::{Meter, Ready},
    payload::Tally,
};

/// Accepts so many connections. A word went over each, both ways. Then the client has said over the first
/// one that the measured part begins.
pub(crate) async fn accept<E: Engine>(
    server: &mut E::Server,
    count: u64,
) -> Result<(Vec<E::Link>, Ready)> {
    limits::connections();
    let mut links = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut link = E::accept(server).await?;
        hear(&mut link, &mut Tally::default(), 1).await?;
        say(&mut link).await?;
        links.push(link);
    }
    let ready = Meter::prepare();
    hear(&mut links[0], &mut Tally::default(), 1).await?;
    Ok((links, ready))
}

/// The client's side of [`accept`].
pub(crate) async fn connect<E: Engine>(
    server: SocketAddr,
    count: u64,
) -> Result<(Vec<E::Link>, Meter)> {
    limits::connections();
    let mut links = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut link = E::connect(server).await?;
        say(&mut link).await?;
        hear(&mut link, &mut Tally::default(), 1).await?;
        links.push(link);
    }
    let meter = Meter::prepare().start();
    say(&mut links[0]).await?;
    Ok((links, meter))
}

/// Receives so many messages of one size over each, and gives the connections back, all open.
pub(crate) async fn receive<L: Rx>(links: Vec<L>, size: usize, messages: u64) -> Result<Vec<L>> {
    let mut receiving = JoinSet::new();
    for mut link in links {
        receiving.spawn_local(async move {
            let mut tally = Tally::default();
            link.receive_until(&mut tally, |tally| tally.messages >= messages)
                .await?;
            tally.verify(size, messages)?;
            Ok(link)
        });
    }
    all(receiving).await
}

/// The results of all tasks.
pub(crate) async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut made = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        made.push(done??);
    }
    Ok(made)
}
