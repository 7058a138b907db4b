//! Which states of a session are the same, for model checkers.

use std::hash::{Hash, Hasher};

use crate::resume::Tokens;
use crate::session::Session;

/// Everything that decides how the session goes on. Messages count by their positions, and counters
/// do not count. Two sessions of the same configuration, which were sent the same messages, behave
/// alike if they hash alike.
impl Hash for Session {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.side, self.id, &self.state, &self.connection).hash(state);
        let agreement = &self.agreement;
        (agreement.epoch, agreement.life, agreement.peer_max_message).hash(state);
        hash_tokens(&agreement.tokens, state);
        (&self.sending, &self.receiving).hash(state);
        (&self.signals.ping, &self.signals.go_away).hash(state);
        (&self.timers, &self.events).hash(state);
    }
}

/// Tokens are no keys of tables, so they have no `Hash` of their own.
fn hash_tokens<H: Hasher>(tokens: &Tokens, state: &mut H) {
    tokens.latest().0.hash(state);
    tokens.confirmed().0.hash(state);
}
