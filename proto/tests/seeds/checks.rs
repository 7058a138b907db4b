//! What must hold: at every moment, and at the end.

use unstall_proto::{EndReason, Fate, Incoming, MessageRef, Seq};

use crate::world::{CLIENT, World};

impl World {
    /// The other side of this session, once there is one that the client knows.
    fn peer_of(&self, who: usize) -> Option<usize> {
        match who {
            CLIENT => self.peer,
            _ => (self.peer == Some(who)).then_some(CLIENT),
        }
    }

    /// After each call: memory stays within its limits, and nothing is acknowledged early.
    pub fn check_bounds(&self, who: usize) {
        let end = &self.ends[who];
        let stats = end.session.stats();
        assert!(
            stats.unacknowledged_cost <= end.limits.replay,
            "{who}: the replay passes its limit of {}: {stats:?}",
            end.limits.replay
        );
        assert!(
            stats.untaken_cost <= end.limits.untaken,
            "{who}: what was received passes the limit of {}: {stats:?}",
            end.limits.untaken
        );
        let processed = self.peer_of(who).map_or(Seq::ZERO, |peer| {
            self.ends[peer].application.processed.seq()
        });
        let acknowledged = end.session.acknowledged();
        assert!(
            acknowledged <= processed,
            "{who}: {acknowledged} is acknowledged, and the peer has processed {processed}"
        );
    }

    /// The next message that the application takes is the next one that was sent.
    pub fn check_message(&self, who: usize, message: &MessageRef<'_>) {
        let index = self.ends[who].application.received;
        let peer = self.peer_of(who);
        let peer = peer.unwrap_or_else(|| panic!("{who}: a message from nobody"));
        let sent = self.ends[peer].sent.get(index);
        let sent = sent.unwrap_or_else(|| panic!("{who}: message {index} was never sent"));
        assert!(
            sent.seq == message.end.seq() && sent.is(message.kind, message.payload),
            "{who}: message {index} has {} bytes and ends at {}; sent was {sent:?}",
            message.payload.len(),
            message.end.seq()
        );
    }

    /// Whether everything said was delivered, both ways.
    pub fn all_delivered(&self) -> bool {
        let Some(peer) = self.peer.filter(|peer| Some(*peer) == self.held) else {
            return false;
        };
        [(CLIENT, peer), (peer, CLIENT)].iter().all(|(from, to)| {
            let (from, to) = (&self.ends[*from], &self.ends[*to]);
            from.application.waits.is_none()
                && from.sent.len() == to.application.received
                && from.session.acknowledged() == from.session.accepted()
        })
    }

    /// The session is over on all sides: what was not delivered was given back and marked.
    pub fn check_end(&mut self) {
        for who in 0..self.ends.len() {
            if !self.ends[who].vanished {
                self.check_end_of(who);
            }
        }
    }

    fn check_end_of(&mut self, who: usize) {
        let peer = self.peer_of(who);
        let peer_received = peer.map_or(0, |peer| self.ends[peer].application.received);
        let peer_sent = peer.map(|peer| &self.ends[peer].sent);
        let whole = peer_sent.map_or(0, |sent| {
            sent.partition_point(|message| message.seq <= self.ends[who].arrived)
        });
        let all_sent = peer_sent.map_or(0, Vec::len);
        let end = &mut self.ends[who];
        let reason = end.ended.clone().expect("it has ended");
        let clean = matches!(reason, EndReason::Closed(_));
        assert_eq!(
            end.application.received, whole,
            "{who}: all that arrived whole is handed over"
        );
        match (&end.application.end, clean) {
            // It may have had the peer's last word before something else went wrong.
            (Some(Incoming::Closed(_)), _) => {
                assert_eq!(
                    whole, all_sent,
                    "{who}: told of the end, and not all has arrived"
                );
            }
            (Some(Incoming::Discontinuity(told)), false) => assert_eq!(*told, reason),
            (told, _) => panic!("{who} ended with {reason:?} and told its application {told:?}"),
        }
        assert_eq!(end.session.poll_timeout(), None, "{who}: a timer is left");
        let stats = end.session.stats();
        assert_eq!(
            stats.receive_memory, 0,
            "{who}: all is taken, and memory is held for it: {stats:?}"
        );
        let acknowledged = end.session.acknowledged();
        let given = end.given;
        let first = end.sent.partition_point(|sent| sent.seq <= acknowledged);
        let missing = &end.sent[first..];
        let back: Vec<_> = end.session.undelivered().collect();
        assert_eq!(
            back.len(),
            missing.len(),
            "{who}: what comes back is not what was not acknowledged"
        );
        assert!(
            !clean || back.is_empty(),
            "{who}: closed, and messages come back"
        );
        assert!(
            first <= peer_received,
            "{who}: a message is lost in silence"
        );
        for (index, (back, sent)) in back.iter().zip(missing).enumerate() {
            assert!(
                sent.is(back.kind, &back.payload) && sent.seq == back.seq,
                "{who}: {sent:?} comes back as something else"
            );
            let fate = match sent.seq <= given {
                true => Fate::MaybeDelivered,
                false => Fate::NotSent,
            };
            assert_eq!(back.fate, fate, "{who}: {sent:?}, given up to {given}");
            let received = first + index < peer_received;
            assert!(
                !received || fate == Fate::MaybeDelivered,
                "{who}: received, and marked as not sent"
            );
            match fate {
                Fate::MaybeDelivered => self.tally.maybe_delivered += 1,
                Fate::NotSent => self.tally.not_sent += 1,
            }
        }
        match reason {
            EndReason::Closed(_) => self.tally.closed += 1,
            EndReason::CloseTimedOut => self.tally.close_timed_out += 1,
            EndReason::Expired => self.tally.expired += 1,
            EndReason::Aborted { .. } | EndReason::AbortedByPeer { .. } => self.tally.aborted += 1,
            EndReason::Rejected(_) => {}
            other => panic!("{who} ended with {other:?}"),
        }
    }
}
