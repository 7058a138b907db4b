//! The rules of `--rules`: which of a client's messages a new connection upstream needs.
//!
//! A rule looks at fields of a text message that is JSON. The first rule that matches decides. A message
//! that no rule matches passes too, but then nobody knows after a cut whether upstream has it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use unstall::Message;

use super::limits;
use crate::failure::Failure;

/// What a rule file says.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Each subscription that is sent again begins with everything that its client has to know, so
    /// nothing of upstream's is missing after a reconnect.
    pub(super) snapshot: bool,
    /// The time between two messages that are sent again.
    pub(super) pause: Duration,
    /// What upstream sends first on each connection. On later ones it is waited for, and not passed.
    pub(super) greeting: Option<Fields>,
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// It matches a client's first message only.
    first: bool,
    when: Fields,
    pub(super) act: Act,
    /// The fields that make the key.
    pub(super) key: Vec<String>,
    /// Lists, such as channels. Each element, or combination of elements, has a key of its own.
    pub(super) each: Vec<String>,
    /// How upstream confirms the message. Once it was sent again, that is waited for, and not passed.
    pub(super) answer: Option<Fields>,
}

/// What happens with a message that matches. The number is that of a group of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Remember it under its key, in the place of an earlier one. `merge`: put its fields over those of
    /// the earlier one.
    Remember {
        group: usize,
        merge: bool,
    },
    Forget {
        group: usize,
    },
    /// Nothing: it does no harm if upstream does not get it.
    MayBeLost,
}

/// Fields of a message: JSON pointers (RFC 6901), and the values that they must have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(BTreeMap<String, Value>);

/// A message, and the rule that it matches.
#[derive(Debug)]
pub(super) struct Match<'r> {
    pub(super) number: usize,
    pub(super) rule: &'r Rule,
    /// `Null` if it is not JSON.
    pub(super) document: Value,
}

/// The file, as TOML has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    snapshot: bool,
    replays_per_second: Option<u32>,
    greeting: Option<BTreeMap<String, Value>>,
    #[serde(default, rename = "rule")]
    rules: Vec<RuleOfFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleOfFile {
    #[serde(default)]
    first: bool,
    #[serde(default)]
    when: BTreeMap<String, Value>,
    remember: Option<String>,
    forget: Option<String>,
    #[serde(default)]
    may_be_lost: bool,
    #[serde(default)]
    merge: bool,
    #[serde(default)]
    key: Vec<String>,
    #[serde(default)]
    each: Vec<String>,
    answer: Option<BTreeMap<String, Value>>,
}

impl Rules {
    /// Reads a rule file.
    pub(super) fn read(path: &Path) -> Result<Rules, Failure> {
        let of_file =
            |why: String| Failure::usage(format!("the rules in {}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|why| of_file(why.to_string()))?;
        Rules::parse(&text).map_err(of_file)
    }

    pub(super) fn parse(text: &str) -> Result<Rules, String> {
        let file: File = toml::from_str(text).map_err(|why| why.to_string())?;
        let mut groups = Groups::default();
        let rules = (1..).zip(file.rules).map(|(number, rule)| {
            let rule = rule.checked(&mut groups);
            rule.map_err(|why| format!("rule {number}: {why}"))
        });
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        groups.check()?;
        let pause = match file.replays_per_second {
            None => Duration::ZERO,
            Some(0) => return Err("replays_per_second must be at least 1".to_owned()),
            Some(rate) => Duration::from_secs(1) / rate,
        };
        let greeting = file.greeting.map(Fields::checked).transpose();
        Ok(Rules {
            snapshot: file.snapshot,
            pause,
            greeting: greeting.map_err(|why| format!("greeting: {why}"))?,
            rules,
        })
    }

    /// The first rule that matches. `first`: it is the first message of its client.
    pub(super) fn matching(&self, message: &Message, first: bool) -> Option<Match<'_>> {
        if self.rules.is_empty() {
            return None;
        }
        let document = document(message);
        let rules = self.rules.iter().enumerate();
        let mut rules = rules.filter(|(_, rule)| first || !rule.first);
        let (number, rule) = rules.find(|(_, rule)| match &document {
            Some(document) => rule.when.are_in(document),
            None => rule.when.0.is_empty() && message.is_text(),
        })?;
        Some(Match {
            number,
            rule,
            document: document.unwrap_or_default(),
        })
    }

    pub(super) fn rule(&self, number: usize) -> &Rule {
        &self.rules[number]
    }
}

/// A text message as JSON. `None` if it is none, or too long to be looked at.
fn document(message: &Message) -> Option<Value> {
    let looked_at = message.is_text() && message.len() <= limits::REMEMBERED_BYTES;
    looked_at.then(|| serde_json::from_slice(message.as_bytes()).ok())?
}

impl RuleOfFile {
    fn checked(self, groups: &mut Groups) -> Result<Rule, String> {
        let act = match (&self.remember, &self.forget, self.may_be_lost) {
            (Some(name), None, false) => Act::Remember {
                group: groups.remembered(name, self.shape())?,
                merge: self.merge,
            },
            (None, Some(name), false) => Act::Forget {
                group: groups.forgotten(name, self.shape())?,
            },
            (None, None, true) => Act::MayBeLost,
            _ => return Err("write one of remember, forget and may_be_lost".to_owned()),
        };
        if !self.first && self.when.is_empty() {
            return Err("say which messages it is for, by `when` or by `first = true`".to_owned());
        }
        let remembers = matches!(act, Act::Remember { .. });
        if !remembers && (self.merge || self.answer.is_some()) {
            return Err("merge and answer are for a rule with remember".to_owned());
        }
        if self.merge && !self.each.is_empty() {
            return Err("merge and each do not go together".to_owned());
        }
        if act == Act::MayBeLost && self.shape() != (0, 0) {
            return Err("key and each are for a rule with remember or forget".to_owned());
        }
        for pointer in self.key.iter().chain(&self.each) {
            check_pointer(pointer)?;
        }
        let answer = self.answer.map(Fields::checked).transpose();
        Ok(Rule {
            first: self.first,
            when: Fields::new(self.when).map_err(|why| format!("when: {why}"))?,
            act,
            key: self.key,
            each: self.each,
            answer: answer.map_err(|why| format!("answer: {why}"))?,
        })
    }

