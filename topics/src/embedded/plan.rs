//! A batch that is about to be committed.

use fjall::{Database, PersistMode};
use unstall_proto::topics::{Offset, Refusal, StoredAt};

use super::{
    layout::{
        META, encode_message, encode_publisher, index_key, log_key, publisher_key, topic_key,
    },
    state::State,
};
use crate::{
    limits::Limits,
    publishers::{Changes, Verdict},
    store::{Appended, Publication},
};

/// What a batch becomes, if it is committed.
pub(super) struct Plan {
    pub(super) answers: Vec<Appended>,
    /// What the stored messages cost.
    pub(super) cost: u64,
    /// The last offset then.
    pub(super) last: u64,
    time: StoredAt,
    messages: Vec<(u64, Publication)>,
    changes: Changes,
}

impl Plan {
    pub(super) fn new(
        state: &mut State,
        limits: &Limits,
        batch: &[Publication],
        now: StoredAt,
    ) -> Plan {
        state.publishers.forget(now);
        let mut plan = Plan {
            answers: Vec::with_capacity(batch.len()),
            cost: 0,
            last: state.last,
            time: now,
            messages: Vec::with_capacity(batch.len()),
            changes: Changes::default(),
        };
        for publication in batch {
            let answer = plan.add(state, limits, publication);
            plan.answers.push(answer);
        }
        plan
    }

    /// Whether nothing is to be stored.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn add(&mut self, state: &State, limits: &Limits, publication: &Publication) -> Appended {
        if let Some((publisher, number)) = publication.publisher {
            match state.publishers.judge(&self.changes, publisher, number) {
                Verdict::Store => {}
                Verdict::Before(offset) => return Appended::Before(offset),
                Verdict::Fenced => return Appended::Refused(Refusal::Fenced),
                Verdict::Full => return Appended::Refused(Refusal::Full),
            }
        }
        if !limits.takes(publication) {
            return Appended::Refused(Refusal::TooLarge);
        }
        let Some(offset) = Offset::new(self.last + 1) else {
            return Appended::Refused(Refusal::Full);
        };
        if let Some(numbered) = publication.publisher {
            let changes = &mut self.changes;
            state
                .publishers
                .stored(changes, numbered, offset, self.time);
        }
        self.last = offset.get();
        self.cost += publication.cost();
        self.messages.push((self.last, publication.clone()));
        Appended::Stored {
            offset,
            time: self.time,
        }
    }

    /// Commits the batch to the disk, and then to the state. `carried` are publishers that are written
    /// again.
    pub(super) fn commit(self, state: &mut State, carried: &[[u8; 16]]) -> fjall::Result<()> {
        let generation = state.current().generation.clone();
        let (log, index) = (&generation.log, &generation.index);
        let mut batch = state
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        let mut topics = Vec::new();
        for (offset, message) in &self.messages {
            let topic = message.topic.as_str();
            batch.insert(
                log,
                log_key(*offset).to_vec(),
                encode_message(message, self.time),
            );
            batch.insert(index, index_key(topic, *offset), Vec::new());
            if !state.topics.contains(topic) {
                // A batch may name it twice, which does no harm.
                batch.insert(index, topic_key(topic), Vec::new());
                topics.push(message.topic.clone());
            }
        }
        let changed = &self.changes.changed;
        for (id, known) in changed {
            batch.insert(index, publisher_key(id), encode_publisher(known));
        }
        let carried = carried.iter().filter(|id| !changed.contains_key(*id));
        let carried: Vec<_> = carried.copied().collect();
        put_publishers(&mut batch, state, &carried);
        let cost = state.current().cost + self.cost;
        let mut meta = state.meta(cost);
        (meta.last, meta.last_time) = (self.last, self.time);
        batch.insert(index, META, meta.encode());
        batch.commit()?;

        (state.last, state.last_time) = (self.last, self.time);
        state.removed_safely = meta.removed;
        let current = state.current_mut();
        if self
            .messages
            .first()
            .is_some_and(|(first, _)| *first == generation.begin)
        {
            current.begin_time = self.time;
        }
        current.cost = cost;
        (current.last, current.last_time) = (self.last, self.time);
        state.topics.extend(topics);
        let changed = self.changes.changed.keys().copied();
        state
            .homes
            .extend(changed.chain(carried).map(|id| (id, generation.number)));
        state.publishers.apply(self.changes);
        Ok(())
    }
}

/// Writes publishers into the current generation, as far as they are still remembered.
fn put_publishers(batch: &mut fjall::OwnedWriteBatch, state: &State, ids: &[[u8; 16]]) {
    let index = &state.current().generation.index;
    for id in ids {
        if let Some(known) = state.publishers.get(id) {
            batch.insert(index, publisher_key(id), encode_publisher(known));
        }
    }
}

/// Commits publishers alone.
pub(super) fn commit_publishers(state: &mut State, ids: &[[u8; 16]]) -> fjall::Result<()> {
    let database: &Database = &state.database;
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    put_publishers(&mut batch, state, ids);
    batch.commit()?;
    let number = state.current().generation.number;
    state.homes.extend(ids.iter().map(|id| (*id, number)));
    Ok(())
}
