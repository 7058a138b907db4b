//! The server's connections: each replaces one that was cut. A session keeps its connection.

use tokio::{sync::mpsc, task::spawn_local};

use crate::{
    Result,
    engine::{Engine, ended},
};

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
