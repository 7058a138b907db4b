//! Topics as subjects of NATS: the prefix of the log, a dot, and the topic as it is.
//!
//! Every valid topic is a valid subject: it has no empty token, no white space, no control character
//! and no wildcard. The longest subject is far below the 4,096 bytes that a line of NATS may have.
//! The other way round, not every subject is a topic: see [`Subjects::topic`].

use unstall_proto::topics::{Filter, NameError, Topic};

/// The longest prefix. With the longest topic it is far below the longest line of NATS.
const MAX_PREFIX: usize = 128;

/// The subjects of one log.
#[derive(Clone, Debug)]
pub(super) struct Subjects {
    /// With the dot at its end.
    prefix: Box<str>,
}

impl Subjects {
    /// Checks a prefix. The error says what a prefix has to be.
    pub(super) fn new(prefix: &str) -> Result<Subjects, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let token = |token: &str| !token.is_empty() && token.chars().all(allowed);
        if prefix.len() > MAX_PREFIX || !prefix.split('.').all(token) || prefix.starts_with('_') {
            return Err(format!(
                "the prefix of the subjects has to be tokens of letters, digits, - and _ with dots \
                 between, at most {MAX_PREFIX} bytes, and not begin with _; {prefix:?} is not"
            ));
        }
        Ok(Subjects {
            prefix: format!("{prefix}.").into(),
        })
    }

    /// The prefix that a stream with this subject has.
    pub(super) fn of_stream(subject: &str) -> Result<Subjects, String> {
        match subject.strip_suffix(".>") {
            Some(prefix) => Subjects::new(prefix),
            None => Err(format!(
                "the subject has to be PREFIX.>; {subject:?} is not"
            )),
        }
    }

    /// The prefix, without the dot.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix[..self.prefix.len() - 1]
    }

    /// What the stream stores.
    pub(super) fn all(&self) -> String {
        self.filter(&Filter::all())
    }

    /// The subject of a topic.
    pub(super) fn subject(&self, topic: &Topic) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The subject that matches what the filter matches. Both mean the same by `*` and `>`.
    pub(super) fn filter(&self, filter: &Filter) -> String {
        format!("{}{filter}", self.prefix)
    }

    /// What stands behind the prefix.
    pub(super) fn name<'a>(&self, subject: &'a str) -> &'a str {
        subject.strip_prefix(&*self.prefix).unwrap_or(subject)
    }

    /// The topic of a subject. Other programs may publish to the stream under subjects that are not
    /// topics: longer than 255 bytes, of more than 32 tokens, with control characters or white space
    /// that NATS takes, or with `*` within a token.
    pub(super) fn topic(&self, subject: &str) -> Result<Topic, NameError> {
        Topic::new(self.name(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_the_same_behind_its_subject() {
        let subjects = Subjects::new("hub.log-1").unwrap();
        let topic = Topic::new("preise.é.日本").unwrap();
        let subject = subjects.subject(&topic);
        assert_eq!(subject, "hub.log-1.preise.é.日本");
        assert_eq!(subjects.topic(&subject), Ok(topic));
        assert_eq!(subjects.all(), "hub.log-1.>");
        let from_stream = Subjects::of_stream(&subjects.all()).unwrap();
        assert_eq!(from_stream.prefix(), "hub.log-1");
    }

    #[test]
    fn prefixes_that_nats_keeps_for_itself_or_cannot_carry_are_refused() {
        for prefix in ["", ".", "a..b", "a b", "a.*", ">", "$JS.API", "_INBOX", "é"] {
            assert!(Subjects::new(prefix).is_err(), "{prefix}");
        }
        for subject in ["a", ">", "a.*", "*.>"] {
            assert!(Subjects::of_stream(subject).is_err(), "{subject}");
        }
    }
}
