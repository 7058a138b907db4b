//! The promises that every store keeps, over one server with a stream for each log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture};
use unstall_proto::topics::LogId;
use unstall_topics::{Limits, conformance::Stores, jetstream::JetStream, store::Store};

use crate::{
    common::open,
    servers::{Servers, are_installed},
};

/// What the test of retention asks for. No other test needs more.
const MAX_BYTES: u64 = 16 << 20;

struct Streams {
    servers: Servers,
    names: Mutex<HashMap<LogId, String>>,
}

impl Streams {
    fn new() -> Streams {
        Streams {
            servers: Servers::start(1),
            names: Mutex::default(),
        }
    }

    async fn open(&self, name: &str) -> Arc<dyn Store> {
        let builder = JetStream::builder(self.servers.urls(), name).max_bytes(MAX_BYTES);
        let store = open(builder).await;
        self.names
            .lock()
            .unwrap()
            .insert(store.id(), name.to_owned());
        Arc::new(store)
    }
}

impl Stores for Streams {
    fn empty(&self, _: Limits) -> BoxFuture<'_, Arc<dyn Store>> {
        let name = format!("LOG{}", self.names.lock().unwrap().len());
        async move { self.open(&name).await }.boxed()
    }

    fn reopen(&self, store: Arc<dyn Store>, _: Limits) -> BoxFuture<'_, Option<Arc<dyn Store>>> {
        let name = self.names.lock().unwrap()[&store.id()].clone();
        drop(store);
        async move { Some(self.open(&name).await) }.boxed()
    }

    fn remembers_numbers(&self) -> bool {
        false
    }
}

unstall_topics::conformance_tests!(match are_installed() {
    true => Streams::new(),
    false => return,
});
