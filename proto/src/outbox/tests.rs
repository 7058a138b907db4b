use super::*;
use crate::limits::MAX_PACKET_COST;

const ALL: Offset = Offset::new(u64::MAX);

fn outbox() -> Outbox {
    Outbox::new(1 << 20)
}

fn sent(outbox: &mut Outbox) -> Vec<Bytes> {
    std::iter::from_fn(|| outbox.transmit(ALL).map(|p| p.packet.clone().into_bytes())).collect()
}

#[test]
fn many_small_messages_share_a_packet() {
    let mut outbox = outbox();
    for _ in 0..400 {
        outbox.push(Payload::Binary(&[7; 64])).unwrap();
    }
    let packets = sent(&mut outbox);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].len(), 9 + 400 * 66);
    assert_eq!(
        &packets[0][..11],
        &[0x10, 0, 0, 0, 0, 0, 0, 0, 1, 0x41, 0x00]
    );
}

/// Records of so many messages of that size, as a sending thread encodes them.
fn encoded(messages: usize, size: usize) -> Records {
    let mut records = Records::default();
    for _ in 0..messages {
        assert!(records.push(Payload::Binary(&vec![7; size])));
    }
    records
}

#[test]
fn encoded_records_make_the_packets_that_their_messages_would_have_made() {
    for (messages, size) in [(1, 5), (3, 64), (400, 64), (1, MAX_RECORD)] {
        let (mut one_by_one, mut at_once) = (outbox(), outbox());
        for outbox in [&mut one_by_one, &mut at_once] {
            outbox.push(Payload::Text("before")).unwrap();
            sent(outbox);
        }
        for _ in 0..messages {
            one_by_one.push(Payload::Binary(&vec![7; size])).unwrap();
        }
        let mut records = encoded(messages, size);
        let last = at_once.push_records(&mut records);
        assert_eq!(last, Some(one_by_one.accepted()));
        assert!(records.is_empty());
        assert_eq!(at_once.cost(), one_by_one.cost());
        assert_eq!(sent(&mut at_once), sent(&mut one_by_one));
    }
}

#[test]
fn small_runs_of_encoded_records_share_packets_and_large_ones_are_not_copied() {
    let mut outbox = outbox();
    for _ in 0..100 {
        outbox.push_records(&mut encoded(2, 64)).unwrap();
    }
    let block = BytesMut::with_capacity(PACKET_FILL);
    let address = block.as_ptr();
    let mut large = Records::over(block);
    (0..300).for_each(|_| assert!(large.push(&[7; 64][..])));
    outbox.push_records(&mut large).unwrap();
    outbox.push(Payload::Text("behind")).unwrap();
    let packets = sent(&mut outbox);
    assert_eq!(packets.len(), 3);
    assert_eq!(packets[0].len(), DATA_HEADER + 200 * 66);
    assert_eq!(packets[1].as_ptr(), address);
    assert_eq!(packets[1][1..DATA_HEADER], 201u64.to_be_bytes());
    assert_eq!(packets[2][1..DATA_HEADER], 501u64.to_be_bytes());
    outbox.acknowledge(Seq::new(501)).unwrap();
    assert!(outbox.is_delivered());
}

#[test]
fn shared_messages_make_the_same_packets_and_long_ones_are_not_copied() {
    let sizes = [1, 5, PACKET_FILL - 1, PACKET_FILL, MAX_RECORD];
    for size in sizes.into_iter().chain([MAX_RECORD + 1, 3 * MAX_RECORD]) {
        let (mut copied, mut shared) = (outbox(), outbox());
        let payload = Bytes::from(vec![7; size]);
        for _ in 0..2 {
            let last = copied.push(Payload::Binary(&payload));
            assert_eq!(shared.push_shared(Kind::Binary, &payload), last);
            copied.push(Payload::Text("between")).unwrap();
            shared.push(Payload::Text("between")).unwrap();
        }
        assert_eq!(shared.cost(), copied.cost());
        let bodies = shared.clone().take_undelivered();
        assert_eq!(
            bodies.map(|it| it.payload.len()).sum::<usize>(),
            2 * (size + 7)
        );
        assert_eq!(sent(&mut shared), sent(&mut copied), "{size}");
        let first = &shared.sealed[0].packet.body;
        let apart = !first.is_empty() && first.as_ptr() == payload.as_ptr();
        assert_eq!(apart, size >= PACKET_FILL);
        let end = shared.accepted();
        shared.acknowledge(end).unwrap();
        assert!(shared.is_delivered() && payload.is_unique());
    }
}

#[test]
fn encoded_records_that_find_no_room_stay_as_they_were() {
    let mut outbox = Outbox::new(500);
    let mut records = encoded(4, 64);
    assert_eq!(outbox.push_records(&mut records), None);
    assert_eq!(records.messages(), 4);
    assert_eq!(outbox.accepted(), Seq::ZERO);
    outbox.push_records(&mut encoded(3, 64)).unwrap();
    assert_eq!(outbox.cost(), 384);
}

