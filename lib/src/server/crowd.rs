//! Groups of members, some of which may be asked to go.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// Counts the members of groups and knows who goes first: of the largest group that has someone who
/// may go, the oldest. Among equally large groups, the one whose oldest is older.
///
/// Every operation takes a time that grows with the logarithm of the number of members. A smaller
/// `R` is older.
#[derive(Debug)]
pub(super) struct Crowd<K, R> {
    groups: HashMap<K, Group<R>>,
    /// The groups that have someone who may go.
    order: BTreeSet<(usize, Reverse<R>, K)>,
}

#[derive(Debug)]
struct Group<R> {
    members: usize,
    /// Members who may go.
    may_go: BTreeSet<R>,
}

impl<K, R> Default for Crowd<K, R> {
    fn default() -> Crowd<K, R> {
        Crowd {
            groups: HashMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord, R: Copy + Ord> Crowd<K, R> {
    pub(super) fn join(&mut self, key: &K) {
        self.change(key, |group| group.members += 1);
    }

    pub(super) fn leave(&mut self, key: &K) {
        self.change(key, |group| group.members -= 1);
    }

    /// One of the members may go from now on.
    pub(super) fn release(&mut self, key: &K, rank: R) {
        self.change(key, |group| _ = group.may_go.insert(rank));
    }

    /// It may not go any more, or has gone.
    pub(super) fn hold(&mut self, key: &K, rank: R) {
        self.change(key, |group| _ = group.may_go.remove(&rank));
    }

    pub(super) fn members(&self, key: &K) -> usize {
        self.groups.get(key).map_or(0, |group| group.members)
    }

    /// Who of this group would go first.
    pub(super) fn oldest_of(&self, key: &K) -> Option<R> {
        self.groups.get(key)?.may_go.first().copied()
    }

    /// Who of all would go first, and how many members its group has.
    pub(super) fn first(&self) -> Option<(usize, R)> {
        let (members, Reverse(rank), _) = self.order.last()?;
        Some((*members, *rank))
    }

    fn change(&mut self, key: &K, change: impl FnOnce(&mut Group<R>)) {
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group {
            members: 0,
            may_go: BTreeSet::new(),
        });
        if let Some(oldest) = group.may_go.first() {
            self.order
                .remove(&(group.members, Reverse(*oldest), key.clone()));
        }
        change(group);
        if let Some(oldest) = group.may_go.first() {
            self.order
                .insert((group.members, Reverse(*oldest), key.clone()));
        } else if group.members == 0 {
            self.groups.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The obvious way to find who goes first.
    fn searched(groups: &[(usize, BTreeSet<u32>)]) -> Option<(usize, u32)> {
        let able = groups.iter().filter_map(|(members, may_go)| {
            let oldest = *may_go.first()?;
            Some((*members, Reverse(oldest)))
        });
        able.max()
            .map(|(members, Reverse(oldest))| (members, oldest))
    }

    #[test]
    fn the_oldest_of_the_largest_group_goes_first_whatever_happened_before() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut crowd = Crowd::default();
        let mut groups = vec![(0, BTreeSet::new()); 5];
        for rank in 0..20_000_u32 {
            let key = random.usize(..groups.len());
            let (members, may_go) = &mut groups[key];
            match random.u8(..4) {
                0 | 1 => {
                    *members += 1;
                    crowd.join(&key);
                }
                2 if may_go.len() < *members => {
                    may_go.insert(rank);
                    crowd.release(&key, rank);
                }
                _ => {
                    if let Some(oldest) = may_go.pop_first() {
                        crowd.hold(&key, oldest);
                    }
                    if may_go.len() < *members {
                        *members -= 1;
                        crowd.leave(&key);
                    }
                }
            }
            assert_eq!(crowd.first(), searched(&groups));
            assert_eq!(crowd.members(&key), groups[key].0);
            assert_eq!(crowd.oldest_of(&key), groups[key].1.first().copied());
        }
        for (key, (members, may_go)) in groups.into_iter().enumerate() {
            may_go.iter().for_each(|rank| crowd.hold(&key, *rank));
            (0..members).for_each(|_| crowd.leave(&key));
        }
        assert!(
            crowd.groups.is_empty() && crowd.order.is_empty(),
            "nothing is left behind"
        );
    }
}
