//! The messages of a run: each publisher has topics of its own.

use unstall_topics::{Filter, NameError, Topic};

use super::talk::Part;

/// How many topics each publisher has.
const TOPICS: u64 = 4;

/// The topic that a client in any language forwards, and the one that it publishes to.
const FORWARDED: [&str; 2] = ["verify.in", "verify.out"];

/// The topic of a message. The seed keeps runs over one stream apart.
pub(super) fn topic(part: &Part, publisher: u32, index: u64) -> Result<Topic, NameError> {
    if part.forwarded {
        return Topic::new(FORWARDED[0]);
    }
    let number = index.checked_rem(TOPICS).unwrap_or_default();
    Topic::new(&format!("verify.{}.p{publisher}.t{number}", part.seed))
}

/// The topics that are subscribed to: all topics of a run.
pub(super) fn filter(part: &Part) -> Result<Filter, NameError> {
    match part.forwarded {
        true => Filter::new(FORWARDED[1]),
        false => Filter::new(&format!("verify.{}.>", part.seed)),
    }
}

/// Who published under a topic.
pub(super) fn publisher(topic: &Topic) -> Option<u32> {
    if topic.as_str() == FORWARDED[1] {
        return Some(0);
    }
    topic.tokens().nth(2)?.strip_prefix('p')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::talk::Role, *};

    fn part(seed: u64, forwarded: bool) -> Part {
        Part {
            urls: Vec::new(),
            seed,
            forwarded,
            sizes: "16".parse().unwrap(),
            role: Role::Subscriber {
                told_of_removed: false,
            },
        }
    }

    #[test]
    fn a_topic_says_who_published_and_is_one_of_its_run() {
        let topic = topic(&part(7, false), 12, 5).unwrap();
        assert_eq!(
            (topic.as_str(), publisher(&topic)),
            ("verify.7.p12.t1", Some(12))
        );
        let is_of = |seed| filter(&part(seed, false)).unwrap().matches(topic.as_str());
        assert!(is_of(7) && !is_of(8));
    }

    #[test]
    fn what_is_forwarded_comes_back_in_another_topic() {
        let part = part(7, true);
        assert_eq!(topic(&part, 0, 5).unwrap().as_str(), "verify.in");
        let back = filter(&part).unwrap();
        assert!(back.matches("verify.out") && !back.matches("verify.in"));
        assert_eq!(publisher(&Topic::new("verify.out").unwrap()), Some(0));
    }
}