    /// How many fields make a key.
    fn shape(&self) -> (usize, usize) {
        (self.key.len(), self.each.len())
    }
}

/// The groups of keys, and how many fields a key of each has.
#[derive(Debug, Default)]
struct Groups(Vec<Group>);

#[derive(Debug)]
struct Group {
    name: String,
    shape: (usize, usize),
    remembered: bool,
}

impl Groups {
    fn remembered(&mut self, name: &str, shape: (usize, usize)) -> Result<usize, String> {
        let group = self.numbered(name, shape)?;
        self.0[group].remembered = true;
        Ok(group)
    }

    fn forgotten(&mut self, name: &str, shape: (usize, usize)) -> Result<usize, String> {
        self.numbered(name, shape)
    }

    fn numbered(&mut self, name: &str, shape: (usize, usize)) -> Result<usize, String> {
        let Some(group) = self.0.iter().position(|group| group.name == name) else {
            self.0.push(Group {
                name: name.to_owned(),
                shape,
                remembered: false,
            });
            return Ok(self.0.len() - 1);
        };
        match self.0[group].shape == shape {
            true => Ok(group),
            false => Err(format!(
                "all rules of {name:?} need as many fields in key, and as many in each"
            )),
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.0.iter().find(|group| !group.remembered) {
            None => Ok(()),
            Some(Group { name, .. }) => Err(format!("no rule remembers {name:?}")),
        }
    }
}

impl Fields {
    fn new(fields: BTreeMap<String, Value>) -> Result<Fields, String> {
        for (pointer, value) in &fields {
            check_pointer(pointer)?;
            if value.is_object() || value.is_array() {
                return Err(format!(
                    "the value of {pointer:?} must be a text, a number, true or false"
                ));
            }
        }
        Ok(Fields(fields))
    }

    /// Fields that match not everything.
    fn checked(fields: BTreeMap<String, Value>) -> Result<Fields, String> {
        match fields.is_empty() {
            true => Err("name at least one field".to_owned()),
            false => Fields::new(fields),
        }
    }

    fn are_in(&self, document: &Value) -> bool {
        let mut fields = self.0.iter();
        fields.all(|(pointer, value)| {
            let found = document.pointer(pointer);
            found.is_some_and(|found| is_same(found, value))
        })
    }

