//! Groups of members, and which member to remove first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// Counts the members of groups, some of which may be removed. [`first`](Crowd::first) is the
/// oldest removable member of the largest group that has one. Among equally large groups, the older
/// member goes first.
///
/// Every operation takes logarithmic time in the number of members. A smaller `R` is older.
#[derive(Debug)]
pub(super) struct Crowd<K, R> {
    groups: HashMap<K, Group<R>>,
    /// The groups that have a removable member.
    order: BTreeSet<(usize, Reverse<R>, K)>,
}

#[derive(Debug)]
struct Group<R> {
    members: usize,
    /// Members that may be removed.
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

    /// Allows a member of the group to be removed.
    pub(super) fn release(&mut self, key: &K, rank: R) {
        self.change(key, |group| _ = group.may_go.insert(rank));
    }

    /// Forbids it again. Also called when the member is removed.
    pub(super) fn hold(&mut self, key: &K, rank: R) {
        self.change(key, |group| _ = group.may_go.remove(&rank));
    }

    pub(super) fn members(&self, key: &K) -> usize {
        self.groups.get(key).map_or(0, |group| group.members)
    }

    /// The member of this group that would be removed first.
    pub(super) fn oldest_of(&self, key: &K) -> Option<R> {
        self.groups.get(key)?.may_go.first().copied()
    }

    /// The member of all groups that would be removed first, with the size of its group.
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

    /// The first member, found by looking at all of them.
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
