//! How a client's session begins, and what follows its end.

use std::sync::Arc;

use tokio::time::Instant;
use unstall_proto::{
    EndReason,
    limits::{MIN_WINDOW, RECORD_OVERHEAD},
};

use super::{Session, opening::Opening};
use crate::{
    handles::Shared,
    messages::{Gap, Incoming},
    pump::{Ended, Reading},
    queues::items::{Item, Items},
    reports::{CloseCode, ConnectionError},
    ws::{Failure, WebSocket, transport::Transport},
};

impl Session {
    /// A fresh session. `renewed`: if it is lost, another one follows.
    pub(crate) fn client(shared: &Shared, opening: &Opening, renewed: bool) -> Session {
        let protocol = opening.session(&shared.options);
        let mut session = Session::new(protocol, Instant::now(), &shared.account);
        session.ending.renew(renewed);
        session
    }

    /// HELLO of the first connection was sent with its request. Unless the server has said that it took
    /// it, HELLO is the first packet all the same. It is written at once: if the server has taken it,
    /// its answer may be there already.
    pub(crate) fn opened_with_request(
        &mut self,
        taken: bool,
        ws: &mut WebSocket<Transport>,
    ) -> Result<(), Failure> {
        let time = self.time(Instant::now());
        let generation = self.carrier.generation();
        let hello = generation.and_then(|it| self.protocol.poll_transmit_parts(time, it));
        match hello.filter(|_| !taken) {
            Some(hello) => ws.write_packet(hello),
            None => Ok(()),
        }
    }

    /// Whether this connection, which has ended, has shown that the server does not speak the protocol
    /// that it agreed to. Silence or a refusal does not show that, because the server may be
    /// overloaded.
    pub(crate) fn is_not_spoken(&self, ended: &Ended) -> bool {
        let closed = ended.peer.as_ref().and_then(|close| close.code);
        let misunderstood = matches!(
            closed,
            Some(
                CloseCode::PROTOCOL_ERROR
                    | CloseCode::UNSUPPORTED_DATA
                    | CloseCode::INVALID_PAYLOAD
            )
        );
        let broken = matches!(self.ending.reason(), Some(EndReason::Protocol(_)))
            || matches!(ended.why, Some(ConnectionError::Protocol(_)));
        !self.was_opened() && (misunderstood || broken)
    }

    /// Called after the end of a client's session. `true`: another session has to follow. `false`: the
    /// handle has ended too. All received messages are then in `reading` or with the application.
    pub(crate) async fn end_client(
        &mut self,
        shared: &Shared,
        reading: &mut Reading,
        restart: bool,
        in_setup: bool,
    ) -> bool {
        let restart = restart && self.is_renewed();
        let lost = self.conclude(shared, in_setup);
        if !restart {
            self.end_handle(shared, reading, lost.clone(), lost).await;
            return false;
        }
        while self
            .receiving
            .next(&mut self.protocol, self.number, reading)
        {}
        let window = (shared.options.window_bytes as u64).max(MIN_WINDOW);
        reading.change_received(|received| bound_carried(received, 2 * window));
        if self.was_opened() {
            let why = lost.unwrap_or_else(|| Arc::new(ConnectionError::GoingAway));
            reading.mark(Gap::SessionLost { why });
        }
        true
    }
}

/// Bounds how many unread messages of lost sessions are carried over. Messages beyond `limit` bytes
/// are dropped and marked by a gap. The peer got them back, because they were never acknowledged.
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
    fn unread_messages_of_lost_sessions_are_bounded_and_counted() {
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
