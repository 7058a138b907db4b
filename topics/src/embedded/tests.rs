//! What only this store promises. The rest is in `conformance`.

use super::*;

mod conformance {
    use std::sync::Mutex;

    use tempfile::TempDir;

    use super::*;
    use crate::conformance::{Stores, promises};

    /// Stores in directories of their own, which are gone with this.
    #[derive(Default)]
    struct OnDisk {
        directories: Mutex<Vec<(LogId, TempDir)>>,
        step: Option<u64>,
    }

    impl Stores for OnDisk {
        fn empty(&self, mut limits: Limits) -> BoxFuture<'_, Arc<dyn Store>> {
            async move {
                limits.step = self.step;
                let directory = TempDir::new().unwrap();
                let store = Embedded::open(&directory, limits).await.unwrap();
                self.directories
                    .lock()
                    .unwrap()
                    .push((store.id(), directory));
                Arc::new(store) as Arc<dyn Store>
            }
            .boxed()
        }

        fn reopen(
            &self,
            store: Arc<dyn Store>,
            mut limits: Limits,
        ) -> BoxFuture<'_, Option<Arc<dyn Store>>> {
            async move {
                limits.step = self.step;
                let directory = {
                    let all = self.directories.lock().unwrap();
                    let (_, directory) = all.iter().find(|it| it.0 == store.id()).unwrap();
                    directory.path().to_owned()
                };
                drop(store);
                let store = Embedded::open(directory, limits).await.unwrap();
                Some(Arc::new(store) as Arc<dyn Store>)
            }
            .boxed()
        }
    }

    crate::conformance_tests!(OnDisk::default());

    /// A new generation every few messages, so that each read and each removal meets many of them.
    mod many_generations {
        use super::*;

        fn stores() -> OnDisk {
            OnDisk {
                step: Some(2_000),
                ..OnDisk::default()
            }
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn it_does_what_a_simple_model_does() {
            promises::it_does_what_a_simple_model_does(&stores()).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn readers_get_each_message_once_while_it_is_appended() {
            promises::readers_get_each_message_once_while_it_is_appended(&stores()).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn the_latest_of_each_topic_are_read() {
            promises::the_latest_of_each_topic_are_read(&stores()).await;
        }
    }
}

/// Publishers whose own places are behind when the process ends, and whose messages go meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn all_publishers_are_remembered_over_restarts_and_removed_generations() {
    use unstall_proto::{
        Kind,
        topics::{Publisher, Topic},
    };

    const PUBLISHERS: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let mut limits = Limits::default();
    limits.step = Some(20_000);
    let publication = |publisher: u64, number: u64| {
        let topic = Topic::new("t").unwrap();
        let mut publication = Publication::new(topic, Kind::Binary, vec![b'x'; 100]);
        let mut id = [3; 16];
        id[..8].copy_from_slice(&publisher.to_be_bytes());
        publication.publisher = Some((Publisher { id, epoch: 1 }, number));
        publication
    };
    let mut stored = std::collections::HashMap::new();
    let mut store = Embedded::open(&directory, limits.clone()).await.unwrap();
    for round in 0..12 {
        // Each round some publish and the others are idle.
        for publisher in (0..PUBLISHERS).filter(|it| it % 12 == round || it % 50 == 0) {
            let batch = (0..5).map(|it| publication(publisher, round * 5 + it + 1));
            let answers = store.append(batch.collect()).await.unwrap();
            let Appended::Stored { offset, .. } = answers[4] else {
                panic!("{answers:?}");
            };
            stored.insert(publisher, (round * 5 + 5, offset));
        }
        let last = store.bounds().await.unwrap().last;
        if round % 3 == 2 {
            store.remove_through(last).await.unwrap();
        }
        store.close().await;
        store = Embedded::open(&directory, limits.clone()).await.unwrap();
        for (publisher, (number, offset)) in &stored {
            let again = publication(*publisher, *number);
            let answers = store.append(vec![again]).await.unwrap();
            assert_eq!(answers, [Appended::Before(Some(*offset))], "round {round}");
        }
    }
    assert_eq!(stored.len() as u64, PUBLISHERS);
}
