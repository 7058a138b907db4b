//! What was published last, encoded once and shared by all subscribers of the node.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use unstall_proto::topics::{Block, Offset, StoredAt};

use crate::store::Bounds;

/// The end of the log in memory, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Tail {
    state: RwLock<State>,
    max_bytes: usize,
}

#[derive(Debug)]
struct State {
    /// In order, each with at least one message.
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// Everything behind this offset and up to `bounds.last` is in `blocks`.
    begin: Offset,
    bounds: Bounds,
}

impl State {
    /// Nothing is in memory.
    fn at(bounds: Bounds) -> State {
        State {
            blocks: VecDeque::new(),
            bytes: 0,
            begin: bounds.last,
            bounds,
        }
    }
}

/// What the tail has behind an offset.
pub(crate) enum Found {
    /// The block with the next message.
    Block(Arc<Block>),
    /// Nothing: this is the end of the log.
    End,
    /// It is no longer in memory: ask the store.
    Behind,
}

impl Tail {
    /// The tail of a log that was opened with these bounds. Nothing of it is in memory yet.
    pub(crate) fn new(bounds: Bounds, max_bytes: usize) -> Tail {
        Tail {
            state: RwLock::new(State::at(bounds)),
            max_bytes,
        }
    }

    /// The log has lost its end, and has these bounds now.
    pub(crate) fn begin_anew(&self, bounds: Bounds) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::at(bounds);
    }

    pub(crate) fn find(&self, after: Offset) -> Found {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if after >= state.bounds.last {
            return Found::End;
        }
        if after < state.begin {
            return Found::Behind;
        }
        let next = state.blocks.partition_point(|block| last(block) <= after);
        match state.blocks.get(next) {
            Some(block) => Found::Block(block.clone()),
            None => Found::End,
        }
    }

    /// What the log has, as this node knows it.
    pub(crate) fn bounds(&self) -> Bounds {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .bounds
    }

    /// The memory of what it has, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
    }

    /// These messages follow right behind the ones before.
    pub(crate) fn push(&self, blocks: impl IntoIterator<Item = Block>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for block in blocks {
            state.bytes += block.memory();
            state.bounds.last = last(&block);
            state.bounds.last_time = block.last_time();
            state.blocks.push_back(Arc::new(block));
        }
        while state.bytes > self.max_bytes
            && let Some(oldest) = state.blocks.pop_front()
        {
            state.bytes -= oldest.memory();
            state.begin = last(&oldest);
        }
    }

    /// Messages up to this offset are missing: retention was faster than this node. The store tells
    /// of that to whoever reads there.
    pub(crate) fn skip_through(&self, offset: Offset) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.blocks.clear();
        state.bytes = 0;
        state.begin = offset;
        state.bounds.last = offset;
        state.bounds.last_time = StoredAt::UNKNOWN;
    }

    /// Retention moved the first message.
    pub(crate) fn set_first(&self, first: Offset) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.bounds.first = first.max(state.bounds.first);
    }
}

/// The offset of the last message.
fn last(block: &Block) -> Offset {
    block.offsets().map_or(Offset::START, |(_, last)| last)
}
