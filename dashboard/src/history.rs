//! The last 15 minutes: a point for each second.

use std::collections::VecDeque;

use serde::Serialize;
use unstall::{
    StallCause,
    status::{Recovery, Totals},
};

use crate::{
    json::{Rates, millis, per_second, span},
    limits::{HISTORY, POINTS},
};

/// A second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    at: u64,
    connections: usize,
    #[serde(flatten)]
    rates: Rates,
    stalled: [f32; StallCause::ALL.len()],
}

/// A connection that was made again.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Recovered {
    at: u64,
    ms: f64,
    connection: u64,
}

impl From<Recovery> for Recovered {
    fn from(it: Recovery) -> Recovered {
        Recovered {
            at: millis(it.at),
            ms: it.after.as_secs_f64() * 1e3,
            connection: it.connection,
        }
    }
}

impl Point {
    /// What has changed between two sums, `seconds` apart.
    pub(crate) fn between(at: u64, before: &Totals, after: &Totals, seconds: f64) -> Point {
        let waits = before.stalled.iter().zip(&after.stalled);
        let mut stalled = [0.0; StallCause::ALL.len()];
        for (share, (before, after)) in stalled.iter_mut().zip(waits) {
            let waited = after.1.saturating_sub(before.1).as_secs_f64();
            *share = per_second(waited, seconds) as f32;
        }
        Point {
            at,
            connections: after.open + after.connecting + after.closing,
            rates: Rates::between(before, after, seconds),
            stalled,
        }
    }

    pub(crate) fn rates(&self) -> Rates {
        self.rates
    }
}

/// At most [`POINTS`] points, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Point>);

impl History {
    pub(crate) fn push(&mut self, point: Point) {
        let begin = point.at.saturating_sub(span(HISTORY));
        while self.0.len() >= POINTS || self.0.front().is_some_and(|first| first.at < begin) {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = &Point> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_keeps_the_newest() {
        let mut history = History::default();
        let totals = Totals::default();
        for at in 0..POINTS as u64 + 50 {
            history.push(Point::between(at, &totals, &totals, 1.0));
        }
        assert_eq!(history.points().count(), POINTS);
        assert_eq!(history.points().next().map(|it| it.at), Some(50));
        // Points further apart are fewer, and cover no more time.
        let later = 10 * span(HISTORY);
        history.push(Point::between(later, &totals, &totals, 5.0));
        history.push(Point::between(later + 5_000, &totals, &totals, 5.0));
        assert_eq!(history.points().count(), 2);
    }

    #[test]
    fn a_point_has_what_changed_in_its_second() {
        let before = Totals::default();
        let mut after = Totals::default();
        after.messages_sent = 30;
        after.stalled[0].1 = std::time::Duration::from_secs(4);
        let point = Point::between(0, &before, &after, 2.0);
        let json = serde_json::to_value(point).unwrap();
        assert_eq!(json["messages_sent"], 15.0);
        assert_eq!(json["stalled"][0], 2.0);
        // A clock that stands still divides by nothing.
        let json = serde_json::to_value(Point::between(0, &before, &after, 0.0)).unwrap();
        assert_eq!(json["messages_sent"], 0.0);
    }
}