    /// Whether a message has them.
    pub(super) fn match_message(&self, message: &Message) -> bool {
        document(message).is_some_and(|document| self.are_in(&document))
    }
}

/// Numbers are the same if their values are.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.is_number() && one.as_f64().is_some_and(|it| other.as_f64() == Some(it))
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    match pointer.is_empty() || pointer.starts_with('/') {
        true => Ok(()),
        false => Err(format!(
            "{pointer:?} is not a JSON pointer: write \"/{pointer}\", or \"\" for the whole message"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KRAKEN: &str = r#"
        replays_per_second = 4
        greeting = { "/channel" = "status" }

        [[rule]]
        first = true
        remember = "login"
        answer = { "/ok" = true, "/code" = 200 }

        [[rule]]
        when = { "/method" = "subscribe" }
        remember = "subscriptions"
        key = ["/params/channel"]
        each = ["/params/symbol"]

        [[rule]]
        when = { "/method" = "unsubscribe" }
        forget = "subscriptions"
        key = ["/params/channel"]
        each = ["/params/symbol"]

        [[rule]]
        when = { "/method" = "ping", "/params/0" = 7 }
        may_be_lost = true
    "#;

    fn number(rules: &Rules, text: &str, first: bool) -> Option<usize> {
        let found = rules.matching(&Message::text(text), first);
        found.map(|found| found.number)
    }

    #[test]
    fn the_first_rule_whose_fields_are_in_a_message_decides() {
        let rules = Rules::parse(KRAKEN).unwrap();
        assert_eq!(rules.pause, Duration::from_millis(250));
        assert!(!rules.snapshot);
        let subscribe = r#"{"method": "subscribe", "params": {}}"#;
        assert_eq!(number(&rules, subscribe, false), Some(1));
        assert_eq!(
            number(&rules, subscribe, true),
            Some(0),
            "the first message"
        );
        assert_eq!(number(&rules, "user:password", true), Some(0));
        assert_eq!(number(&rules, "user:password", false), None);
        assert_eq!(
            number(&rules, r#"{"method":"ping","params":[7.0]}"#, false),
            Some(3)
        );
        for other in [
            r#"{"method":"ping","params":[7.5]}"#,
            r#"{"method":"ping","params":["7"]}"#,
            r#"{"method":["subscribe"]}"#,
            r#"{"Method":"subscribe"}"#,
            r#"{"method":"subscribe""#,
            r#"[{"method":"subscribe"}]"#,
            "",
            "\"subscribe\"",
        ] {
            assert_eq!(number(&rules, other, false), None, "{other}");
        }
    }

    #[test]
    fn binary_messages_and_those_that_are_too_long_match_no_rule() {
        let rules = Rules::parse(KRAKEN).unwrap();
        let subscribe = r#"{"method":"subscribe"}"#;
        let binary = Message::binary(subscribe.as_bytes().to_vec());
        assert!(rules.matching(&binary, false).is_none());
        assert!(rules.matching(&binary, true).is_none());
        let spaces = " ".repeat(limits::REMEMBERED_BYTES - subscribe.len());
        assert_eq!(
            number(&rules, &format!("{subscribe}{spaces}"), false),
            Some(1)
        );
        assert_eq!(
            number(&rules, &format!("{subscribe} {spaces}"), false),
            None
        );
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(number(&rules, &nested, false), None);
    }

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_with_the_rule_that_is_wrong() {
        let subscribe = r#"when = { "/a" = 1 }"#;
        for (text, why) in [
            (format!("[[rule]]\n{subscribe}"), "rule 1: write one of"),
            (
                format!("[[rule]]\n{subscribe}\nremember = 'a'\nforget = 'a'"),
                "rule 1: write one of",
            ),
            ("[[rule]]\nremember = 'a'".to_owned(), "rule 1: say which"),
            (
                format!("[[rule]]\n{subscribe}\nforget = 'a'"),
                "no rule remembers \"a\"",
            ),
            (
                format!(
                    "[[rule]]\n{subscribe}\nremember = 'a'\n[[rule]]\n{subscribe}\nforget = 'a'\nkey = ['/b']"
                ),
                "rule 2: all rules of \"a\"",
            ),
            (
                "[[rule]]\nwhen = { a = 1 }\nremember = 'a'".to_owned(),
                "write \"/a\"",
            ),
            (
                "[[rule]]\nwhen = { '/a' = [1] }\nremember = 'a'".to_owned(),
                "must be a text, a number",
            ),
            (
                format!("[[rule]]\n{subscribe}\nremember = 'a'\nanswer = {{}}"),
                "rule 1: answer: name at least one field",
            ),
            (
                format!("[[rule]]\n{subscribe}\nmay_be_lost = true\nmerge = true"),
                "rule 1: merge and answer",
            ),
            (
                format!("[[rule]]\n{subscribe}\nremember = 'a'\nmerge = true\neach = ['/b']"),
                "merge and each",
            ),
            (
                format!("[[rule]]\n{subscribe}\nmay_be_lost = true\nkey = ['/b']"),
                "rule 1: key and each",
            ),
            (
                format!("[[rule]]\n{subscribe}\nrember = 'a'"),
                "unknown field `rember`",
            ),
            ("replays_per_second = 0".to_owned(), "at least 1"),
            ("greeting = {}".to_owned(), "greeting: name"),
            ("snapshot = 'yes'".to_owned(), "boolean"),
        ] {
            let told = Rules::parse(&text).unwrap_err();
            assert!(told.contains(why), "{text}\n{told}");
        }
        assert!(Rules::parse("").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_matches_as_its_fields_say(text in ".{0,60}", value in any::<i64>(), nested: bool) {
            let rules = Rules::parse("[[rule]]\nwhen = { '/a/0' = 5 }\nmay_be_lost = true").unwrap();
            // Whatever it is, it is read without a panic.
            let _ = number(&rules, &text, true);
            let inner = if nested { serde_json::json!([value]) } else { serde_json::json!({ "0": value }) };
            let document = serde_json::json!({ "a": inner, "b": text });
            let matches = number(&rules, &document.to_string(), false).is_some();
            prop_assert_eq!(matches, value == 5);
        }
    }
}
