//! What happens to processes, and when. The faults of the network are those of [`crate::faults`].

use std::{collections::VecDeque, time::Duration};

use super::{Aim, Named};
use crate::faults::{Kind, Random};

/// The faults of a run.
pub(super) struct Plan {
    /// Kinds of faults of the network, and how many strike in all.
    pub(super) network: (Vec<Kind>, usize),
    /// In the order of their places.
    coming: VecDeque<Planned>,
}

/// A fault and its place: after so many messages have their answers. So each strikes, however fast
/// the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    at: u64,
    strike: Strike,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    /// A hub is asked to end, and started again after this.
    Restart(usize, Duration),
    /// A hub is killed, and started again after this.
    Kill(usize, Duration),
    /// A subscriber receives nothing for this long.
    Slow(usize, Duration),
    /// A subscriber receives nothing until retention has removed what it has not read.
    Retention(usize),
}

/// The faults are within this part of the run, so that it sees the end of the last one.
const LAST_FAULT_PERCENT: u64 = 90;

impl Plan {
    /// Draws the faults of a run of so many messages. The same aim always gives the same.
    pub(super) fn draw(aim: &Aim, messages: u64) -> Plan {
        let mut random = Random::new(aim.seed);
        let network: Vec<Kind> = aim.faults.iter().copied().filter_map(of_network).collect();
        let of_processes = |fault: &&Named| of_network(**fault).is_none();
        let processes: Vec<Named> = aim.faults.iter().filter(of_processes).copied().collect();
        let all = aim.faults.len().max(1);
        let of_network = aim.times.saturating_mul(network.len()).div_ceil(all);
        let count = match processes.is_empty() {
            true => 0,
            false => aim
                .times
                .saturating_sub(of_network)
                .max(processes.len().min(aim.times)),
        };
        let stretch = (messages / 100).saturating_mul(LAST_FAULT_PERCENT);
        let stretch = stretch.checked_div(count as u64).unwrap_or_default();
        let mut coming = VecDeque::new();
        let mut kinds = processes.iter().cycle();
        let mut retained = false;
        for number in 0..count as u64 {
            let Some(&kind) = kinds.next() else { break };
            let after = Duration::from_millis(random.below(300));
            let node = random.below(u64::from(aim.nodes)) as usize;
            let subscriber = random.below(u64::from(aim.subscribers)) as usize;
            let slow = Duration::from_millis(random.below(600).saturating_add(100));
            let place = number.saturating_mul(stretch);
            let at = place.saturating_add(random.below(stretch.max(1)));
            let strike = match kind {
                Named::Of(Kind::Kill) => Strike::Kill(node, after),
                Named::Of(Kind::Restart) => Strike::Restart(node, after),
                // Once is enough, and it takes long.
                Named::Retention if std::mem::replace(&mut retained, true) => continue,
                // One that is there from the start.
                Named::Retention => Strike::Retention(0),
                Named::Of(_) => Strike::Slow(subscriber, slow),
            };
            let at = if matches!(strike, Strike::Retention(_)) {
                messages / 20
            } else {
                at
            };
            coming.push_back(Planned { at, strike });
        }
        coming.make_contiguous().sort_by_key(|planned| planned.at);
        Plan {
            network: (network, of_network),
            coming,
        }
    }

    /// The next fault, if its place is reached.
    pub(super) fn due(&mut self, messages: u64) -> Option<Strike> {
        let is_due = self
            .coming
            .front()
            .is_some_and(|planned| planned.at <= messages);
        is_due.then(|| self.coming.pop_front().map(|planned| planned.strike))?
    }
}

/// The fault of the network that it is, if it is one.
fn of_network(fault: Named) -> Option<Kind> {
    match fault {
        Named::Of(Kind::Restart | Kind::Slow | Kind::Kill) | Named::Retention => None,
        Named::Of(kind) => Some(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim(faults: &[&str], seed: u64) -> Aim {
        Aim {
            store: None,
            nodes: 3,
            publishers: 2,
            subscribers: 4,
            count: 5_000,
            sizes: "16".parse().unwrap(),
            faults: faults.iter().map(|name| name.parse().unwrap()).collect(),
            times: 20,
            rate: None,
            seed,
            client: None,
            patience: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_seed_gives_the_same_faults_each_kind_and_all_before_the_end() {
        let names = ["cut", "freeze", "restart", "kill", "retention", "slow"];
        let drawn = |seed| Plan::draw(&aim(&names, seed), 10_000).coming;
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let all = drawn(7);
        let has = |is: fn(&Strike) -> bool| all.iter().filter(|it| is(&it.strike)).count();
        assert!(has(|it| matches!(it, Strike::Kill(..))) > 1);
        assert!(has(|it| matches!(it, Strike::Restart(..))) > 1);
        assert!(has(|it| matches!(it, Strike::Slow(..))) > 1);
        assert_eq!(has(|it| matches!(it, Strike::Retention(_))), 1);
        assert!(all.iter().all(|planned| planned.at < 9_000));
        let (kinds, count) = Plan::draw(&aim(&names, 7), 10_000).network;
        assert_eq!((kinds.len(), count), (2, 7));
    }

    #[test]
    fn faults_of_one_side_alone_are_all_of_that_side() {
        let plan = Plan::draw(&aim(&["cut"], 1), 10_000);
        assert_eq!((plan.network.1, plan.coming.len()), (20, 0));
        let mut plan = Plan::draw(&aim(&["kill"], 1), 10_000);
        assert_eq!((plan.network.1, plan.coming.len()), (0, 20));
        let mut struck = 0;
        for messages in 0..9_000 {
            while plan.due(messages).is_some() {
                struck += 1;
            }
        }
        assert_eq!(struck, 20);
    }
}
