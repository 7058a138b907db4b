//! Rounds: in each, all contestants run in turn, and each is compared with the reference of its own
//! round. So a slow phase of the machine slows them all.

use std::time::Duration;

use serde::Serialize;

use crate::{
    Result,
    args::Measure,
    contestants::Contestant,
    job::{Job, Outcome, Role},
    process,
    workloads::Workload,
};

/// Much longer than any run takes.
const LIMIT: Duration = Duration::from_secs(60);

/// All runs of one case of a workload.
#[derive(Serialize)]
pub(crate) struct Case {
    pub(crate) workload: &'static str,
    pub(crate) title: String,
    pub(crate) reference: &'static str,
    pub(crate) not_shown: &'static str,
    pub(crate) plan: serde_json::Value,
    pub(crate) entries: Vec<Entry>,
}

/// All runs of one contestant.
#[derive(Serialize)]
pub(crate) struct Entry {
    pub(crate) contestant: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missing: Option<Missing>,
    /// Round by round.
    pub(crate) runs: Vec<Outcome>,
}

/// Why a contestant has no figures.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Missing {
    Cannot(&'static str),
    Failed(String),
}

impl Case {
    /// Whether a contestant failed that should work.
    pub(crate) fn failed(&self) -> bool {
        let failed = |entry: &Entry| matches!(entry.missing, Some(Missing::Failed(_)));
        self.entries.iter().any(failed)
    }

    /// The runs of the reference, round by round.
    pub(crate) fn reference_runs(&self) -> &[Outcome] {
        let mut entries = self.entries.iter();
        entries
            .find(|entry| entry.contestant == self.reference)
            .map_or(&[], |entry| &entry.runs)
    }
}

/// Runs one case of `W` in all rounds.
pub(crate) fn run<W: Workload>(args: &Measure, title: String, plan: W::Plan) -> Result<Case> {
    let plan = match args.quick {
        true => plan,
        false => calibrated::<W>(args, plan)?,
    };
    let mut entries = entries::<W>(args);
    let count = entries.len();
    for round in 0..args.rounds() {
        for turn in 0..count {
            let entry = &mut entries[(round + turn) % count];
            if entry.missing.is_some() {
                continue;
            }
            match once::<W>(args, &plan, entry.contestant) {
                Ok(outcome) => entry.runs.push(outcome),
                Err(error) => {
                    eprintln!("{}, {title}, {}: {error}", W::NAME, entry.contestant);
                    entry.missing = Some(Missing::Failed(error.to_string()));
                }
            }
        }
    }
    Ok(Case {
        workload: W::NAME,
        title,
        reference: W::REFERENCE,
        not_shown: W::NOT_SHOWN,
        plan: serde_json::to_value(&plan)?,
        entries,
    })
}

fn entries<W: Workload>(args: &Measure) -> Vec<Entry> {
    let entry = |contestant: &Contestant| Entry {
        contestant: contestant.name,
        missing: (contestant.cannot)(W::NAME).map(Missing::Cannot),
        runs: Vec::new(),
    };
    W::contestants()
        .iter()
        .filter(|contestant| W::takes_part(contestant))
        .filter(|contestant| args.wants(contestant.name) || contestant.name == W::REFERENCE)
        .map(entry)
        .collect()
}

/// The plan with as many messages as the reference moves in the time wanted.
fn calibrated<W: Workload>(args: &Measure, plan: W::Plan) -> Result<W::Plan> {
    let outcome = once::<W>(args, &plan, W::REFERENCE)?;
    Ok(W::calibrated(plan, &outcome, args.seconds))
}

fn once<W: Workload>(args: &Measure, plan: &W::Plan, name: &'static str) -> Result<Outcome> {
    let mut all = W::contestants().iter();
    let contestant = all.find(|contestant| contestant.name == name);
    let contestant = contestant.expect("it is one of the workload's");
    let job = Job {
        workload: W::NAME.to_owned(),
        contestant: name.to_owned(),
        role: Role::Server,
        runtime: W::RUNTIME,
        core: 0,
        congestion: args.congestion.clone(),
        limit: LIMIT,
        plan: serde_json::to_value(W::plan_for(plan.clone(), contestant))?,
    };
    process::run(&job, W::cores(plan))
}
