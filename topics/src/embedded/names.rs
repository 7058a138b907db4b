//! The topics that one read has met, so that each name is checked once and not with each message.

use std::collections::HashMap;

use unstall_proto::topics::{Filter, Topic};

use super::reading::Failed;
use crate::defaults::embedded::NAMES_KEPT;

/// Topics by their bytes. `None`: the filter does not match it.
#[derive(Debug)]
pub(super) struct Names<'a> {
    filter: &'a Filter,
    is_all: bool,
    known: HashMap<Box<[u8]>, Option<Topic>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(filter: &'a Filter) -> Names<'a> {
        Names {
            filter,
            is_all: filter.is_all(),
            known: HashMap::new(),
        }
    }

    /// The topic with this name, if the filter matches it.
    ///
    /// # Errors
    /// If the name is not a topic.
    pub(super) fn matching(&mut self, name: &[u8]) -> Result<Option<Topic>, Failed> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Failed::Message)?;
        let topic = match self.is_all || self.filter.matches(text) {
            true => Some(Topic::new(text).map_err(|_| Failed::Message)?),
            false => None,
        };
        if self.known.len() == NAMES_KEPT {
            self.known.clear();
        }
        self.known.insert(name.into(), topic.clone());
        Ok(topic)
    }
}
