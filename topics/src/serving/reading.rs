//! Subscriptions: where they begin, and what they read of the log.

use std::sync::Arc;

use unstall_proto::topics::{
    Block, Filter, Offset, Opening, ReadRequest, SubscribeRequest, SubscriptionEnd, SubscriptionKey,
};

use super::{Answer, Serving};
use crate::{
    defaults::READ_LATER,
    log::{Shared, block},
    place,
    store::{Chunk, Read, StoreError},
    tail::Found,
};

impl Serving {
    pub(super) fn subscribe(&mut self, request: SubscribeRequest) {
        let key = request.key;
        let allowed = self
            .permit
            .as_ref()
            .is_some_and(|permit| permit.may_subscribe(&request.filter));
        if !allowed {
            return self.end(key, SubscriptionEnd::NotAllowed, "");
        }
        let log = &self.node.log.shared;
        let end = || log.tail.bounds().last;
        let interest = log
            .interests
            .add(&request.filter, self.connection, &self.news, end);
        self.interests.insert(key, interest);
        self.openings += 1;
        let log = self.node.log.shared.clone();
        self.asked.push(Box::pin(async move {
            Answer::Opened(key, place::find(&log, &request.filter, request.start).await)
        }));
    }

    pub(super) fn opened(&mut self, key: SubscriptionKey, opening: Result<Opening, StoreError>) {
        self.openings -= 1;
        self.moves(key);
        match opening {
            Ok(opening) => self.server.subscribed(key, opening),
            Err(error) => self.end(key, SubscriptionEnd::Unavailable, &error.to_string()),
        }
    }

    /// Reads from the tail if it has the messages, and else asks the store.
    pub(super) fn read(&mut self, request: ReadRequest) {
        self.moves(request.key);
        let ahead = self.ahead_of(request.key);
        if !request.latest && self.read_from_memory(&request) {
            return;
        }
        let request = match ahead {
            Some(ahead) => match ahead.hand_over(request) {
                Ok(()) => return,
                Err(request) => *request,
            },
            None => request,
        };
        let (log, reads) = (self.node.log.shared.clone(), self.node.reads.clone());
        self.asked.push(Box::pin(async move {
            // It is never closed.
            let _turn = reads.acquire_owned().await;
            let answer = read_store(&log, &request).await;
            Answer::Read(request, answer)
        }));
    }

    /// Whether the messages, or that there are none, are known without the store.
    fn read_from_memory(&mut self, request: &ReadRequest) -> bool {
        let interest = self.interests.get(request.key);
        let quiet = interest.map_or(request.after, |it| it.quiet_through(request.after));
        let (block, through) = if quiet > request.after {
            (Arc::new(Block::new([])), quiet.min(request.through))
        } else {
            match self.log().tail.find(request.after) {
                Found::Block(block) => {
                    let through = block.offsets().map_or(request.after, |(_, last)| last);
                    self.log().counters.cache_hit();
                    (block, through)
                }
                Found::End => (Arc::new(Block::new([])), self.log().tail.bounds().last),
                Found::Behind => return false,
            }
        };
        // What is in the tail is whole, whatever retention did to the store.
        self.server.read(request.key, block, through, Offset::START);
        true
    }

    /// The store has answered.
    pub(super) fn was_read(&mut self, request: ReadRequest, answer: Result<Encoded, StoreError>) {
        match answer {
            Ok(read) => {
                self.read_ahead(&request, &read);
                let Encoded {
                    block,
                    through,
                    first,
                } = read;
                self.server.read(request.key, block, through, first);
            }
            Err(error) => self.read_failed(&request, &error),
        }
    }

    fn read_failed(&mut self, request: &ReadRequest, error: &StoreError) {
        tracing::warn!(%error, filter = %request.filter, "a subscription could not read");
        match error {
            StoreError::Damaged { through, .. } => {
                self.server.read_damaged(request.key, *through, false);
            }
            _ => {
                self.interests.remove(request.key);
                self.server.read_failed(request.key, &error.to_string());
            }
        }
    }
}

/// What was read of the store.
pub(super) struct Encoded {
    pub(super) block: Arc<Block>,
    /// Everything of the filter up to here is in the block.
    pub(super) through: Offset,
    /// The first message that was there after the reading was done.
    first: Offset,
}

impl Encoded {
    fn new(chunk: &Chunk, filter: &Filter) -> Encoded {
        let Some((block, taken)) = block(&chunk.messages, filter, usize::MAX) else {
            return Encoded {
                block: Arc::new(Block::new([])),
                through: chunk.through,
                first: chunk.first,
            };
        };
        let through = match block.offsets() {
            Some((_, last)) if taken < chunk.messages.len() => last,
            _ => chunk.through,
        };
        Encoded {
            block: Arc::new(block),
            through,
            first: chunk.first,
        }
    }
}

/// Reads of the store, and encodes what was read.
pub(super) async fn read_store(log: &Shared, request: &ReadRequest) -> Result<Encoded, StoreError> {
    log.counters.store_read();
    let read = Read::new(
        request.after,
        request.through,
        request.filter.clone(),
        request.max_bytes,
    );
    let chunk = match request.latest {
        true => log.store.read_latest(read).await,
        false => log.store.read(read).await,
    };
    if matches!(
        chunk,
        Err(StoreError::Unavailable(_) | StoreError::Unknown(_))
    ) {
        tokio::time::sleep(READ_LATER).await;
    }
    Ok(Encoded::new(&chunk?, &request.filter))
}
