//! Arithmetic of sequence numbers and offsets, above all at its edges.

use proptest::prelude::*;
use unstall_proto::{Generation, Offset, Seq};

/// Any number, and often one at an edge.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..4_u64, u64::MAX - 3..=u64::MAX]
}

/// The exact sum, if it is a number of the protocol.
fn sum(a: u64, b: u64) -> Option<u64> {
    u64::try_from(u128::from(a) + u128::from(b)).ok()
}

proptest! {
    #[test]
    fn sums_are_exact_or_none(a in number(), b in number()) {
        prop_assert_eq!(Seq::new(a).checked_add(b).map(Seq::get), sum(a, b));
        prop_assert_eq!(Offset::new(a).checked_add(b).map(Offset::get), sum(a, b));
        let saturated = sum(a, b).unwrap_or(u64::MAX);
        prop_assert_eq!(Offset::new(a).saturating_add(b).get(), saturated);
        prop_assert_eq!(Seq::new(a).next().map(Seq::get), sum(a, 1));
        prop_assert_eq!(Generation::new(a).next().map(Generation::get), sum(a, 1));
    }

    #[test]
    fn distances_undo_sums_and_are_never_negative(a in number(), b in number()) {
        if let Some(end) = Seq::new(a).checked_add(b) {
            prop_assert_eq!(end.since(Seq::new(a)), b);
            prop_assert_eq!(Seq::new(a).since(end), 0);
        }
        if let Some(end) = Offset::new(a).checked_add(b) {
            prop_assert_eq!(end.since(Offset::new(a)), b);
            prop_assert_eq!(Offset::new(a).since(end), 0);
        }
        prop_assert_eq!(Seq::new(a) < Seq::new(b), a < b);
    }
}
