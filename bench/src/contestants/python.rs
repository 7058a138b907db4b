//! Python's websockets. Its worker is a program of its own, `bench/python_worker.py`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::Contestant;
use crate::engine::Batching;

pub(crate) const NAME: &str = "websockets";

pub(crate) const WEBSOCKETS: Contestant = Contestant {
    name: NAME,
    how: "Python's websockets: `await send()` and `await recv()`, with permessage-deflate; a twentieth \
        of the messages",
    batching: Batching::Naive,
    cannot,
};

/// The Python that has it. `None` inside: it cannot be installed here.
static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Installs it from PyPI if it is not there. To be called before the suite enters its own network.
pub(crate) fn prepare() {
    PYTHON.get_or_init(install);
}

fn install() -> Option<PathBuf> {
    let root = root();
    let output = Command::new(root.join("interop/venv"))
        .stderr(Stdio::inherit())
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| root.join(path.trim()))
}

fn cannot(_workload: &str) -> Option<&'static str> {
    match PYTHON.get() {
        Some(Some(_)) => None,
        _ => Some("it cannot be installed here"),
    }
}

/// The worker's command, without its job.
pub(crate) fn worker() -> Option<Command> {
    let mut command = Command::new(PYTHON.get()?.as_ref()?);
    command.arg(root().join("bench/python_worker.py"));
    Some(command)
}

fn root() -> &'static Path {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.parent().unwrap_or(bench)
}
