//! Topics and filters (SPEC-TOPICS.md, "Names").

use std::{borrow::Borrow, fmt, sync::Arc};

/// The longest topic or filter, in bytes.
pub const MAX_NAME: usize = 255;

/// The most tokens of a topic or filter.
pub const MAX_TOKENS: usize = 32;

/// The name under which a message is published: tokens with `.` between them, as in
/// `prices.EUR.USD`.
///
/// It has 1 to 255 bytes and 1 to 32 tokens. A token has no white space, no control characters, and
/// none of `.`, `*` and `>`. Cloning is cheap: clones share the name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// What a subscription asks for: a topic, or a pattern in which `*` stands for one token, and `>` at
/// the end for one or more.
///
/// Cloning is cheap: clones share the name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Arc<str>);

/// A name is not a topic, or not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is longer than [`MAX_NAME`].
    #[error("the name has more than {MAX_NAME} bytes; choose a shorter one")]
    TooLong,
    /// It has more than [`MAX_TOKENS`] tokens.
    #[error("the name has more than {MAX_TOKENS} tokens between its dots; choose fewer")]
    TooManyTokens,
    /// It is empty, or has a dot at its beginning or end, or two in a row.
    #[error("the name has an empty token; put something before and behind each dot")]
    EmptyToken,
    /// A token contains white space, a control character, or a wildcard where none may be.
    #[error("the name contains {0:?}, which is not allowed there")]
    Character(char),
}

impl Topic {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Topic, NameError> {
        check(name, |token, _| literal(token))?;
        Ok(Topic(name.into()))
    }

    /// Whether a name is a topic.
    pub(super) fn is_valid(name: &str) -> bool {
        check(name, |token, _| literal(token)).is_ok()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl Filter {
    /// The filter that matches every topic, `>`.
    pub fn all() -> Filter {
        Filter(">".into())
    }

    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Filter, NameError> {
        check(name, |token, last| match token {
            "*" => Ok(()),
            ">" if last => Ok(()),
            _ => literal(token),
        })?;
        Ok(Filter(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether it matches every topic.
    pub fn is_all(&self) -> bool {
        &*self.0 == ">"
    }

    /// The topic, if the filter has no wildcard and so matches one topic only.
    pub fn as_topic(&self) -> Option<Topic> {
        let wild = self.tokens().any(|token| matches!(token, "*" | ">"));
        (!wild).then(|| Topic(self.0.clone()))
    }

    /// Whether a topic matches. `topic` has to be the name of a [`Topic`].
    pub fn matches(&self, topic: &str) -> bool {
        if self.is_all() {
            return true;
        }
        let mut tokens = topic.split('.');
        for wanted in self.tokens() {
            match (wanted, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// Whether every topic that `other` can match is matched by this filter too.
    pub fn covers(&self, other: &Filter) -> bool {
        let mut others = other.tokens();
        for mine in self.tokens() {
            match (mine, others.next()) {
                (">", Some(_)) => return true,
                ("*", Some(theirs)) if theirs != ">" => {}
                (mine, Some(theirs)) if mine == theirs => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

/// So that maps by topic can be searched by name.
impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<Topic> for Filter {
    fn from(topic: Topic) -> Filter {
        Filter(topic.0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", &*self.0)
    }
}

/// Whether text is UTF-8.
pub(super) fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

fn check(
    name: &str,
    mut token_is_valid: impl FnMut(&str, bool) -> Result<(), NameError>,
) -> Result<(), NameError> {
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    let mut tokens = name.split('.').peekable();
    let mut count = 0;
    while let Some(token) = tokens.next() {
        count += 1;
        if count > MAX_TOKENS {
            return Err(NameError::TooManyTokens);
        }
        if token.is_empty() {
            return Err(NameError::EmptyToken);
        }
        token_is_valid(token, tokens.peek().is_none())?;
    }
    Ok(())
}

/// A token without wildcards.
fn literal(token: &str) -> Result<(), NameError> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    match token.chars().find(|&c| forbidden(c)) {
        Some(character) => Err(NameError::Character(character)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str) -> Filter {
        Filter::new(name).unwrap()
    }

    #[test]
    fn names_at_each_limit_are_taken_and_one_beyond_is_refused() {
        let long = "a".repeat(MAX_NAME);
        assert!(Topic::new(&long).is_ok());
        assert_eq!(Topic::new(&format!("{long}a")), Err(NameError::TooLong));
        let tokens = vec!["a"; MAX_TOKENS].join(".");
        assert!(Topic::new(&tokens).is_ok());
        assert_eq!(
            Topic::new(&format!("{tokens}.a")),
            Err(NameError::TooManyTokens)
        );
        for name in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(Topic::new(name), Err(NameError::EmptyToken), "{name:?}");
            assert_eq!(Filter::new(name), Err(NameError::EmptyToken), "{name:?}");
        }
        for (name, character) in [
            ("a b", ' '),
            ("a\u{a0}", '\u{a0}'),
            ("a\0", '\0'),
            ("\u{9f}", '\u{9f}'),
        ] {
            let refused = NameError::Character(character);
            assert_eq!(Topic::new(name), Err(refused), "{name:?}");
            assert_eq!(Filter::new(name), Err(refused), "{name:?}");
        }
        assert!(Topic::new("preise.é.日本").is_ok());
    }

    #[test]
    fn wildcards_stand_alone_and_only_in_filters() {
        assert_eq!(Topic::new("a.*"), Err(NameError::Character('*')));
        assert_eq!(Topic::new(">"), Err(NameError::Character('>')));
        for name in ["*", ">", "a.*.b", "*.*", "a.>", "*.>"] {
            assert!(Filter::new(name).is_ok(), "{name}");
        }
        assert_eq!(Filter::new(">.a"), Err(NameError::Character('>')));
        assert_eq!(Filter::new("a*"), Err(NameError::Character('*')));
    }

    #[test]
    fn filters_match_token_by_token() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a", "a.b", false),
            ("a.b", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*", "a.b", false),
        ];
        for (pattern, topic, matches) in cases {
            assert_eq!(filter(pattern).matches(topic), matches, "{pattern} {topic}");
        }
    }

    #[test]
    fn a_filter_covers_another_only_if_it_matches_all_that_the_other_can() {
        let cases = [
            (">", ">", true),
            (">", "a.*", true),
            ("a.>", "a.*", true),
            ("a.>", "a.>", true),
            ("a.>", ">", false),
            ("a.>", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.>", false),
            ("*.b", "*.b", true),
            ("a.b", "a.*", false),
            ("*.*", "*", false),
        ];
        for (mine, theirs, covers) in cases {
            assert_eq!(
                filter(mine).covers(&filter(theirs)),
                covers,
                "{mine} {theirs}"
            );
        }
    }
}
