//! The vectors of topics in `vectors/topics-*.json`, which the second implementation in Python
//! writes (`vectors/check.py --write`): packets and names, whole exchanges, and what a log answers.
//! `vectors/README.md` describes the formats.

mod answers;
mod exchanges;
mod log;
mod malformed;
mod names;
mod packets;
mod words;

use serde_json::{Value, json};

fn read(name: &str) -> Value {
    let path = format!("{}/../vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the vectors are there");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits");
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The bytes of `hex`, and behind them one byte many times if there is `repeat`.
fn bytes(vector: &Value) -> Vec<u8> {
    let mut bytes = unhex(text(&vector["hex"]));
    if vector["repeat"].is_object() {
        bytes.extend(repeated(&vector["repeat"]));
    }
    bytes
}

fn repeated(repeat: &Value) -> Vec<u8> {
    match repeat["text"].as_str() {
        Some(one) => one.repeat(number(&repeat["times"]) as usize).into_bytes(),
        None => vec![number(&repeat["byte"]) as u8; number(&repeat["length"]) as usize],
    }
}

/// Bytes as `hex`, or as `repeat` if they are long.
fn hex_or_repeat(name: &str, payload: &[u8]) -> (String, Value) {
    if payload.len() <= 64 {
        return (name.to_owned(), json!(hex(payload)));
    }
    let same = payload.iter().all(|byte| *byte == payload[0]);
    assert!(same, "long payloads of the vectors repeat one byte");
    let repeat = json!({ "byte": payload[0], "length": payload.len() });
    ("repeat".to_owned(), repeat)
}
