//! A session that gives undelivered messages back even if its task is dropped.

use std::sync::Arc;

use super::Session;
use crate::{handles::Shared, pump::Reading};

/// A session and its handles. Dropping it ends the session and gives undelivered messages back.
pub(crate) struct SessionGuard {
    pub(crate) session: Session,
    pub(crate) shared: Arc<Shared>,
}

impl SessionGuard {
    pub(crate) fn new(session: Session, shared: Arc<Shared>) -> SessionGuard {
        SessionGuard { session, shared }
    }

    /// After the end of a server's session: ends the handle too.
    pub(crate) async fn finish(&mut self, reading: &mut Reading) {
        self.session.finish(&self.shared, reading).await;
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.session.vanish(&self.shared);
    }
}
