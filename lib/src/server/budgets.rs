//! The memory budgets of addresses and principals.

use std::{collections::HashMap, sync::Mutex};

use super::{
    holder::{Holder, Holders},
    limits::Limit,
};
use crate::settings::{Budget, WeakBudget};

/// The budgets of all holders, inside the budget of the process. Each lives as long as a connection
/// or session of its holder.
#[derive(Debug)]
pub(super) struct Budgets {
    process: Budget,
    limit: Limit,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    budgets: HashMap<Holder, WeakBudget>,
    /// The number of budgets at which unused ones are removed.
    sweep_at: usize,
}

impl Budgets {
    pub(super) fn new(process: Budget, limit: Limit) -> Budgets {
        let known = Mutex::default();
        Budgets {
            process,
            limit,
            known,
        }
    }

    /// The budget of all clients.
    #[cfg(any(feature = "metrics", feature = "status"))]
    pub(super) fn process(&self) -> &Budget {
        &self.process
    }

    /// The budget that all bytes held for this client are drawn from.
    pub(super) fn of(&self, client: &Holders) -> Budget {
        let mut known = self.known.lock().unwrap();
        let own = client.holders().iter();
        let own = own.filter(|holder| self.limit.of(holder) < usize::MAX);
        let own: Vec<_> = own.map(|holder| self.one(&mut known, holder)).collect();
        match &own[..] {
            [] => self.process.clone(),
            [only] => only.clone(),
            several => Budget::within_all(several),
        }
    }

    fn one(&self, known: &mut Known, holder: &Holder) -> Budget {
        let budget = known.budgets.get(holder).and_then(WeakBudget::upgrade);
        budget.unwrap_or_else(|| {
            // Sweeping only after the map has doubled costs constant time per budget.
            if known.budgets.len() >= known.sweep_at {
                known.budgets.retain(|_, budget| budget.upgrade().is_some());
                known.sweep_at = 2 * known.budgets.len().max(8);
            }
            let budget = Budget::within(&self.process, self.limit.of(holder));
            known.budgets.insert(holder.clone(), budget.downgrade());
            budget
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::holder::{Network, Principal};

    fn client(ip: [u8; 4], principal: Option<&str>) -> Holders {
        let principal = principal.map(Principal::new);
        Holders::new(Network::V4(ip.into()), principal.as_ref())
    }

    fn budgets() -> Budgets {
        Budgets::new(Budget::new(1000), Limit::new(1000, None, Some(100)))
    }

    #[test]
    fn connections_of_one_holder_share_a_budget_as_long_as_there_is_one() {
        let budgets = budgets();
        let one = budgets.of(&client([10, 0, 0, 1], None));
        let two = budgets.of(&client([10, 0, 0, 1], None));
        assert_eq!(one.limit(), 750);
        assert!(two.is(&one));
        assert!(!budgets.of(&client([10, 0, 0, 2], None)).is(&one));
        drop((one, two));
        let known = budgets.known.lock().unwrap();
        assert!(known.budgets.values().all(|it| it.upgrade().is_none()));
    }

    #[test]
    fn a_client_of_an_address_that_nobody_knows_draws_from_the_process_alone() {
        let budgets = budgets();
        let nobody = Holders::new(Network::Unknown, None);
        assert!(budgets.of(&nobody).is(&budgets.process));
    }

    #[test]
    fn holders_that_are_gone_are_forgotten() {
        let budgets = budgets();
        for ip in 0..10_000_u32 {
            drop(budgets.of(&client(ip.to_be_bytes(), Some("everybody's"))));
        }
        assert!(budgets.known.lock().unwrap().budgets.len() < 100);
    }
}
