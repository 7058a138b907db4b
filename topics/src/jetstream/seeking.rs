//! Finds where a subscription begins.

use std::collections::VecDeque;

use unstall_proto::topics::{Filter, Offset, StoredAt};

use super::{
    api::Get,
    consumer::Deliver,
    shared::{Shared, Trouble},
};
use crate::store::{Bounds, Read, StoreError};

/// Bytes that are read at a time to count messages.
const COUNT_BYTES: usize = 1 << 20;

/// How many more messages than wanted are read rather than guessing once more.
const TOO_MANY: u64 = 4_096;

impl Shared {
    /// The offset before the first message stored at this time or later. The times of a stream grow
    /// with its sequences, so the leader is asked for the one in the middle, again and again.
    pub(super) async fn seek_time(&self, since: StoredAt) -> Result<Offset, StoreError> {
        let bounds = self.insist(|| self.ask_bounds()).await?;
        let (mut from, mut to) = (bounds.first.get(), bounds.last.get() + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            let get = || async { Ok(self.api.get(Get::At(middle)).await?) };
            match self.insist(get).await? {
                Some(found) if found.time >= since => to = middle,
                // What retention has removed meanwhile is before what is sought, or nothing is.
                _ => from = middle + 1,
            }
        }
        Ok(Offset::new(from).unwrap_or(Offset::MAX).before())
    }

    /// The offset before the last messages that match.
    pub(super) async fn seek_last(
        &self,
        filter: &Filter,
        count: u32,
    ) -> Result<Offset, StoreError> {
        let bounds = self.insist(|| self.ask_bounds()).await?;
        let count = u64::from(count);
        let before_first = bounds.first.before();
        if filter.is_all() {
            // There are no holes.
            let at = bounds.last.get().saturating_sub(count);
            return Ok(Offset::new(at).unwrap_or(Offset::MAX).max(before_first));
        }
        let after = self.guess(filter, count, &bounds).await?;
        let mut offsets = VecDeque::new();
        let mut read = Read::new(after, bounds.last, filter.clone(), COUNT_BYTES);
        while read.after < bounds.last {
            let (found, through) = match self.read(&read).await {
                Ok(chunk) => {
                    let found = chunk.messages.iter().map(|stored| stored.offset).collect();
                    (found, chunk.through)
                }
                // It counts as what it is: a message that matches.
                Err(StoreError::Damaged { through, .. }) => (vec![through], through),
                Err(error) => return Err(error),
            };
            offsets.extend(found);
            let surplus = offsets.len().saturating_sub(count as usize);
            offsets.drain(..surplus);
            read.after = through;
        }
        match offsets.front() {
            Some(first) if offsets.len() as u64 == count => Ok(first.before()),
            _ => Ok(before_first),
        }
    }

    /// An offset behind which at least `count` messages match, and not many more. If there are not
    /// as many, the one before the first message.
    async fn guess(
        &self,
        filter: &Filter,
        count: u64,
        bounds: &Bounds,
    ) -> Result<Offset, StoreError> {
        let matching = |after: u64| self.insist(move || self.matching_behind(filter, after));
        // Behind `near` there are too few, behind `far` too many.
        let (mut near, mut few) = (bounds.last.get(), 0);
        let mut far = bounds.first.before().get().min(near);
        let mut many = matching(far).await?;
        let mut halve = false;
        while many > count + TOO_MANY && near - far > TOO_MANY {
            let width = near - far;
            let wanted = u128::from((count + TOO_MANY / 2).saturating_sub(few));
            // As if they were spread evenly. Every second time half the way, in case they are not.
            let way = match halve {
                true => width / 2,
                false => {
                    let among = u128::from(many.saturating_sub(few).max(1));
                    (u128::from(width) * wanted / among).min(u128::from(width)) as u64
                }
            };
            halve = !halve;
            let at = near - way.clamp(1, width - 1);
            match matching(at).await? {
                found if found >= count => (far, many) = (at, found),
                found => (near, few) = (at, found),
            }
        }
        Ok(Offset::new(far).unwrap_or(Offset::MAX))
    }

    /// How many messages match behind an offset, as some server of the stream knows.
    async fn matching_behind(&self, filter: &Filter, after: u64) -> Result<u64, Trouble> {
        let filter = self.server_filter(filter);
        let deliver = Deliver::From(Offset::new(after + 1).unwrap_or(Offset::MAX));
        Ok(self.consumer(filter, deliver).await?.pending)
    }
}
