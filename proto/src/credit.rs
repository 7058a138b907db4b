//! Credit: the offset up to which a peer may send (SPEC.md, "Credit"). It is absolute, as MAX_DATA
//! of RFC 9000, section 4.1.

use crate::error::ProtocolError;
use crate::number::Offset;

/// The credit that the peer granted to this side.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct SendCredit {
    limit: Offset,
    /// The last BLOCKED on this connection named this credit.
    told: Option<Offset>,
}

impl SendCredit {
    pub(crate) fn limit(&self) -> Offset {
        self.limit
    }

    /// The peer grants credit up to `limit`. Less than before has no effect.
    pub(crate) fn raise(&mut self, limit: Offset) {
        self.limit = self.limit.max(limit);
    }

    /// A new connection begins. What was told on the older one may be lost.
    pub(crate) fn reconnect(&mut self) {
        self.told = None;
    }

    /// Whether the peer is still to be told that this credit is used up.
    pub(crate) fn owes_blocked(&self) -> bool {
        self.told != Some(self.limit)
    }

    /// The credit to tell it of, once.
    pub(crate) fn tell_blocked(&mut self) -> Offset {
        self.told = Some(self.limit);
        self.limit
    }
}

/// The credit that this side grants to the peer.
///
/// Invariant: `granted` never falls. It never exceeds what was taken, an incomplete message, and
/// the largest window together.
#[derive(Clone, Debug, Hash)]
pub(crate) struct ReceiveCredit {
    window: u64,
    max_window: u64,
    granted: Offset,
    /// The credit that the peer has used up, as its last BLOCKED says.
    blocked: Option<Offset>,
}

/// How far the peer's messages have come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The end of what was received.
    pub(crate) received: Offset,
    /// The end of what the application has taken.
    pub(crate) taken: Offset,
    /// The cost of the records of an incomplete message. The application cannot take them yet, so
    /// they do not use up the window. The largest message bounds them instead.
    pub(crate) incomplete: u64,
}

impl Progress {
    /// The cost of what the application could take.
    fn waiting(self) -> u64 {
        self.received
            .since(self.taken)
            .saturating_sub(self.incomplete)
    }
}

impl ReceiveCredit {
    pub(crate) fn new(window: u64, max_window: u64) -> ReceiveCredit {
        ReceiveCredit {
            window,
            max_window,
            granted: Offset::new(window),
            blocked: None,
        }
    }

