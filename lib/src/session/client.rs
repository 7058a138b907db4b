//! The client's side of a session's life: which connection it takes, and what follows its end.

use std::sync::Arc;

use tokio::time::Instant;
use unstall_proto::{
    EndReason, Session, SessionId, Token,
    limits::{MIN_WINDOW, RECORD_OVERHEAD},
};

use super::{Link, random};
use crate::{
    handles::Shared,
    messages::{Gap, Incoming},
    pump::{Ended, Reading},
    queues::items::{Item, Items},
    reports::{CloseCode, ConnectionError},
};

/// A server agreed to `unstall.v1` and does not answer HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSpoken {
    /// It said something else.
    Misunderstood,
    /// It said nothing, which may have been the network's fault.
    Silent,
}

impl Link {
    /// A fresh session. `renewed`: another one follows when it cannot be resumed.
    pub(crate) fn client(shared: &Shared, renewed: bool) -> Link {
        let config = shared.options.session_config();
        let session = Session::client(config, SessionId(random()), Token(random()));
        let mut link = Link::new(session, shared, Instant::now());
        link.renewed = renewed;
        link
    }

    /// Begins on a new connection. `false`: the session wants none.
    pub(crate) fn attach(&mut self) -> bool {
        let time = self.time(Instant::now());
        let generation = self.session().attach(time);
        generation
            .into_iter()
            .for_each(|generation| self.attached(generation));
        generation.is_some()
    }

    /// Whether this connection, which has ended, showed that the server speaks no sessions.
    pub(crate) fn not_spoken(&self, ended: &Ended) -> Option<NotSpoken> {
        if self.opened {
            return None;
        }
        let closed = ended.peer.as_ref().and_then(|close| close.code);
        let refused = matches!(
            closed,
            Some(
                CloseCode::PROTOCOL_ERROR
                    | CloseCode::UNSUPPORTED_DATA
                    | CloseCode::INVALID_PAYLOAD
                    | CloseCode::POLICY_VIOLATION
            )
        );
        let broken = matches!(self.end, Some(EndReason::Protocol(_)))
            || matches!(ended.why, Some(ConnectionError::Protocol(_)));
        match (refused || broken, self.unanswered) {
            (true, _) => Some(NotSpoken::Misunderstood),
            (false, true) => Some(NotSpoken::Silent),
            (false, false) => None,
        }
    }

    /// When the server that closed this session wants its clients back.
    pub(crate) fn comes_back_at(&self) -> Option<Instant> {
        self.leave_at.filter(|_| self.peer_closing)
    }

    /// After the end of a client's session. `true`: another one is to follow, and what was
    /// received went to `reading`; else the handle has ended too.
    pub(crate) async fn end_client(
        &mut self,
        shared: &Shared,
        reading: &mut Reading,
        restart: bool,
    ) -> bool {
        let restart = restart && self.is_renewed();
        let lost = self.conclude(shared);
        if !restart {
            self.put_before(reading.take_received());
            self.end_handle(shared, lost.clone(), lost).await;
            return false;
        }
        self.receive_rest();
        let mut received = std::mem::take(&mut self.backlog);
        let window = (shared.options.window_bytes as u64).max(MIN_WINDOW);
        bound_carried(&mut received, 2 * window);
        if self.opened {
            let why = lost.unwrap_or_else(|| Arc::new(ConnectionError::GoingAway));
            received.push_back(Item::One(Incoming::Gap(Gap::SessionLost { why })));
        }
        reading.append(received);
        true
    }
}

/// What an application that does not read leaves over from lost sessions is bounded: beyond
/// `limit` it is dropped, and the place marked. The peer's application was given it back, because
/// it was never acknowledged.
fn bound_carried(received: &mut Items, limit: u64) {
    let mut held = 0;
    let fits = received.iter().take_while(|item| {
        held += item.payload() + item.messages().max(1) * RECORD_OVERHEAD;
        held <= limit
    });
    let kept = fits.count();
    let (mut messages, mut bytes) = (0, 0);
    for item in received.drain(kept..) {
        messages += item.messages();
        bytes += item.payload();
        if let Item::One(Incoming::Gap(Gap::Dropped {
            messages: earlier,
            bytes: earlier_bytes,
        })) = item
        {
            messages += earlier;
            bytes += earlier_bytes;
        }
    }
    if messages > 0 {
        let gap = Gap::Dropped { messages, bytes };
        received.push_back(Item::One(Incoming::Gap(gap)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Message;

    #[test]
    fn what_lost_sessions_leave_to_a_reader_that_does_not_read_is_bounded_and_counted() {
        const LIMIT: u64 = 100 * (RECORD_OVERHEAD + 8);
        let mut carried = Items::new();
        let mut sent = 0;
        for _session in 0..1000 {
            for _ in 0..7 {
                carried.push_back(Item::One(Incoming::Message(Message::from("12345678"))));
                sent += 1;
            }
            bound_carried(&mut carried, LIMIT);
            let why = Arc::new(ConnectionError::GoingAway);
            carried.push_back(Item::One(Incoming::Gap(Gap::SessionLost { why })));
            assert!(carried.len() < 110, "{}", carried.len());
        }
        let mut seen = 0;
        for item in &carried {
            seen += match item {
                Item::One(Incoming::Gap(Gap::Dropped { messages, .. })) => *messages,
                item => item.messages(),
            };
        }
        assert_eq!(seen, sent);
    }
}
