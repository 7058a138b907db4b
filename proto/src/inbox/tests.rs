use super::*;
use crate::limits::MAX_RECORD;
use bytes::BytesMut;

const MAX_MESSAGE: u64 = 1 << 20;

fn accept(
    inbox: &mut Inbox,
    first: u64,
    records: &[(Kind, bool, &[u8])],
) -> Result<(), ProtocolError> {
    let credit = ReceiveCredit::new(1 << 21, 1 << 21);
    let mut buf = BytesMut::new();
    for (kind, continues, payload) in records {
        Record::write(&mut buf, *kind, *continues, payload);
    }
    let bounds = Bounds {
        credit: &credit,
        max_message: MAX_MESSAGE,
        last: None,
    };
    inbox.accept(Seq::new(first), buf.freeze(), &bounds)
}

fn texts(inbox: &mut Inbox) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(batch) = inbox.pop() {
        all.extend(batch.map(|m| String::from_utf8(m.payload.to_vec()).unwrap()));
    }
    all
}

use Kind::{Binary, Text};

#[test]
fn records_come_out_in_order_and_empty_messages_are_messages() {
    let mut inbox = Inbox::default();
    accept(
        &mut inbox,
        1,
        &[
            (Text, false, b"a"),
            (Text, false, b""),
            (Binary, false, b"c"),
        ],
    )
    .unwrap();
    assert_eq!(inbox.received(), Seq::new(3));
    assert_eq!(texts(&mut inbox), ["a", "", "c"]);
}

#[test]
fn a_gap_is_an_error_and_nothing_of_it_is_kept() {
    let mut inbox = Inbox::default();
    let error = accept(&mut inbox, 2, &[(Text, false, b"b")]).unwrap_err();
    assert_eq!(
        error,
        ProtocolError::SequenceGap {
            expected: Seq::new(1),
            first: Seq::new(2)
        }
    );
    assert!(error.is_resumable());
    assert!(inbox.pop().is_none());
    assert_eq!(inbox.received(), Seq::ZERO);
}

#[test]
fn a_duplicate_is_dropped_and_counted_also_when_it_is_a_part_of_a_packet() {
    let mut inbox = Inbox::default();
    accept(&mut inbox, 1, &[(Text, false, b"a"), (Text, false, b"b")]).unwrap();
    accept(&mut inbox, 1, &[(Text, false, b"a")]).unwrap();
    accept(&mut inbox, 2, &[(Text, false, b"b"), (Text, false, b"c")]).unwrap();
    assert_eq!(inbox.duplicates(), 2);
    assert_eq!(texts(&mut inbox), ["a", "b", "c"]);
}

#[test]
fn a_message_in_several_records_comes_out_whole_between_its_neighbours() {
    let mut inbox = Inbox::default();
    accept(
        &mut inbox,
        1,
        &[
            (Text, false, b"a"),
            (Text, true, "\u{e9}".as_bytes().split_at(1).0),
        ],
    )
    .unwrap();
    assert_eq!(inbox.progress().incomplete, 65);
    accept(
        &mut inbox,
        3,
        &[
            (Text, false, "\u{e9}".as_bytes().split_at(1).1),
            (Text, false, b"z"),
        ],
    )
    .unwrap();
    assert_eq!(inbox.progress().incomplete, 0);
    assert_eq!(texts(&mut inbox), ["a", "\u{e9}", "z"]);
}

#[test]
fn text_that_is_not_utf_8_is_an_error_whole_or_in_parts() {
    let mut inbox = Inbox::default();
    assert_eq!(
        accept(&mut inbox, 1, &[(Text, false, b"\xff")]),
        Err(ProtocolError::InvalidText)
    );
    let mut inbox = Inbox::default();
    assert_eq!(
        accept(&mut inbox, 1, &[(Text, true, b"\xc3"), (Text, false, b"a")]),
        Err(ProtocolError::InvalidText)
    );
}

#[test]
fn a_message_past_the_limit_is_an_error_before_it_is_held() {
    let mut inbox = Inbox::default();
    let part = [0; MAX_RECORD];
    for first in 1..=16 {
        accept(&mut inbox, first, &[(Binary, true, &part)]).unwrap();
    }
    assert_eq!(
        accept(&mut inbox, 17, &[(Binary, true, b"x")]),
        Err(ProtocolError::MessageTooLarge { limit: MAX_MESSAGE })
    );
}

#[test]
fn nothing_is_accepted_past_the_last_sequence_number() {
    let mut inbox = Inbox::default();
    inbox.received.seq = Seq::new(u64::MAX - 1);
    accept(&mut inbox, u64::MAX, &[(Text, false, b"last")]).unwrap();
    assert_eq!(
        accept(&mut inbox, u64::MAX, &[(Text, false, b"again")]),
        Err(ProtocolError::SequenceExhausted)
    );
    let mut inbox = Inbox::default();
    inbox.received.seq = Seq::new(u64::MAX - 1);
    assert_eq!(
        accept(
            &mut inbox,
            u64::MAX,
            &[(Text, false, b"a"), (Text, false, b"b")]
        ),
        Err(ProtocolError::SequenceExhausted)
    );
}

#[test]
fn only_what_was_handed_over_can_be_taken() {
    let mut inbox = Inbox::default();
    accept(
        &mut inbox,
        1,
        &[(Text, false, b"a"), (Text, false, b"b"), (Text, false, b"")],
    )
    .unwrap();
    let end = inbox.received;
    assert!(!inbox.take_up_to(end), "not handed over");
    let mut batch = inbox.pop().unwrap();
    batch.next_ref().unwrap();
    let first = batch.position();
    assert!(inbox.take_up_to(first));
    assert_eq!(inbox.taken(), first);
    assert!(inbox.take_up_to(end) && inbox.take_up_to(first));
    assert_eq!(inbox.taken(), end, "what was taken stays taken");
    // Of other sessions: one that is ahead, and those whose messages are longer or shorter.
    for (seq, offset) in [(4, 260), (2, 194), (2, 140), (3, 260), (0, 64)] {
        let other = Position {
            seq: Seq::new(seq),
            offset: crate::Offset::new(offset),
        };
        assert!(!inbox.take_up_to(other), "{other:?}");
        assert_eq!(inbox.taken(), end);
    }
}