    pub(crate) fn granted(&self) -> Offset {
        self.granted
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Checks that the peer may send up to `end`.
    pub(crate) fn check(&self, end: Offset) -> Result<(), ProtocolError> {
        if end > self.granted {
            return Err(ProtocolError::CreditExceeded {
                sent: end,
                granted: self.granted,
            });
        }
        Ok(())
    }

    /// Whether a renewal would raise the credit by at least half the window. Smaller renewals would
    /// cost many packets (the silly window syndrome of RFC 9293, section 3.8.6.2).
    pub(crate) fn is_due(&self, progress: Progress) -> bool {
        self.target(progress).since(self.granted) >= self.window / 2
    }

    /// Raises the credit as far as it goes now.
    pub(crate) fn renew(&mut self, progress: Progress) -> Offset {
        self.granted = self.granted.max(self.target(progress));
        self.granted
    }

    /// The peer has more to send than its credit `limit` allows. It cannot know of more credit than
    /// was granted.
    pub(crate) fn peer_blocked(&mut self, limit: Offset, progress: Progress) {
        self.blocked = Some(limit.min(self.granted));
        self.grow_if_starved(progress);
    }

    /// Whether the peer has said that it waits for credit, and was granted no more since.
    pub(crate) fn holds_peer_back(&self) -> bool {
        self.blocked.is_some_and(|limit| limit >= self.granted)
    }

    /// Doubles the window, up to its bound, when it is what limits the stream: the application has
    /// taken everything, and the peer still waits for credit. With a slower application, more
    /// arrives before it has taken everything.
    pub(crate) fn grow_if_starved(&mut self, progress: Progress) {
        let Some(limit) = self.blocked else { return };
        if progress.received > limit {
            self.blocked = None;
        } else if progress.waiting() == 0 {
            self.blocked = None;
            self.window = self.window.saturating_mul(2).min(self.max_window);
        }
    }

    fn target(&self, progress: Progress) -> Offset {
        progress
            .taken
            .saturating_add(progress.incomplete)
            .saturating_add(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(received: u64, taken: u64, incomplete: u64) -> Progress {
        Progress {
            received: Offset::new(received),
            taken: Offset::new(taken),
            incomplete,
        }
    }

    #[test]
    fn credit_is_renewed_past_half_a_window_and_not_before() {
        let mut credit = ReceiveCredit::new(1000, 1000);
        assert!(!credit.is_due(progress(1000, 499, 0)));
        assert!(credit.is_due(progress(1000, 500, 0)));
        assert_eq!(credit.renew(progress(1000, 500, 0)), Offset::new(1500));
        assert!(!credit.is_due(progress(1000, 999, 0)));
    }

    #[test]
    fn when_all_is_taken_half_a_window_is_always_open() {
        let mut credit = ReceiveCredit::new(1000, 1000);
        for taken in 0..5000 {
            let now = progress(taken, taken, 0);
            if credit.is_due(now) {
                credit.renew(now);
            }
            assert!(credit.granted().since(Offset::new(taken)) > 500);
        }
    }

    #[test]
    fn a_message_larger_than_the_window_still_gets_through() {
        let mut credit = ReceiveCredit::new(1000, 1000);
        assert!(credit.is_due(progress(600, 0, 600)));
        assert_eq!(credit.renew(progress(600, 0, 600)), Offset::new(1600));
        // Complete and not taken: nothing more is granted.
        assert!(!credit.is_due(progress(1600, 0, 0)));
        assert_eq!(credit.renew(progress(1600, 0, 0)), Offset::new(1600));
    }

    #[test]
    fn a_byte_past_the_credit_is_an_error() {
        let credit = ReceiveCredit::new(1000, 1000);
        assert_eq!(credit.check(Offset::new(1000)), Ok(()));
        assert!(matches!(
            credit.check(Offset::new(1001)),
            Err(ProtocolError::CreditExceeded { .. })
        ));
    }

    #[test]
    fn the_window_grows_only_while_the_application_keeps_up_and_up_to_its_bound() {
        let mut credit = ReceiveCredit::new(1000, 3000);
        credit.peer_blocked(Offset::new(1000), progress(1000, 100, 0));
        assert!(credit.holds_peer_back());
        credit.grow_if_starved(progress(1000, 600, 0));
        credit.renew(progress(1000, 600, 0));
        assert!(!credit.holds_peer_back(), "it may send up to 1600 now");
        credit.grow_if_starved(progress(1200, 1200, 0));
        assert_eq!(credit.window(), 1000, "more came before all was taken");
        credit.peer_blocked(Offset::new(1600), progress(1600, 1000, 0));
        credit.grow_if_starved(progress(1600, 1600, 0));
        assert_eq!(credit.window(), 2000);
        credit.grow_if_starved(progress(1600, 1600, 0));
        assert_eq!(
            credit.window(),
            2000,
            "once for each time that the peer is blocked"
        );
        assert_eq!(credit.renew(progress(1600, 1600, 0)), Offset::new(3600));
        credit.peer_blocked(Offset::new(3600), progress(3600, 3600, 0));
        credit.peer_blocked(Offset::new(3600), progress(3600, 3600, 0));
        assert_eq!(credit.window(), 3000);
    }

    #[test]
    fn a_peer_that_is_blocked_beyond_its_credit_is_blocked_at_its_credit() {
        let mut credit = ReceiveCredit::new(1000, 8000);
        credit.peer_blocked(Offset::new(u64::MAX), progress(900, 0, 0));
        assert!(credit.holds_peer_back());
        assert_eq!(credit.renew(progress(900, 500, 0)), Offset::new(1500));
        assert!(!credit.holds_peer_back(), "it has credit again");
        credit.grow_if_starved(progress(1200, 1200, 0));
        assert_eq!(credit.window(), 1000, "it sent on after the renewal");
    }

    #[test]
    fn a_lower_limit_that_comes_late_is_of_no_effect() {
        let mut credit = SendCredit::default();
        credit.raise(Offset::new(100));
        credit.raise(Offset::new(50));
        credit.raise(Offset::new(100));
        assert_eq!(credit.limit(), Offset::new(100));
    }

    #[test]
    fn being_blocked_is_told_once_for_each_limit_and_connection() {
        let mut credit = SendCredit::default();
        credit.raise(Offset::new(100));
        assert!(credit.owes_blocked());
        credit.tell_blocked();
        assert!(!credit.owes_blocked());
        credit.raise(Offset::new(200));
        assert!(credit.owes_blocked());
        credit.tell_blocked();
        credit.reconnect();
        assert!(credit.owes_blocked());
    }
}
