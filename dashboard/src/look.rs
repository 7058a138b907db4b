//! One look at the process: what an answer is made of.

use std::cmp::Reverse;

use unstall::status::{self, Totals};
use unstall_topics::{Log, Node};

use crate::{
    json::{self, LogNow, Now, Process, Rates, Row, SubscriptionRow, Sums, VERSION},
    limits::ROWS,
};

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) now: Now,
    /// Sorted by id; at most [`ROWS`].
    pub(crate) rows: Vec<Row>,
    /// Those that lag most come first.
    pub(crate) subscriptions: Vec<SubscriptionRow>,
    /// Where the live messages go on behind this.
    pub(crate) position: String,
}

/// Where to look, besides the process.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) process: Process,
    pub(crate) log: Option<Log>,
    pub(crate) node: Option<Node>,
}

impl Subject {
    /// Looks at all connections. The rates are those of the moment before.
    pub(crate) async fn look(&self, at: u64) -> (Totals, Seen) {
        let look = move || {
            let look = status::look();
            let rows = look.connections.iter().map(|it| Row::new(it, at));
            (look.totals, rows.collect::<Vec<_>>())
        };
        // With 10,000 connections it takes the time of a thousand messages.
        let looked = tokio::task::spawn_blocking(look).await;
        let (totals, mut rows) = looked.unwrap_or_default();
        let stalled = rows.iter().filter(|row| row.is_stalled()).count();
        let connections_total = rows.len();
        if rows.len() > ROWS {
            rows.sort_unstable_by_key(|row| (Reverse(row.waits()), row.id));
            rows.truncate(ROWS);
        }
        rows.sort_unstable_by_key(|row| row.id);
        let (subscriptions, subscriptions_total) = self.subscriptions();
        let seen = Seen {
            now: Now {
                version: VERSION,
                now: at,
                process: self.process.clone(),
                totals: Sums::new(&totals, stalled),
                rates: Rates::default(),
                causes: json::causes(&totals),
                server: status::servers().map(Into::into),
                log: self.log.as_ref().map(|log| LogNow::from(log.stats())),
                connections_total,
                subscriptions_total,
            },
            rows,
            subscriptions,
            position: String::new(),
        };
        (totals, seen)
    }

    /// Some of the subscriptions, and how many there are.
    fn subscriptions(&self) -> (Vec<SubscriptionRow>, usize) {
        let Some(node) = &self.node else {
            return (Vec::new(), 0);
        };
        let mut all = node.log().subscriptions();
        // Those within the process are no client's.
        all.retain(|it| it.connection.is_some());
        let total = all.len();
        all.sort_unstable_by_key(|it| Reverse((it.waits_for_credit, it.lag)));
        all.truncate(ROWS);
        (all.iter().map(SubscriptionRow::from).collect(), total)
    }
}
