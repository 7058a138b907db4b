//! One connection: what it does, what happened to it, and the doctor's verdict.

use std::time::SystemTime;

use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use unstall::{Event, doctor::Diagnosis, status};

use crate::{
    json::{Row, VERSION, cut, millis, span},
    limits::{DOCTOR_AGAIN, EVENT_CHARS},
};

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct One {
    version: u32,
    now: u64,
    connection: Option<Row>,
    events: Vec<Happened>,
    doctor: Option<Verdict>,
}

#[derive(Debug, Serialize)]
struct Happened {
    at: u64,
    kind: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct Verdict {
    verdict: &'static str,
    sentence: String,
    advice: String,
    for_ms: u64,
}

/// The doctor's findings. The doctor looks at all sockets at once, so one look serves all who ask.
#[derive(Debug, Default)]
pub(crate) struct Surgery {
    /// It is held while the doctor looks: who comes meanwhile waits for the same findings.
    last: Mutex<Option<(Instant, Vec<Diagnosis>)>>,
}

impl Surgery {
    async fn verdict(&self, id: u64) -> Option<Verdict> {
        let mut last = self.last.lock().await;
        let fresh = last.as_ref();
        let fresh = fresh.is_some_and(|(at, _)| at.elapsed() < DOCTOR_AGAIN);
        if !fresh {
            let diagnoses = unstall::doctor().await;
            *last = Some((Instant::now(), diagnoses));
        }
        let (_, diagnoses) = last.as_ref()?;
        let finding = diagnoses.iter().find(|it| it.id == id)?.finding.as_ref()?;
        Some(Verdict {
            verdict: finding.verdict.code(),
            sentence: finding.sentence.clone(),
            advice: finding.advice.clone(),
            for_ms: span(finding.since),
        })
    }

    /// What is known of a connection. `None`: nothing.
    pub(crate) async fn look(&self, id: u64) -> Option<One> {
        status::events(id)?;
        let doctor = match status::connection(id) {
            Some(_) => self.verdict(id).await,
            None => None,
        };
        let now = millis(SystemTime::now());
        let events = status::events(id)?;
        Some(One {
            version: VERSION,
            now,
            connection: status::connection(id).map(|it| Row::new(&it, now)),
            events: events.iter().map(Happened::new).collect(),
            doctor,
        })
    }
}

impl Happened {
    fn new((at, event): &(SystemTime, Event)) -> Happened {
        Happened {
            at: millis(*at),
            kind: kind(event),
            text: cut(&event.to_string(), EVENT_CHARS),
        }
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Connected { .. } => "connected",
        Event::Disconnected { .. } => "disconnected",
        Event::SessionOpened => "session_opened",
        Event::SessionNotSpoken => "session_not_spoken",
        Event::Resumed { .. } => "resumed",
        Event::SessionLost { .. } => "session_lost",
        Event::UndeliveredDropped { .. } => "undelivered_dropped",
        Event::GoAway { .. } => "go_away",
        Event::AttemptFailed { .. } => "attempt_failed",
        Event::Reconnecting { .. } => "reconnecting",
        Event::Overflow { .. } => "overflow",
        Event::SpillFailed { .. } => "spill_failed",
        Event::Stalled { .. } => "stalled",
        Event::Moving { .. } => "moving",
        Event::Expired { .. } => "expired",
        Event::PeerClosed(_) => "peer_closed",
        Event::Ended { .. } => "ended",
        Event::Missed(_) => "missed",
        _ => "other",
    }
}
