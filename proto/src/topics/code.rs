//! Numbers of the wire for the words in `terms`.

use super::terms::{Durability, GapReason, Refusal, SubscriptionEnd};
use crate::error::ProtocolError;

/// A word that is one byte on the wire.
pub(super) trait Code: Copy + Sized + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// What is said of a number that none of them has.
    const UNKNOWN: &'static str;

    /// The number.
    fn code(self) -> u8;

    /// The word with this number.
    fn from_code(code: u8) -> Result<Self, ProtocolError> {
        let found = Self::ALL.iter().find(|word| word.code() == code);
        found
            .copied()
            .ok_or(ProtocolError::Malformed(Self::UNKNOWN))
    }
}

impl Code for Durability {
    const ALL: &'static [Durability] = &[
        Durability::Memory,
        Durability::Disk,
        Durability::Quorum,
        Durability::QuorumDisk,
        Durability::DiskLater,
    ];
    const UNKNOWN: &'static str = "a durability that does not exist";

    fn code(self) -> u8 {
        self as u8
    }
}

impl Code for Refusal {
    const ALL: &'static [Refusal] = &[
        Refusal::NotAllowed,
        Refusal::InvalidTopic,
        Refusal::TooLarge,
        Refusal::Full,
        Refusal::Fenced,
        Refusal::Expired,
        Refusal::Unknown,
        Refusal::Unavailable,
    ];
    const UNKNOWN: &'static str = "a refusal for a reason that does not exist";

    fn code(self) -> u8 {
        self as u8
    }
}

impl Code for GapReason {
    const ALL: &'static [GapReason] = &[
        GapReason::Removed,
        GapReason::AnotherLog,
        GapReason::Diverged,
        GapReason::MovedAhead,
        GapReason::TooLarge,
        GapReason::Damaged,
    ];
    const UNKNOWN: &'static str = "a gap for a reason that does not exist";

    fn code(self) -> u8 {
        self as u8
    }
}

impl Code for SubscriptionEnd {
    const ALL: &'static [SubscriptionEnd] = &[
        SubscriptionEnd::Unsubscribed,
        SubscriptionEnd::Final,
        SubscriptionEnd::NotAllowed,
        SubscriptionEnd::Expired,
        SubscriptionEnd::InvalidFilter,
        SubscriptionEnd::TooMany,
        SubscriptionEnd::Unavailable,
    ];
    const UNKNOWN: &'static str = "an end for a reason that does not exist";

    fn code(self) -> u8 {
        self as u8
    }
}
