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
