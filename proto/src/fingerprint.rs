//! What tells two states of a session apart, for exploring all of them.

use std::hash::{Hash, Hasher};

use crate::resume::Tokens;
use crate::session::Session;

/// Everything that decides how the session goes on, for model checkers. Messages count by their
/// positions, and counters do not count: two sessions of the same configuration that were sent the
/// same messages, and hash alike, behave alike.
impl Hash for Session {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.side, self.id, self.epoch).hash(state);
        hash_tokens(&self.tokens, state);
        self.state.hash(state);
        self.link.hash(state);
        (&self.outbox, &self.send_credit).hash(state);
        (&self.inbox, &self.receive_credit).hash(state);
        (&self.acks, &self.ping, &self.timers, &self.events).hash(state);
        (self.peer_max_message, self.life, &self.go_away).hash(state);
        (self.wanted, self.end_told).hash(state);
    }
}

/// Tokens are no keys of tables, so they have no `Hash` of their own.
fn hash_tokens<H: Hasher>(tokens: &Tokens, state: &mut H) {
    tokens.latest().0.hash(state);
    tokens.confirmed().0.hash(state);
}
