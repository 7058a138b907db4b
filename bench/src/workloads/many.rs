//! Many connections, at once or one after the other, for the workloads that have them.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{sync::mpsc, task::spawn_local};

use super::words::{hear, say};
use crate::{
    Result,
    engine::{Engine, ended},
    limits,
    payload::Tally,
};

/// Accepts so many connections; a word went over each, both ways.
pub(crate) async fn accept<E: Engine>(server: &mut E::Server, count: u64) -> Result<Vec<E::Link>> {
    limits::connections();
    let mut links = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut link = E::accept(server).await?;
        hear(&mut link, &mut Tally::default(), 1).await?;
        say(&mut link).await?;
        links.push(link);
    }
    Ok(links)
}

/// The client's side of [`accept`].
pub(crate) async fn connect<E: Engine>(server: SocketAddr, count: u64) -> Result<Vec<E::Link>> {
    limits::connections();
    let mut links = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut link = E::connect(server).await?;
        say(&mut link).await?;
        hear(&mut link, &mut Tally::default(), 1).await?;
        links.push(link);
    }
    Ok(links)
}

/// Now, on a clock that both processes read.
pub(crate) fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// A message that tells its number, and when it was made.
pub(crate) fn stamped(number: u32, size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(size);
    message.put_u32(number);
    message.put_u64(now().as_nanos() as u64);
    message.resize(size, 7);
    message.freeze()
}

pub(crate) fn look_at(mut message: &[u8]) -> (u32, Duration) {
    let number = message.get_u32();
    (number, Duration::from_nanos(message.get_u64()))
}

/// Connections that come in the place of one that was cut. None for a session, which goes on.
pub(crate) struct Accepting<E: Engine>(mpsc::UnboundedReceiver<E::Link>);

impl<E: Engine> Accepting<E> {
    pub(crate) fn begin(mut server: E::Server) -> Accepting<E> {
        let (found, links) = mpsc::unbounded_channel();
        spawn_local(async move {
            while let Ok(link) = E::accept(&mut server).await {
                if found.send(link).is_err() {
                    return;
                }
            }
        });
        Accepting(links)
    }

    /// The latest, if there is one.
    pub(crate) fn renew(&mut self, link: &mut E::Link) {
        while let Ok(newer) = self.0.try_recv() {
            *link = newer;
        }
    }

    pub(crate) async fn next(&mut self) -> Result<E::Link> {
        self.0.recv().await.ok_or_else(ended)
    }
}