#[test]
fn no_packet_costs_more_than_the_bound() {
    let mut outbox = Outbox::new(u64::MAX);
    for _ in 0..10_000 {
        outbox.push(Payload::Text("")).unwrap();
    }
    let mut last = Offset::ZERO;
    while let Some(packet) = outbox.transmit(ALL) {
        assert!(packet.end.offset.since(last) <= MAX_PACKET_COST);
        last = packet.end.offset;
    }
    assert_eq!(last.get(), 640_000);
}

#[test]
fn the_very_bytes_are_sent_again_from_the_peers_position() {
    let mut outbox = outbox();
    let mut packets = Vec::new();
    for message in ["one", "two", "three"] {
        outbox.push(Payload::Text(message)).unwrap();
        packets.extend(sent(&mut outbox));
    }
    assert_eq!(outbox.rewind(Seq::new(1)), 2);
    let again = sent(&mut outbox);
    assert_eq!(again, packets[1..]);
    assert_eq!(again[0].as_ptr(), packets[1].as_ptr());
}

/// Once acknowledgements that came together freed all blocks but sixteen. The next packets allocated them
/// anew, and page faults took a tenth of a sender's time.
#[test]
fn blocks_that_are_acknowledged_together_are_used_again() {
    let mut outbox = Outbox::new(16 << 20);
    let fill = |outbox: &mut Outbox| {
        let mut places = Vec::new();
        for _ in 0..32 {
            let mut packet = outbox
                .spare_records()
                .unwrap_or_else(|| Records::with_capacity(PACKET_FILL));
            while packet.push(&[7; 4096][..]) {}
            outbox.push_records(&mut packet).unwrap();
        }
        while let Some(sealed) = outbox.transmit(Offset::new(u64::MAX)) {
            places.push(sealed.packet.head.as_ptr());
        }
        places.sort();
        places
    };
    let first = fill(&mut outbox);
    assert_eq!(first.len(), 32);
    outbox.acknowledge(outbox.accepted()).unwrap();
    assert_eq!(fill(&mut outbox), first);
}

#[test]
fn full_refuses_and_an_acknowledgement_makes_room() {
    let mut outbox = Outbox::new(200);
    outbox.push(Payload::Binary(&[0; 36])).unwrap();
    outbox.push(Payload::Binary(&[0; 36])).unwrap();
    assert_eq!(outbox.room(), 0);
    assert_eq!(outbox.push(Payload::Binary(&[])), None);
    assert_eq!(sent(&mut outbox).len(), 1);
    outbox.acknowledge(Seq::new(2)).unwrap();
    assert_eq!(outbox.room(), 200);
    assert!(outbox.is_delivered());
    assert_eq!(outbox.push(Payload::Binary(&[])), Some(Seq::new(3)));
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_an_error() {
    let mut outbox = outbox();
    outbox.push(Payload::Text("a")).unwrap();
    assert!(
        outbox.acknowledge(Seq::new(1)).is_err(),
        "accepted, but not sent"
    );
    sent(&mut outbox);
    assert!(outbox.acknowledge(Seq::new(2)).is_err());
    outbox.acknowledge(Seq::new(1)).unwrap();
    outbox.acknowledge(Seq::new(1)).unwrap();
}

#[test]
fn after_a_resume_only_what_this_connection_carried_can_be_acknowledged() {
    let mut outbox = outbox();
    for _ in 0..2 {
        outbox.push(Payload::Text("a")).unwrap();
        sent(&mut outbox);
    }
    outbox.rewind(Seq::new(1));
    assert!(outbox.acknowledge(Seq::new(2)).is_err());
    sent(&mut outbox);
    outbox.acknowledge(Seq::new(2)).unwrap();
}

#[test]
fn an_acknowledgement_within_a_message_is_an_error() {
    let mut outbox = outbox();
    assert_eq!(
        outbox.push(Payload::Binary(&[0; MAX_RECORD + 1])),
        Some(Seq::new(2))
    );
    assert_eq!(sent(&mut outbox).len(), 2);
    assert!(outbox.acknowledge(Seq::new(1)).is_err());
    outbox.acknowledge(Seq::new(2)).unwrap();
}

#[test]
fn a_packet_waits_until_credit_covers_all_of_it() {
    let mut outbox = outbox();
    outbox.push(Payload::Binary(&[0; 36])).unwrap();
    outbox.push(Payload::Binary(&[0; 36])).unwrap();
    assert!(outbox.transmit(Offset::new(199)).is_none());
    assert!(outbox.next_end().is_some());
    assert!(outbox.transmit(Offset::new(200)).is_some());
    assert!(outbox.next_end().is_none());
}

#[test]
fn a_peer_that_claims_an_impossible_position_is_refused() {
    let mut outbox = outbox();
    for _ in 0..3 {
        outbox.push(Payload::Text("a")).unwrap();
        sent(&mut outbox);
    }
    outbox.acknowledge(Seq::new(2)).unwrap();
    assert!(outbox.check_resume(Seq::new(4), Seq::new(2)).is_err());
    assert!(outbox.check_resume(Seq::new(1), Seq::new(1)).is_err());
    assert!(outbox.check_resume(Seq::new(2), Seq::new(3)).is_err());
    assert!(
        outbox
            .check_resume(Seq::new(u64::MAX), Seq::new(2))
            .is_err()
    );
    assert!(outbox.check_resume(Seq::new(3), Seq::new(2)).is_ok());
}
