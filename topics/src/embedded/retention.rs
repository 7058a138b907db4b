//! Retention: generations begin, and go as a whole.

use fjall::PersistMode;

use super::{
    chores::Chore,
    generation::step,
    layout::{META, Meta},
    plan::commit_publishers,
    state::{Kept, State},
    writer::{Failure, Writer},
};
use crate::{
    clock::earlier,
    defaults::embedded::{GENERATION_LEAST_AGE, GENERATIONS, LEAST_BYTES},
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
        let over = state.begin_generation(&self.limits)?;
        self.chores.begin(Chore::Finish(over));
        // What the oldest remembers is written again, little by little, before it goes.
        if state.generations.len() > GENERATIONS as usize / 2 {
            for id in at_home(state, state.generations[0].generation.number) {
                state.unwritten.push(id, state.last + 1);
            }
        }
        self.directory.sync_last();
        self.publish();
        Ok(())
    }

    /// Does a part of what making and deleting generations takes. Each part is some syncs, so there
    /// is one between two appends.
    pub(super) fn chore(&mut self) -> Result<(), Failure> {
        if let Some(error) = self.chores.take_failure() {
            return Err(error.into());
        }
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        if !self.deleted.is_empty() && state.removed_safely < state.removed {
            write_removed(state, state.removed)?;
        } else if self.chores.is_idle()
            && let Some(keyspace) = self.deleted.pop_front()
        {
            let database = state.database.clone();
            self.chores.begin(Chore::Delete(database, keyspace));
        } else if state.current().cost > step(&self.limits) / 2 && !state.prepared.is_ready() {
            let number = state.current().generation.number + 1;
            let database = &state.database;
            state.prepared.make_one(database, number, &self.limits)?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<(), Failure> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let oldest = state.generations[0].generation.number;
        // Nobody is forgotten with it: neither those whose place it has, nor those whose messages it
        // has that would have to be read again.
        let mut left = at_home(state, oldest);
        let unwritten = state.unwritten.below(state.generations[1].generation.begin);
        left.extend(state.unwritten.first(unwritten));
        if !left.is_empty() {
            commit_publishers(state, &left)?;
            state.unwritten.pop(unwritten);
        }
        let publishers = &state.publishers;
        let is_left = |id: &_, home: &mut u64| *home > oldest && publishers.get(id).is_some();
        state.homes.retain(is_left);
        let Kept {
            generation, last, ..
        } = state.generations.remove(0);
        state.removed = state.removed.max(last);
        // Without its index, a generation is known as deleted.
        self.deleted.push_back(generation.index.clone());
        self.deleted.push_back(generation.log.clone());
        self.publish();
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
        write_removed(state, through)?;
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

/// Notes on the disk what is removed.
fn write_removed(state: &mut State, removed: u64) -> Result<(), Failure> {
    let meta = Meta {
        removed,
        ..state.meta(state.current().cost)
    };
    let mut batch = state
        .database
        .batch()
        .durability(Some(PersistMode::SyncData));
    batch.insert(&state.current().generation.index, META, meta.encode());
    batch.commit()?;
    state.removed_safely = removed;
    Ok(())
}

/// The publishers that are remembered, and were written last in this generation.
fn at_home(state: &State, number: u64) -> Vec<[u8; 16]> {
    let here = state.homes.iter().filter(|(_, home)| **home == number);
    let known = here.filter(|(id, _)| state.publishers.get(id).is_some());
    known.map(|(id, _)| *id).collect()
}
