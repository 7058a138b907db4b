//! A session that gives everything back, also when its task is dropped.

use std::sync::Arc;

use super::Session;
use crate::{handles::Shared, pump::Reading};

/// A session with its queues, to which everything comes back should its task be dropped.
pub(crate) struct SessionGuard {
    pub(crate) session: Session,
    pub(crate) shared: Arc<Shared>,
}

impl SessionGuard {
    pub(crate) fn new(session: Session, shared: Arc<Shared>) -> SessionGuard {
        SessionGuard { session, shared }
    }

    /// A server's session ends with its handle.
    pub(crate) async fn finish(&mut self, reading: &mut Reading) {
        self.session.finish(&self.shared, reading).await;
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.session.vanish(&self.shared);
    }
}
