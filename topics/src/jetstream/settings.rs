//! What a stream has to be so that it is a log, and how one is made.

use serde_json::{Map, Value, json};

use super::{builder::NewStream, limits::MIN_DUPLICATE_WINDOW, subjects::Subjects};

/// Under this name the stream's metadata has the log's id: 32 hexadecimal digits.
pub(super) const ID: &str = "unstall-log";

/// What a setting may be.
enum Must {
    /// Exactly this.
    Be(Value),
    /// Absent, false, empty or zero.
    BeOff,
    /// Without a limit.
    BeUnlimited,
}

/// The settings that a log depends on, with what goes wrong otherwise. Settings that are not here are
/// free: limits in bytes and age, replicas, storage, compression, placement.
fn demands() -> Vec<(&'static str, Must, &'static str)> {
    use Must::{Be, BeOff, BeUnlimited};
    vec![
        (
            "retention",
            Be(json!("limits")),
            "messages would go once they are read",
        ),
        (
            "discard",
            Be(json!("old")),
            "the stream would refuse new messages when it is full",
        ),
        (
            "max_msgs",
            BeUnlimited,
            "retention is by bytes and age alone",
        ),
        (
            "max_msgs_per_subject",
            BeUnlimited,
            "it makes holes in the log",
        ),
        (
            "discard_new_per_subject",
            BeOff,
            "it makes holes in the log",
        ),
        (
            "deny_delete",
            Be(json!(true)),
            "deleting makes holes in the log",
        ),
        (
            "deny_purge",
            Be(json!(true)),
            "purging a subject makes holes in the log",
        ),
        (
            "allow_rollup_hdrs",
            BeOff,
            "a rollup makes holes in the log",
        ),
        (
            "allow_msg_ttl",
            BeOff,
            "a message with a time to live makes a hole in the log",
        ),
        (
            "subject_delete_marker_ttl",
            BeOff,
            "it adds messages that nobody published",
        ),
        ("allow_msg_schedules", BeOff, "a schedule replaces messages"),
        (
            "allow_msg_counter",
            BeOff,
            "a counter changes what is published",
        ),
        (
            "no_ack",
            BeOff,
            "nobody would know whether a message is stored",
        ),
        (
            "persist_mode",
            BeOff,
            "messages would be confirmed before they are written",
        ),
        ("sealed", BeOff, "nothing can be published"),
        ("mirror", BeOff, "nothing can be published"),
        (
            "sources",
            BeOff,
            "messages of other streams are not of this log",
        ),
        ("subject_transform", BeOff, "topics would change"),
        (
            "max_consumers",
            BeUnlimited,
            "each reader of a filter needs a consumer for a while",
        ),
    ]
}

impl Must {
    fn holds(&self, value: Option<&Value>) -> bool {
        let off = match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::String(text)) => text.is_empty() || text == "default",
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Number(number)) => number.as_i64() == Some(0),
            Some(Value::Object(_) | Value::Bool(true)) => false,
        };
        match self {
            Must::Be(wanted) => value == Some(wanted),
            Must::BeOff => off,
            Must::BeUnlimited => off || value.and_then(Value::as_i64).is_some_and(|n| n < 0),
        }
    }

    fn text(&self) -> String {
        match self {
            Must::Be(value) => value.to_string(),
            Must::BeOff => "off".into(),
            Must::BeUnlimited => "unlimited (-1)".into(),
        }
    }
}

/// What is wrong with a stream's settings. Empty if it can be a log.
pub(super) fn faults(config: &Map<String, Value>) -> Vec<String> {
    let mut faults: Vec<String> = demands()
        .into_iter()
        .filter(|(name, must, _)| !must.holds(config.get(*name)))
        .map(|(name, must, why)| {
            let is = config.get(name).unwrap_or(&Value::Null);
            format!("{name} is {is}, has to be {}: {why}", must.text())
        })
        .collect();
    if duplicate_window(config) < MIN_DUPLICATE_WINDOW.as_nanos() as u64 {
        faults.push(format!(
            "duplicate_window has to be at least {} s: what is published again within it is stored once",
            MIN_DUPLICATE_WINDOW.as_secs()
        ));
    }
    faults
}

/// The stream's only subject.
pub(super) fn subjects(config: &Map<String, Value>) -> Result<Subjects, String> {
    match config
        .get("subjects")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        Some([Value::String(subject)]) => Subjects::of_stream(subject),
        other => Err(format!(
            "the stream has to have one subject, PREFIX.>; it has {}",
            Value::from(other.unwrap_or_default().to_vec())
        )),
    }
}

/// How long the stream remembers message ids, in nanoseconds.
pub(super) fn duplicate_window(config: &Map<String, Value>) -> u64 {
    number(config, "duplicate_window").unwrap_or(0)
}

/// The log's id in the metadata.
pub(super) fn id(config: &Map<String, Value>) -> Option<&str> {
    config.get("metadata")?.get(ID)?.as_str()
}

/// A setting that is a number, and not negative.
pub(super) fn number(config: &Map<String, Value>, name: &str) -> Option<u64> {
    config.get(name).and_then(Value::as_u64)
}

/// The settings of a new stream.
pub(super) fn new_stream(name: &str, subjects: &Subjects, id: &str, new: &NewStream) -> Value {
    json!({
        "name": name,
        "description": "a log of unstall-topics",
        "subjects": [subjects.all()],
        "retention": "limits",
        "discard": "old",
        "storage": if new.in_memory { "memory" } else { "file" },
        "num_replicas": new.replicas,
        "max_bytes": new.max_bytes.map_or(-1, |bytes| bytes.min(i64::MAX as u64) as i64),
        "max_age": new.max_age.map_or(0, |age| age.as_nanos().min(i64::MAX as u128) as i64),
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "duplicate_window": new.duplicate_window.as_nanos() as u64,
        "deny_delete": true,
        "deny_purge": true,
        "allow_rollup_hdrs": false,
        "metadata": { ID: id },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Map<String, Value> {
        let subjects = Subjects::new("log").unwrap();
        match new_stream("LOG", &subjects, "00", &NewStream::default()) {
            Value::Object(config) => config,
            _ => unreachable!("it is an object"),
        }
    }

    #[test]
    fn a_stream_that_is_made_here_can_be_a_log() {
        assert_eq!(faults(&good()), Vec::<String>::new());
        assert_eq!(subjects(&good()).unwrap().prefix(), "log");
    }

    #[test]
    fn each_setting_that_makes_holes_is_refused_by_name() {
        for (name, value) in [
            ("retention", json!("workqueue")),
            ("discard", json!("new")),
            ("max_msgs", json!(1_000_000)),
            ("max_msgs_per_subject", json!(1)),
            ("deny_delete", json!(false)),
            ("deny_purge", Value::Null),
            ("allow_rollup_hdrs", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("no_ack", json!(true)),
            ("persist_mode", json!("async")),
            ("sources", json!([{ "name": "OTHER" }])),
            ("mirror", json!({ "name": "OTHER" })),
            ("duplicate_window", json!(1_000_000_000)),
        ] {
            let mut config = good();
            config.insert(name.into(), value);
            let faults = faults(&config);
            assert_eq!(faults.len(), 1, "{name}: {faults:?}");
            assert!(faults[0].starts_with(name), "{faults:?}");
        }
    }

    #[test]
    fn limits_in_bytes_and_age_are_free() {
        let mut config = good();
        config.insert("max_bytes".into(), json!(1_000_000));
        config.insert("max_age".into(), json!(1_000_000_000));
        config.insert("num_replicas".into(), json!(3));
        assert_eq!(faults(&config), Vec::<String>::new());
    }
}
