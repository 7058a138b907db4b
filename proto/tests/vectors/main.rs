//! The wire vectors in `vectors/`: every packet, and whole sessions. `vectors/README.md` describes
//! the formats. With `UNSTALL_VECTORS=write` the expectations are written anew.

mod packets;
mod runner;
mod sessions;

use std::path::PathBuf;

use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../vectors")
        .join(name)
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).expect("the vectors are there");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

/// Whether the expectations are to be written anew.
fn writing() -> bool {
    std::env::var("UNSTALL_VECTORS").is_ok_and(|mode| mode == "write")
}

/// Writes the expectations if they are to be written.
fn written(name: &str, value: &Value) -> bool {
    let write = writing();
    if write {
        let text = serde_json::to_string_pretty(value).expect("a value is JSON");
        std::fs::write(path(name), text + "\n").expect("the vectors can be written");
    }
    write
}
