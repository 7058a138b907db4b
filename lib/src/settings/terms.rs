//! What a connection runs under.

use std::sync::Arc;

use super::{Budget, Options};

/// The options of a connection, which others may share, and the budget that its bytes are drawn from.
/// That is the options' own, unless a server has one for this client.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) options: Arc<Options>,
    pub(crate) budget: Option<Budget>,
}

impl From<Arc<Options>> for Terms {
    fn from(options: Arc<Options>) -> Terms {
        let budget = options.budget.clone();
        Terms { options, budget }
    }
}

impl From<Options> for Terms {
    fn from(options: Options) -> Terms {
        Terms::from(Arc::new(options))
    }
}
