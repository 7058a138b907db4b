//! When to acknowledge (SPEC.md, "Acknowledgement").

use crate::limits::Config;
use crate::number::{Position, Seq};

/// What may be acknowledged, and what was.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Acks {
    /// The end of what the application has taken, or processed.
    ready: Position,
    /// The end of what was acknowledged.
    told: Position,
    /// Acknowledge now and do not wait for more.
    urgent: bool,
    /// Acknowledge even if nothing is new.
    confirm: bool,
}

impl Acks {
    pub(crate) fn ready(&self) -> Seq {
        self.ready.seq
    }

    /// The application has taken or processed everything up to `position`.
    pub(crate) fn advance(&mut self, position: Position) {
        self.ready = self.ready.max(position);
    }

    /// Does not wait for more to acknowledge.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// WELCOME has come: the first packet after it confirms the new token.
    pub(crate) fn confirm(&mut self) {
        self.confirm = true;
    }

    /// Whether there is something to acknowledge.
    pub(crate) fn is_owed(&self) -> bool {
        self.confirm || self.ready > self.told
    }

    /// Whether to acknowledge now, also when nothing else is to be sent.
    pub(crate) fn is_due(&self, config: &Config) -> bool {
        self.is_owed()
            && (self.confirm
                || self.urgent
                || self.ready.offset.since(self.told.offset) >= config.ack_bytes
                || self.ready.seq.since(self.told.seq) >= config.ack_records)
    }

    /// The acknowledgement is sent.
    pub(crate) fn tell(&mut self) -> Seq {
        self.told = self.ready;
        self.urgent = false;
        self.confirm = false;
        self.ready.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Offset;

    fn at(seq: u64, offset: u64) -> Position {
        Position {
            seq: Seq::new(seq),
            offset: Offset::new(offset),
        }
    }

    #[test]
    fn bytes_count_or_delay_whichever_comes_first() {
        let config = Config::new().ack_bytes(1000).ack_records(10);
        let mut acks = Acks::default();
        assert!(!acks.is_owed());
        acks.advance(at(9, 999));
        assert!(acks.is_owed() && !acks.is_due(&config));
        acks.advance(at(9, 1000));
        assert!(acks.is_due(&config));
        assert_eq!(acks.tell(), Seq::new(9));
        acks.advance(at(19, 1010));
        assert!(acks.is_due(&config));
        acks.tell();
        acks.advance(at(20, 1020));
        assert!(!acks.is_due(&config));
        acks.hurry();
        assert!(acks.is_due(&config));
        acks.tell();
        assert!(!acks.is_owed());
    }

    #[test]
    fn a_connection_is_confirmed_also_when_nothing_is_new() {
        let mut acks = Acks::default();
        acks.confirm();
        assert!(acks.is_due(&Config::new()));
        assert_eq!(acks.tell(), Seq::ZERO);
        assert!(!acks.is_owed());
    }
}
