//! Every round's raw numbers.

use std::{fs::File, io::BufWriter, path::Path};

use serde::Serialize;

use crate::{Result, machine::Machine, round::Case};

#[derive(Serialize)]
struct Document<'a> {
    command: Vec<String>,
    machine: &'a Machine,
    cases: &'a [Case],
}

pub(crate) fn write(path: &Path, machine: &Machine, cases: &[Case]) -> Result<()> {
    let document = Document {
        command: std::env::args().skip(1).collect(),
        machine,
        cases,
    };
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::to_writer_pretty(
        BufWriter::new(file),
        &document,
    )?)
}
