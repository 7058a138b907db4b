//! The subscriptions of one connection in the log's interests. Most connections have one, so they take
//! no more room than they need.

use unstall_proto::topics::SubscriptionKey;

use crate::interest::Interest;

/// Invariant: sorted by key.
#[derive(Debug, Default)]
pub(super) struct Subscribed(Vec<(SubscriptionKey, Interest)>);

impl Subscribed {
    pub(super) fn insert(&mut self, key: SubscriptionKey, interest: Interest) {
        if self.0.capacity() == 0 {
            self.0.reserve_exact(1);
        }
        match self.place(key) {
            Ok(place) => self.0[place].1 = interest,
            Err(place) => self.0.insert(place, (key, interest)),
        }
    }

    pub(super) fn get(&self, key: SubscriptionKey) -> Option<&Interest> {
        let place = self.place(key).ok()?;
        Some(&self.0[place].1)
    }

    pub(super) fn remove(&mut self, key: SubscriptionKey) {
        if let Ok(place) = self.place(key) {
            self.0.remove(place);
        }
        if self.0.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    fn place(&self, key: SubscriptionKey) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }
}
