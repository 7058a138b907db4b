//! Looks at the process each second. Connections are looked at one by one only while somebody watches.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};
use unstall::status::{self, Totals};
use unstall_topics::{Kind, Log, Position, Publication, Topic};

use crate::{
    changes,
    history::{History, Point, Recovered},
    json::{Now, Rates, millis},
    limits::{AWAKE, IDLE_SHARE, IDLE_STEP, STEP, SUBSCRIPTIONS_A_MESSAGE},
    look::{Seen, Subject},
};

/// What the sampler knows.
#[derive(Debug)]
pub(crate) struct Sampler {
    subject: Subject,
    /// The log of live messages.
    pub(crate) live: Log,
    state: Mutex<State>,
    /// How many pages are connected.
    pub(crate) viewers: Arc<AtomicUsize>,
    /// One looks at a time. It is held over the look, and no answer waits for it that has something to say.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    history: History,
    /// The sums of the last look, and when it was.
    last: (Instant, Totals),
    rates: Rates,
    /// When to look again while nobody watches.
    due: Instant,
    /// The number of the last recovery that was published.
    recovered: u64,
    awake_until: Option<Instant>,
    /// What the live messages go on from. `None` while nobody watches.
    seen: Option<Arc<Seen>>,
}

/// A message of `status.now`.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    now: &'a Now,
    point: Point,
    recoveries: Vec<Recovered>,
}

impl Sampler {
    pub(crate) fn new(subject: Subject, live: Log) -> Arc<Sampler> {
        let state = State {
            history: History::default(),
            last: (Instant::now(), status::totals()),
            rates: Rates::default(),
            due: Instant::now(),
            recovered: 0,
            awake_until: None,
            seen: None,
        };
        Arc::new(Sampler {
            subject,
            live,
            state: Mutex::new(state),
            viewers: Arc::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, and nothing panics in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen last, or now. Live messages go on behind it.
    pub(crate) async fn seen(&self) -> Arc<Seen> {
        let known = |state: &mut State| {
            state.awake_until = Some(Instant::now() + AWAKE);
            state.seen.clone()
        };
        if let Some(seen) = known(&mut self.state()) {
            return seen;
        }
        let _turn = self.turn.lock().await;
        if let Some(seen) = known(&mut self.state()) {
            return seen;
        }
        let (_, mut seen) = self.subject.look(millis(SystemTime::now())).await;
        seen.position = self.end();
        let mut state = self.state();
        seen.now.rates = state.rates;
        let seen = Arc::new(seen);
        state.seen = Some(seen.clone());
        seen
    }

    /// The last 15 minutes, and what was made again in them.
    pub(crate) fn history(&self) -> (Vec<Point>, Vec<Recovered>) {
        let points = self.state().history.points().copied().collect();
        let recoveries = status::recoveries(0).into_iter();
        (points, recoveries.map(Into::into).collect())
    }

    /// The end of the log of live messages.
    fn end(&self) -> String {
        let bounds = self.live.bounds();
        let position = Position {
            log: self.live.id(),
            offset: bounds.last,
            time: bounds.last_time,
        };
        position.to_string()
    }

    fn is_watched(&self) -> bool {
        let until = self.state().awake_until;
        self.viewers.load(Relaxed) > 0 || until.is_some_and(|until| until > Instant::now())
    }

    async fn tick(&self) {
        let _turn = self.turn.lock().await;
        let at = millis(SystemTime::now());
        if self.is_watched() {
            self.tell(at).await;
            return;
        }
        let begin = Instant::now();
        if self.state().due > begin {
            return;
        }
        // It visits each connection, which takes some milliseconds for 10,000 of them.
        let totals = tokio::task::spawn_blocking(status::totals).await;
        let rest = (begin.elapsed() * IDLE_SHARE).min(IDLE_STEP);
        let mut state = self.state();
        state.seen = None;
        // Half a step earlier, so that the next step is not missed by a moment.
        state.due = begin + rest.saturating_sub(STEP / 2);
        state.note(at, totals.unwrap_or_default());
    }

    /// Looks at each connection, and publishes what has changed.
    async fn tell(&self, at: u64) {
        let (totals, mut seen) = self.subject.look(at).await;
        let messages = {
            let mut state = self.state();
            let point = state.note(at, totals);
            seen.now.rates = point.rates();
            let recoveries = status::recoveries(state.recovered);
            state.recovered = recoveries.last().map_or(state.recovered, |it| it.number);
            let before = state.seen.as_ref().map_or(&[][..], |it| &it.rows);
            changes::settle(before, &mut seen.rows);
            let told = Told {
                now: &seen.now,
                point,
                recoveries: recoveries.into_iter().map(Into::into).collect(),
            };
            let mut messages: Vec<_> = changes::between(before, &seen.rows)
                .iter()
                .filter_map(|it| message("status.rows", it))
                .collect();
            if !seen.subscriptions.is_empty() {
                let most = seen.subscriptions.iter().take(SUBSCRIPTIONS_A_MESSAGE);
                let most: Vec<_> = most.collect();
                messages.extend(message("status.subscriptions", &most));
            }
            messages.extend(message("status.now", &told));
            messages
        };
        let stored = self.live.publish_many(messages).await;
        if let Some(Err(error)) = stored.iter().find(|it| it.is_err()) {
            tracing::warn!(%error, "what a page should see could not be published");
        }
        seen.position = self.end();
        self.state().seen = Some(Arc::new(seen));
    }
}

impl State {
    fn note(&mut self, at: u64, totals: Totals) -> Point {
        let now = Instant::now();
        let (then, before) = &self.last;
        let seconds = now.saturating_duration_since(*then).as_secs_f64();
        let point = Point::between(at, before, &totals, seconds);
        self.rates = point.rates();
        self.last = (now, totals);
        self.history.push(point);
        point
    }
}

fn message(topic: &str, body: &impl Serialize) -> Option<Publication> {
    let text = serde_json::to_vec(body).ok()?;
    Some(Publication::new(Topic::new(topic).ok()?, Kind::Text, text))
}

/// Looks each second, until the dashboard is dropped.
pub(crate) async fn run(sampler: Weak<Sampler>) {
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once, when nothing has happened yet.
    steps.tick().await;
    loop {
        steps.tick().await;
        let Some(sampler) = sampler.upgrade() else {
            return;
        };
        sampler.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use unstall_topics::{Limits, Offset};

    use super::*;
    use crate::json::Process;

    async fn sampler() -> Arc<Sampler> {
        let process = Process {
            name: "test".to_owned(),
            version: String::new(),
            pid: 1,
            started: 0,
        };
        let subject = Subject {
            process,
            log: None,
            node: None,
        };
        Sampler::new(subject, Log::memory(Limits::default()).await.unwrap())
    }

    fn told(sampler: &Sampler) -> Offset {
        sampler.live.bounds().last
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_looked_at_only_while_somebody_watches() {
        let sampler = sampler().await;
        sampler.tick().await;
        assert_eq!(told(&sampler), Offset::START);
        assert!(sampler.state().seen.is_none());

        sampler.seen().await;
        sampler.tick().await;
        let watched = told(&sampler);
        assert!(watched > Offset::START);

        tokio::time::advance(AWAKE).await;
        sampler.tick().await;
        assert_eq!(told(&sampler), watched);
        assert!(sampler.state().seen.is_none());

        // A page that is connected watches for as long as it is.
        sampler.viewers.fetch_add(1, Relaxed);
        sampler.tick().await;
        assert!(told(&sampler) > watched);
        let (points, _) = sampler.history();
        assert_eq!(points.len(), 4);
    }
}
