//! Messages of the peer: handing them over, and what the application says of them.

use bytes::Bytes;

use crate::ack::Acks;
use crate::credit::ReceiveCredit;
use crate::error::ProtocolError;
use crate::event::{EndReason, Incoming};
use crate::inbox::{Bounds, Inbox};
use crate::limits::{Acknowledge, Config};
use crate::number::{Offset, Position, Seq};
use crate::session::Session;
use crate::state::State;
use crate::time::Time;
use crate::timer::Timer;

/// What this side receives.
#[derive(Clone, Debug, Hash)]
pub(super) struct Receiving {
    pub(super) inbox: Inbox,
    pub(super) credit: ReceiveCredit,
    pub(super) acks: Acks,
    /// The application was told that nothing follows.
    end_told: bool,
}

impl Receiving {
    pub(super) fn new(config: &Config) -> Receiving {
        Receiving {
            inbox: Inbox::default(),
            credit: ReceiveCredit::new(config.window, config.max_window),
            acks: Acks::default(),
            end_told: false,
        }
    }

    /// Raises the peer's credit as far as it goes now.
    pub(super) fn renew_credit(&mut self) -> Offset {
        self.credit.renew(self.inbox.progress())
    }

    /// Whether raising it is worth a packet.
    pub(super) fn is_credit_due(&self) -> bool {
        self.credit.is_due(self.inbox.progress())
    }

    fn take_up_to(&mut self, position: Position) -> bool {
        let valid = self.inbox.take_up_to(position);
        self.credit.grow_if_starved(self.inbox.progress());
        valid
    }
}

impl Session {
    /// The next thing for the application, in order: messages, and at last the end. Handing
    /// messages over is not taking them: the peer is told nothing yet, so they may wait elsewhere.
    ///
    /// After calling this: [`taken`](Session::taken), when the application has taken them.
    pub fn recv(&mut self) -> Option<Incoming> {
        if let Some(batch) = self.receiving.inbox.pop() {
            return Some(Incoming::Messages(batch));
        }
        if self.receiving.end_told {
            return None;
        }
        let end = match &self.state {
            State::Ended {
                reason: EndReason::Closed(frame),
                ..
            } => Incoming::Closed(frame.clone()),
            State::Ended { reason, .. } => Incoming::Discontinuity(reason.clone()),
            other => Incoming::Closed(other.closing()?.peer.as_ref()?.1.clone()),
        };
        self.receiving.end_told = true;
        Some(end)
    }

    /// The application has taken all messages up to `position`. This renews the peer's credit and,
    /// unless the application acknowledges by hand, acknowledges the messages. One call reports any
    /// number of messages. A position before the last one reported has no effect.
    ///
    /// Returns `false`, and nothing changes, when no message that [`recv`](Session::recv) has
    /// handed over can end there. A position of another session mostly cannot, but sometimes can.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) if
    /// [`wants_transmit`](Session::wants_transmit), and [`poll_timeout`](Session::poll_timeout).
    pub fn taken(&mut self, now: Time, position: Position) -> bool {
        let valid = self.receiving.take_up_to(position);
        if self.config.acknowledge == Acknowledge::WhenTaken {
            self.acknowledge_taken(now, self.receiving.inbox.taken());
        }
        valid
    }

    /// The application has processed all messages up to `position`, and so has taken them. Only
    /// needed with [`Acknowledge::ByHand`]. Everything else is as with [`taken`](Session::taken).
    ///
    /// The session keeps nothing for messages that were taken and not processed. The peer keeps
    /// them, up to its own replay limit.
    pub fn acknowledge(&mut self, now: Time, position: Position) -> bool {
        let valid = self.receiving.take_up_to(position);
        if valid {
            self.acknowledge_taken(now, position);
        }
        valid
    }

    /// Sends the acknowledgement of what was taken without delay. Returns whether there is one:
    /// [`poll_transmit`](Session::poll_transmit) gives it.
    pub fn hurry_acknowledgement(&mut self) -> bool {
        self.receiving.acks.hurry();
        self.receiving.acks.is_owed()
    }

    fn acknowledge_taken(&mut self, now: Time, position: Position) {
        if self.state.is_ended() {
            return;
        }
        self.receiving.acks.advance(position);
        if self.receiving.acks.is_owed() {
            self.timers
                .start(Timer::AckDelay, now, self.config.ack_delay);
        }
        self.check_finished();
    }

    /// The records of a DATA packet have come.
    pub(super) fn handle_data(&mut self, first: Seq, records: Bytes) -> Result<(), ProtocolError> {
        let closing = self.state.closing();
        let bounds = Bounds {
            credit: &self.receiving.credit,
            max_message: self.config.max_message,
            last: closing.and_then(|closing| closing.peer.as_ref().map(|(last, _)| *last)),
        };
        self.receiving.inbox.accept(first, records, &bounds)
    }

    /// The peer has more to send than its credit allows.
    pub(super) fn handle_blocked(&mut self, limit: Offset) {
        let progress = self.receiving.inbox.progress();
        self.receiving.credit.peer_blocked(limit, progress);
    }

    /// Whether the peer has said that it waits for credit. It gets credit when the application
    /// takes what was received.
    pub fn holds_peer_back(&self) -> bool {
        self.receiving.credit.holds_peer_back()
    }

    /// The offset up to which the peer may send.
    pub fn granted(&self) -> Offset {
        self.receiving.credit.granted()
    }
}
