//! The application that publishes, and what it was told of each message.

use std::collections::HashMap;

use bytes::Bytes;
use unstall_proto::topics::{ClientEvent, Offset, Refusal};

use crate::ledger::Ledger;

/// What a client has said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stored(Option<Offset>),
    NotStored,
    Unknown,
}

/// All messages of a publisher.
pub struct Writer {
    has_id: bool,
    /// By number, from 1.
    pub sent: Vec<Bytes>,
    fates: HashMap<u64, Fate>,
    /// The next number whose fate may be told.
    next: u64,
}

impl Writer {
    pub fn new(has_id: bool) -> Writer {
        Writer {
            has_id,
            sent: Vec::new(),
            fates: HashMap::new(),
            next: 1,
        }
    }

    /// An event of the client, if it tells the fate of messages.
    pub fn learn(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Published {
                first,
                count,
                offset,
                ..
            } => {
                for index in 0..*count {
                    let offset = offset.map(|first| first.checked_add(index).unwrap());
                    self.tell(first + index, Fate::Stored(offset));
                }
            }
            ClientEvent::Refused {
                number,
                reason,
                may_be_stored,
                ..
            } => {
                assert!(*may_be_stored || *reason != Refusal::Unknown);
                self.tell(
                    *number,
                    match may_be_stored {
                        true => Fate::Unknown,
                        false => Fate::NotStored,
                    },
                );
            }
            ClientEvent::Unknown { first, count } => {
                for number in *first..first + count {
                    self.tell(number, Fate::Unknown);
                }
            }
            _ => {}
        }
    }

    pub fn tell(&mut self, number: u64, fate: Fate) {
        assert_eq!(number, self.next, "fates come in order, and once");
        self.next += 1;
        self.fates.insert(number, fate);
    }

    pub fn count(&self, wanted: impl Fn(Fate) -> bool) -> u64 {
        self.fates.values().filter(|fate| wanted(**fate)).count() as u64
    }

    /// Each message was stored once, or as its fate says.
    pub fn check(&self, ledger: &Ledger) {
        assert_eq!(self.fates.len(), self.sent.len(), "each has a fate");
        for (payload, number) in self.sent.iter().zip(1..) {
            let fate = self.fates[&number];
            let mut stored = 0;
            for life in &ledger.lives {
                let new = life.all.iter().filter(|entry| entry.offset > life.kept);
                let found: Vec<_> = new.filter(|entry| entry.payload == *payload).collect();
                assert!(
                    found.len() <= 1,
                    "message {number} is stored twice: {found:?}"
                );
                // What a log has kept was counted in its life before.
                stored += found.len();
                if let (Fate::Stored(Some(offset)), [entry]) = (fate, &found[..]) {
                    let told_of_this = entry.offset == offset;
                    assert!(
                        told_of_this || ledger.lives.len() > 1,
                        "{number} at {offset}"
                    );
                }
            }
            match fate {
                Fate::Stored(_) => assert!(stored > 0, "message {number} is not stored"),
                Fate::NotStored => assert_eq!(stored, 0, "message {number} is stored"),
                Fate::Unknown => {}
            }
        }
        // Without an id, what is left of an old connection may be stored late.
        if self.has_id {
            self.check_order(ledger);
        }
    }

    /// A publisher's messages are stored in the order of their numbers.
    fn check_order(&self, ledger: &Ledger) {
        let numbers: HashMap<_, _> = self.sent.iter().zip(1u64..).collect();
        for life in &ledger.lives {
            let new = life.all.iter().filter(|entry| entry.offset > life.kept);
            let mut last = 0;
            for number in new.filter_map(|entry| numbers.get(&entry.payload)) {
                assert!(*number > last, "{number} is stored behind {last}");
                last = *number;
            }
        }
    }
}
