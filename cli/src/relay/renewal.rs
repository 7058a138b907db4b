//! When a plain connection upstream is made anew, what it gets first, and what its client is told.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::time::Instant;
use unstall::{
    Backoff, CloseCode, CloseReport, ConnectionError, Reconnect, Sender, defaults::RETRY_AFTER_MAX,
};

use super::{
    door::{Again, Door},
    ending::Farewell,
    leg::{Fresh, Leg},
    limits,
    passing::Relaying,
    pool::{Pool, Pools},
    remembered::Memory,
    rules::Rules,
};
use crate::{
    connect::parse_seconds,
    failure::{Failure, chain},
};

/// What happens when a plain connection upstream is lost
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Renewal {
    /// Make a plain connection upstream again when it is lost, as long as no message has passed on
    /// it. After that, it needs --gap-message, or --rules that say how nothing is missing
    #[arg(long, conflicts_with = "require_session")]
    reconnect: bool,

    /// Make it again even then, and send the client this text where messages may be missing
    #[arg(long, value_name = "TEXT", requires = "reconnect")]
    gap_message: Option<String>,

    /// Remember messages of the client as the rules in this TOML file say, such as subscriptions, and
    /// send them again on a new connection
    #[arg(long, value_name = "FILE", requires = "reconnect")]
    rules: Option<PathBuf>,

    /// Go over to a new plain connection upstream at a quiet moment, before one is so many seconds old:
    /// what the server allows, such as 3600
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "reconnect")]
    max_upstream_age: Option<Duration>,
}

/// The same, ready to be used.
#[derive(Debug)]
pub(super) struct Policy {
    reconnect: bool,
    pub(super) gap_message: Option<String>,
    rules: Option<Arc<Rules>>,
    pub(super) max_age: Option<Duration>,
    pub(super) pools: Pools,
}

impl Renewal {
    /// Reads the rules. `pools`: those of the process.
    pub(super) fn policy(&self, pools: &Pools) -> Result<Policy, Failure> {
        let rules = self.rules.as_deref().map(Rules::read).transpose()?;
        if self
            .max_upstream_age
            .is_some_and(|age| age < limits::SHORTEST_AGE)
        {
            return Err(Failure::usage(
                "--max-upstream-age must be at least 1 second",
            ));
        }
        Ok(Policy {
            reconnect: self.reconnect,
            gap_message: self.gap_message.clone(),
            rules: rules.map(Arc::new),
            max_age: self.max_upstream_age,
            pools: pools.clone(),
        })
    }
}

impl Policy {
    /// What is remembered of one client, if there are rules.
    pub(super) fn memory(&self) -> Option<Memory> {
        let rules = self.rules.clone()?;
        Some(Memory::new(rules, self.pools.remembered.share()))
    }

    pub(super) fn rules(&self) -> Option<&Rules> {
        self.rules.as_deref()
    }

    pub(super) fn is_snapshot(&self) -> bool {
        self.rules().is_some_and(|rules| rules.snapshot)
    }

    /// Whether a plain connection that has ended so is made again.
    pub(super) fn renews(&self, report: &CloseReport) -> bool {
        self.reconnect
            && match (&report.error, &report.peer) {
                // The next one would be as long.
                (Some(error), _) if matches!(**error, ConnectionError::MessageTooLarge { .. }) => {
                    false
                }
                (Some(error), _) if !error.is_retryable() => false,
                (_, Some(close)) => !close.code.is_some_and(is_final),
                _ => true,
            }
    }
}

/// Whether a close code says that the client has to know. Another connection would end the same way, or
/// only the client's program knows what the code means.
fn is_final(code: CloseCode) -> bool {
    matches!(code.as_u16(), 1000 | 1002 | 1003 | 1007..=1010 | 3000..)
}

/// Makes connections upstream, one after the other, until one is ready.
pub(super) struct Redialing<'d> {
    door: &'d Door,
    pool: &'d Pool,
    asked: Again,
    /// What the client and upstream had agreed to.
    subprotocol: Option<String>,
    backoff: Backoff,
    /// How long upstream asked to wait.
    retry_after: Option<Duration>,
}

