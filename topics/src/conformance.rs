//! Tests of a store against the contract of [`Store`].
//!
//! Implement [`Stores`] for whatever makes your stores, and let
//! [`conformance_tests!`](crate::conformance_tests) make a test of each promise:
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::future::BoxFuture;
//! use unstall_topics::{Limits, Memory, conformance::Stores, store::Store};
//!
//! #[derive(Default)]
//! struct InMemory;
//!
//! impl Stores for InMemory {
//!     fn empty(&self, limits: Limits) -> BoxFuture<'_, Arc<dyn Store>> {
//!         Box::pin(async move { Arc::new(Memory::new(limits)) as Arc<dyn Store> })
//!     }
//! }
//!
//! unstall_topics::conformance_tests!(InMemory::default());
//! # fn main() {}
//! ```
//!
//! They use tokio's macros, so the crate needs tokio with the features `macros` and
//! `rt-multi-thread`. A test that fails panics, and names the promise. One that draws random
//! numbers prints its seed first; the environment variable `UNSTALL_SEED` repeats it. It tries
//! seeds for three seconds, or as many as `UNSTALL_SEEDS` says.
//!
//! What only a crash of the process or of the machine shows is not tested here: whether a message
//! is safe once it is told.

mod at_once;
mod model;
mod once;
mod places;
mod reading;
mod removal;
mod reopening;
mod tools;

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};

use crate::{limits::Limits, store::Store};

/// The tests of each promise.
///
/// Each is an async function. [`conformance_tests!`](crate::conformance_tests) makes tests of all.
pub mod promises {
    pub use super::{
        at_once::{readers_get_each_message_once_while_it_is_appended, what_is_told_can_be_read},
        model::it_does_what_a_simple_model_does,
        once::{
            a_duplicate_within_a_batch_is_stored_once, a_message_is_stored_once,
            a_newer_epoch_begins_anew, a_number_that_was_skipped_is_not_stored_later,
            an_older_epoch_is_fenced, publishers_do_not_disturb_each_other,
            without_a_publisher_a_message_is_stored_each_time,
        },
        places::{
            a_time_is_found, long_messages_are_read_in_chunks, the_last_messages_are_found,
            the_latest_of_each_topic_are_read, the_latest_within_bounds_are_read_in_chunks,
        },
        reading::{
            a_filter_gets_what_it_matches, a_message_too_large_is_refused_alone,
            a_new_log_is_empty, chunks_end_where_they_say, each_log_has_an_id_of_its_own,
            messages_are_read_as_they_were_appended, reading_keeps_to_its_bounds,
        },
        removal::{
            a_chunk_tells_what_was_removed_before_it, offsets_go_on_after_everything_was_removed,
            removal_takes_from_the_front, retention_by_bytes_takes_from_the_front,
        },
        reopening::{
            a_log_is_the_same_after_it_was_closed, offsets_go_on_after_a_removal_and_a_restart,
            publishers_are_remembered_after_a_restart,
        },
    };
}

/// Makes the stores that are tested.
pub trait Stores: Send + Sync {
    /// Makes a store with an empty log. It keeps to `limits` if it can be told; it must keep to
    /// `max_bytes` at least roughly.
    ///
    /// # Panics
    /// May panic if it cannot, which fails the test.
    fn empty(&self, limits: Limits) -> BoxFuture<'_, Arc<dyn Store>>;

    /// Closes a store whose last handle this is, and opens its log again with `limits`. `None` if its
    /// logs do not outlive it.
    ///
    /// # Panics
    /// May panic if it cannot, which fails the test.
    fn reopen(
        &self,
        store: Arc<dyn Store>,
        limits: Limits,
    ) -> BoxFuture<'_, Option<Arc<dyn Store>>> {
        let _ = (store, limits);
        async { None }.boxed()
    }

    /// Whether the store remembers the highest number of each publisher. If not, it remembers single
    /// messages, and nothing of epochs is tested.
    fn remembers_numbers(&self) -> bool {
        true
    }
}

/// Makes a test of each promise in [`conformance::promises`](crate::conformance::promises), over
/// stores that an expression makes. See [`conformance`](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    ($stores:expr) => {
        $crate::conformance_tests! { @each $stores;
            a_chunk_tells_what_was_removed_before_it
            a_duplicate_within_a_batch_is_stored_once
            a_filter_gets_what_it_matches
            a_log_is_the_same_after_it_was_closed
            a_message_is_stored_once
            a_message_too_large_is_refused_alone
            a_new_log_is_empty
            a_newer_epoch_begins_anew
            a_number_that_was_skipped_is_not_stored_later
            a_time_is_found
            an_older_epoch_is_fenced
            chunks_end_where_they_say
            each_log_has_an_id_of_its_own
            it_does_what_a_simple_model_does
            long_messages_are_read_in_chunks
            messages_are_read_as_they_were_appended
            offsets_go_on_after_a_removal_and_a_restart
            offsets_go_on_after_everything_was_removed
            publishers_are_remembered_after_a_restart
            publishers_do_not_disturb_each_other
            readers_get_each_message_once_while_it_is_appended
            reading_keeps_to_its_bounds
            removal_takes_from_the_front
            retention_by_bytes_takes_from_the_front
            the_last_messages_are_found
            the_latest_of_each_topic_are_read
            the_latest_within_bounds_are_read_in_chunks
            what_is_told_can_be_read
            without_a_publisher_a_message_is_stored_each_time
        }
    };
    (@each $stores:expr; $($promise:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                $crate::conformance::promises::$promise(&$stores).await;
            }
        )+
    };
}
