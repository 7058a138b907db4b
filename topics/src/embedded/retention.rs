//! Retention: generations begin, and go as a whole.

use fjall::PersistMode;

use super::{
    generation::{Generation, step},
    layout::META,
    plan::commit_publishers,
    state::{Kept, State},
    writer::{Failure, Writer},
};
use crate::{
    clock::earlier,
    defaults::embedded::{CARRIED_PUBLISHERS, GENERATION_LEAST_AGE, GENERATIONS, LEAST_BYTES},
};

impl Writer {
    /// Begins a generation if the current one is large or old enough, and removes what is beyond the
    /// limits with so many bytes more.
    pub(super) fn make_room(&mut self, cost: u64) -> Result<(), Failure> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        if self.is_over(state, cost) {
            self.begin_generation()?;
        }
        while let Some(state) = &self.state
            && self.goes(state, cost)
        {
            self.remove_oldest()?;
        }
        Ok(())
    }

    /// Whether the current generation is over, if so many bytes are to come.
    fn is_over(&self, state: &State, cost: u64) -> bool {
        let current = state.current();
        if current.cost == 0 {
            return false;
        }
        let step = step(&self.limits);
        let age = self
            .limits
            .max_age
            .map(|age| (age / GENERATIONS).max(GENERATION_LEAST_AGE));
        let now = self.clock.now(state.last_time);
        current.cost + cost > step || age.is_some_and(|age| current.begin_time < earlier(now, age))
    }

    /// Whether the oldest generation has to go.
    fn goes(&self, state: &State, cost: u64) -> bool {
        let [oldest, _, ..] = &*state.generations else {
            return false;
        };
        let now = self.clock.now(state.last_time);
        let too_old = |age| oldest.last_time < earlier(now, age);
        oldest.last <= state.removed
            || state.cost() + cost > self.limits.bytes()
            || self.limits.max_age.is_some_and(too_old)
    }

    fn begin_generation(&mut self) -> Result<(), Failure> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let begin = state.last + 1;
        let meta = state.meta(0);
        let generation = Generation::create(&state.database, begin, &meta, &self.limits)?;
        state.current().generation.finish()?;
        state.generations.push(Kept::new(generation, &meta));
        state.topics.clear();
        // What the oldest remembers is written again, little by little, before it goes.
        if state.generations.len() > GENERATIONS as usize / 2 {
            let oldest = state.generations[0].generation.begin;
            self.carried = at_home(state, oldest);
        }
        self.directory.sync_last();
        self.publish();
        Ok(())
    }

    /// Publishers that are written again with the next batch.
    pub(super) fn some_carried(&mut self) -> Vec<[u8; 16]> {
        let left = self.carried.len().saturating_sub(CARRIED_PUBLISHERS);
        let some = self.carried.split_off(left);
        let Some(state) = &self.state else {
            return some;
        };
        let current = state.current().generation.begin;
        let is_elsewhere = |id: &[u8; 16]| state.homes.get(id).is_some_and(|it| *it != current);
        some.into_iter().filter(is_elsewhere).collect()
    }

    fn remove_oldest(&mut self) -> Result<(), Failure> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let oldest = state.generations[0].generation.clone();
        let left = at_home(state, oldest.begin);
        if !left.is_empty() {
            commit_publishers(state, &left)?;
        }
        let publishers = &state.publishers;
        state
            .homes
            .retain(|id, home| *home > oldest.begin && publishers.get(id).is_some());
        let kept = state.generations.remove(0);
        // The next commit makes this safe. Until then a crash brings the generation back.
        state.removed = state.removed.max(kept.last);
        let database = state.database.clone();
        drop(kept);
        self.publish();
        oldest.delete(&database)?;
        Ok(())
    }

    /// Removes all messages up to an offset, for good.
    pub(super) fn remove_all_through(&mut self, through: u64) -> Result<(), Failure> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let through = through.min(state.last);
        if through < state.first() {
            return Ok(());
        }
        let mut meta = state.meta(state.current().cost);
        meta.removed = through;
        let mut batch = state
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        batch.insert(&state.current().generation.index, META, meta.encode());
        batch.commit()?;
        state.removed = through;
        // A pair of keyspaces for each message would be too many.
        let least = step(&self.limits).min(LEAST_BYTES / u64::from(GENERATIONS));
        let is_worth_it = through == state.last && state.current().cost >= least;
        if is_worth_it {
            self.begin_generation()?;
        }
        self.publish();
        self.make_room(0)
    }
}

/// The publishers that are remembered, and were written last in this generation.
fn at_home(state: &State, begin: u64) -> Vec<[u8; 16]> {
    let here = state.homes.iter().filter(|(_, home)| **home == begin);
    let known = here.filter(|(id, _)| state.publishers.get(id).is_some());
    known.map(|(id, _)| *id).collect()
}
