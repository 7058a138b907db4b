//! `sessions.json`: whole sessions, step by step, with every byte on the wire.

use serde_json::{Map, Value};

use crate::runner::Runner;
use crate::{read, written};

/// The arguments of steps; everything else in a step is a result.
const ARGUMENTS: [&str; 13] = [
    "do", "from", "to", "side", "text", "hex", "repeat", "code", "reason", "within", "millis",
    "epoch", "note",
];

/// The step with its arguments only.
fn arguments(step: &Value) -> Map<String, Value> {
    let step = step.as_object().expect("a step");
    // Of a message's step, `hex` is an argument; results never have that name at the top.
    let known = step
        .iter()
        .filter(|(name, _)| ARGUMENTS.contains(&name.as_str()));
    known
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[test]
fn every_session_of_the_vectors_goes_as_written() {
    let vectors = read("sessions.json");
    let sessions = vectors.as_array().expect("a list");
    assert!(sessions.len() >= 58);
    let mut replayed = Vec::new();
    for session in sessions {
        let mut runner = Runner::new(session);
        let mut steps = Vec::new();
        for step in session["steps"].as_array().expect("steps") {
            let mut step = arguments(step);
            let results = runner.step(&Value::Object(step.clone()));
            step.extend(results);
            steps.push(Value::Object(step));
        }
        let mut session = session.clone();
        session["steps"] = Value::Array(steps);
        replayed.push(session);
    }
    if written("sessions.json", &Value::Array(replayed.clone())) {
        return;
    }
    for (replayed, session) in replayed.iter().zip(sessions) {
        let (steps, expected) = (&replayed["steps"], &session["steps"]);
        for (index, step) in steps.as_array().into_iter().flatten().enumerate() {
            assert_eq!(step, &expected[index], "{}, step {index}", session["name"]);
        }
    }
}