impl<'d> Redialing<'d> {
    /// In place of this connection.
    pub(super) fn new(
        relaying: Relaying<'d>,
        client: &Sender,
        leg: &Leg,
    ) -> Result<Redialing<'d>, Farewell> {
        let subprotocol = leg.sender.subprotocol();
        let mut backoff = Backoff::new(Reconnect::default());
        let received_any = leg.sender.stats().messages_received > 0;
        backoff.lived(leg.since.elapsed(), received_any);
        let Relaying { door, policy, .. } = relaying;
        Ok(Redialing {
            door,
            pool: &policy.pools.held,
            asked: door.asked_again(client)?,
            subprotocol,
            backoff,
            retry_after: None,
        })
    }

    /// A connection was made, and was of no use.
    pub(super) fn failed(&mut self, leg: &Leg, why: &str) {
        tracing::warn!("the new connection upstream cannot be used: {why}");
        self.backoff.lived(leg.since.elapsed(), false);
    }

    /// Waits before the next attempt.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.backoff.next(self.retry_after.take())).await;
    }

    /// One attempt. `None`: another one may succeed.
    pub(super) async fn attempt(&mut self) -> Result<Option<Fresh>, Farewell> {
        match self.door.reach_again(self.asked.clone()).await {
            Ok(connection)
                if connection.is_session() || connection.subprotocol() == self.subprotocol =>
            {
                Ok(Some(Fresh::of(connection, self.pool)))
            }
            Ok(_) => {
                let why = "upstream does not agree to the same subprotocol again";
                Err(Farewell::new(CloseCode::SERVICE_RESTART, why))
            }
            Err(error) => {
                tracing::warn!("upstream cannot be reached again: {}", chain(&error));
                self.retry_after = error.retry_after().map(|wait| wait.min(RETRY_AFTER_MAX));
                match error.is_retryable() {
                    true => Ok(None),
                    false => Err(Farewell::of_refusal(&error)),
                }
            }
        }
    }
}

/// When a connection goes over to the next one. Each draws its own time, so that a thousand clients do
/// not go at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// When the next one is made, and a quiet moment is waited for.
    pub(super) begin: Instant,
    /// When it is not waited for any longer.
    pub(super) latest: Instant,
    /// How long no message has to pass, so that the moment is a quiet one.
    pub(super) quiet: Duration,
}

impl Plan {
    /// For a connection that is there since then. `random` is between 0 and 1. `None`: never.
    pub(super) fn new(since: Instant, max_age: Duration, random: f64) -> Option<Plan> {
        let begin = max_age.mul_f64(0.8 + 0.1 * random);
        Some(Plan {
            begin: since.checked_add(begin)?,
            // On a feed that is never quiet, this is when connections go. They do not go at once either.
            latest: since.checked_add(begin.saturating_add(max_age / 20))?,
            quiet: limits::QUIET.min(max_age / 40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_connections_go_over_at_different_times_and_all_before_their_age() {
        let since = Instant::now();
        let age = Duration::from_secs(3600);
        let plans = (0..1000).map(|n| Plan::new(since, age, f64::from(n) / 1000.0).unwrap());
        let begins: Vec<_> = plans
            .map(|plan| {
                assert_eq!(plan.latest - plan.begin, age / 20);
                assert!(plan.latest < since + age);
                assert_eq!(plan.quiet, limits::QUIET);
                plan.begin - since
            })
            .collect();
        assert_eq!(begins[0], Duration::from_secs(2880));
        assert!(begins.is_sorted() && begins[999] - begins[0] > Duration::from_secs(350));
        assert!(Plan::new(since, Duration::MAX, 0.5).is_none());
        // Even a young one has a moment that can be quiet.
        let young = Plan::new(since, limits::SHORTEST_AGE, 0.5).unwrap();
        assert_eq!(young.quiet, Duration::from_millis(25));
    }

    #[test]
    fn a_close_that_the_client_has_to_know_is_passed_and_others_are_made_again() {
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4001, 4999] {
            assert!(is_final(CloseCode::new(code).unwrap()), "{code}");
        }
        for code in [1001, 1011, 1012, 1013, 1014] {
            assert!(!is_final(CloseCode::new(code).unwrap()), "{code}");
        }
    }
}
