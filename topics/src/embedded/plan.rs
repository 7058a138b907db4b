//! A batch that is about to be committed.

use fjall::PersistMode;
use unstall_proto::topics::{Offset, Refusal, StoredAt};

use super::{
    generation::Generation,
    layout::{
        META, encode_message, encode_publisher, index_key, log_key, publisher_key, topic_key,
    },
    state::State,
};
use crate::{
    defaults::embedded::MESSAGES_PER_PLACE,
    limits::Limits,
    publishers::Verdict,
    store::{Appended, Publication},
};

/// What a batch becomes. What is remembered of publishers has it already, so the state must be thrown
/// away if it is not committed.
pub(super) struct Plan {
    pub(super) answers: Vec<Appended>,
    /// What the stored messages cost.
    cost: u64,
    /// The last offset then.
    pub(super) last: u64,
    time: StoredAt,
    messages: Vec<(u64, Publication)>,
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

    fn add(&mut self, state: &mut State, limits: &Limits, publication: &Publication) -> Appended {
        if let Some(answer) = answer_without(state, limits, publication) {
            return answer;
        }
        let Some(offset) = Offset::new(self.last + 1) else {
            return Appended::Refused(Refusal::Full);
        };
        if let Some(numbered) = publication.publisher {
            state.publishers.stored(numbered, offset, self.time);
        }
        self.last = offset.get();
        self.cost += publication.cost();
        self.messages.push((self.last, publication.clone()));
        Appended::Stored {
            offset,
            time: self.time,
        }
    }

    /// Commits the batch to the disk, and then to the state.
    pub(super) fn commit(self, state: &mut State) -> fjall::Result<()> {
        let generation = state.current().generation.clone();
        let (log, index) = (&generation.log, &generation.index);
        let batch = state.database.batch();
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        let mut topics = Vec::new();
        for (offset, message) in &self.messages {
            let topic = message.topic.as_str();
            let value = encode_message(message, self.time);
            batch.insert(log, log_key(*offset).to_vec(), value);
            batch.insert(index, index_key(topic, *offset), Vec::new());
            if !state.topics.contains(topic) {
                // A batch may name it twice, which does no harm.
                batch.insert(index, topic_key(topic), Vec::new());
                topics.push(message.topic.clone());
            }
        }
        let written: Vec<_> = state.unwritten.first(self.places()).collect();
        for id in &written {
            if let Some(known) = state.publishers.get(id) {
                batch.insert(index, publisher_key(id), encode_publisher(known));
            }
        }
        let cost = state.current().cost + self.cost;
        let mut meta = state.meta(cost);
        (meta.last, meta.last_time) = (self.last, self.time);
        // If no publisher is left from before, this batch may have the first.
        let left = state.unwritten.from(written.len());
        meta.unwritten = left.unwrap_or(state.last + 1);
        batch.insert(index, META, meta.encode());
        batch.commit()?;

        self.apply(state, &generation, cost, &written);
        state.removed_safely = meta.removed;
        state.topics.extend(topics);
        Ok(())
    }

    /// How many publishers get their place written: one for some of the messages.
    fn places(&self) -> usize {
        self.messages.len().div_ceil(MESSAGES_PER_PLACE)
    }

    /// The batch is on the disk.
    fn apply(self, state: &mut State, generation: &Generation, cost: u64, written: &[[u8; 16]]) {
        let places = written.iter().map(|id| (*id, generation.number));
        state.homes.extend(places);
        // Those that were written are still in the queue, so they are not put there again.
        for (offset, message) in &self.messages {
            if let Some((publisher, _)) = &message.publisher {
                state.unwritten.push(publisher.id, *offset);
            }
        }
        state.unwritten.pop(written.len());
        (state.last, state.last_time) = (self.last, self.time);
        let current = state.current_mut();
        let first = self.messages.first();
        if first.is_some_and(|(first, _)| *first == generation.begin) {
            current.begin_time = self.time;
        }
        current.cost = cost;
        (current.last, current.last_time) = (self.last, self.time);
    }
}

/// The answer to a message that is not to be stored. `None` if it is.
pub(super) fn answer_without(
    state: &State,
    limits: &Limits,
    publication: &Publication,
) -> Option<Appended> {
    if let Some((publisher, number)) = publication.publisher {
        match state.publishers.judge(publisher, number) {
            Verdict::Store => {}
            Verdict::Before(offset) => return Some(Appended::Before(offset)),
            Verdict::Fenced => return Some(Appended::Refused(Refusal::Fenced)),
            Verdict::Full => return Some(Appended::Refused(Refusal::Full)),
        }
    }
    let fits = limits.takes(publication);
    (!fits).then_some(Appended::Refused(Refusal::TooLarge))
}

/// Writes the places of publishers, as far as they are still remembered, into the current
/// generation.
pub(super) fn commit_publishers(state: &mut State, ids: &[[u8; 16]]) -> fjall::Result<()> {
    let generation = state.current().generation.clone();
    let batch = state.database.batch();
    let mut batch = batch.durability(Some(PersistMode::SyncData));
    for id in ids {
        if let Some(known) = state.publishers.get(id) {
            batch.insert(
                &generation.index,
                publisher_key(id),
                encode_publisher(known),
            );
        }
    }
    batch.commit()?;
    state
        .homes
        .extend(ids.iter().map(|id| (*id, generation.number)));
    Ok(())
}
