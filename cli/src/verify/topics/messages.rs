//! The messages of a run: each publisher has topics of its own.

use unstall_topics::{Filter, NameError, Topic};

/// How many topics each publisher has.
const TOPICS: u64 = 4;

/// The topic of a message. The seed keeps runs over one stream apart.
pub(super) fn topic(seed: u64, publisher: u32, index: u64) -> Result<Topic, NameError> {
    let number = index.checked_rem(TOPICS).unwrap_or_default();
    Topic::new(&format!("verify.{seed}.p{publisher}.t{number}"))
}

/// All topics of a run.
pub(super) fn filter(seed: u64) -> Result<Filter, NameError> {
    Filter::new(&format!("verify.{seed}.>"))
}

/// Who published under a topic.
pub(super) fn publisher(topic: &Topic) -> Option<u32> {
    topic.tokens().nth(2)?.strip_prefix('p')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_says_who_published_and_is_one_of_its_run() {
        let topic = topic(7, 12, 5).unwrap();
        assert_eq!(
            (topic.as_str(), publisher(&topic)),
            ("verify.7.p12.t1", Some(12))
        );
        assert!(filter(7).unwrap().matches(topic.as_str()));
        assert!(!filter(8).unwrap().matches(topic.as_str()));
    }
}
