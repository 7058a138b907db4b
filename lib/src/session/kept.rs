//! A session that gives everything back, also when its task is dropped.

use std::sync::Arc;

use super::Link;
use crate::handles::Shared;

/// A session with its queues, to which everything comes back should its task vanish.
pub(crate) struct Kept {
    pub(crate) link: Link,
    pub(crate) shared: Arc<Shared>,
}

impl Kept {
    pub(crate) fn new(link: Link, shared: Arc<Shared>) -> Kept {
        Kept { link, shared }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.link.vanish(&self.shared);
    }
}
