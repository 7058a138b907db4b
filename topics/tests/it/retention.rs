//! What retention removed before it was read is a gap, in its place, once.

use std::time::Duration;

use unstall_topics::{Delivery, GapReason, Limits, Log, Node, Offset, Start};

use crate::common::{Served, client, in_time, message, next, number, numbered, publish_numbered};

const MIB: u64 = 1 << 20;

async fn small_log(bytes: u64) -> Log {
    Log::memory(Limits::default().max_bytes(bytes))
        .await
        .unwrap()
}

/// Stops for a while, in which more is published than the log keeps. What it then reads: the offsets,
/// and the gaps with the offset that came before each.
async fn slow(filter: &str, topics: u64) {
    let log = small_log(2 * MIB).await;
    let served = Served::node(Node::new(&log)).await;
    let reader = client(served.address);
    let mut feed = reader.subscribe(filter, Start::Beginning).unwrap();
    let name = |number: u64| format!("n.{}", number % topics);
    publish_numbered(&log, 0..100, 1000, name).await;
    let mine: Vec<u64> = (0..30_000)
        .filter(|at| filter == "n.>" || at % topics == 1)
        .collect();
    assert_eq!(number(&message(&mut feed).await), mine[0]);
    // The reader stops. Its window is 1 MiB, and the log keeps 2 MiB of 30.
    publish_numbered(&log, 100..30_000, 1000, name).await;
    let first = log.bounds().first;
    assert!(first.get() > 20_000, "{first:?}");
    let (mut read, mut gaps) = (vec![mine[0]], Vec::new());
    let mut place = 1;
    while read.last() != mine.last() {
        match next(&mut feed).await {
            Some(Delivery::Message(message)) => {
                assert!(message.offset().get() > place);
                place = message.offset().get();
                read.push(number(&message));
            }
            Some(Delivery::Gap(gap)) => {
                assert_eq!(gap.reason, GapReason::Removed);
                assert!(gap.after.get() >= place, "{gap:?} behind {place}");
                assert!(gap.through > gap.after);
                place = gap.through.get();
                gaps.push(gap);
            }
            Some(Delivery::CaughtUp(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let (after, through) = (gaps[0].after.get(), gaps[0].through.get());
    // The offset is the number and one.
    let expected = mine
        .iter()
        .filter(|at| (*at + 1) <= after || (*at + 1) > through);
    assert!(read.iter().eq(expected), "all but the gap, once, in order");
    // What is there is not in the gap. The log learns of its retention a moment later.
    crate::common::until("the bounds", || log.bounds().first.get() > through).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_falls_behind_retention_gets_one_gap_in_its_place() {
    slow("n.>", 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_with_a_filter() {
    slow("n.1", 7).await;
}

/// Once a subscription whose topic was quiet got a gap when retention removed messages of other
/// topics: the node had looked at none of them, and forgot that none was the subscription's.
#[tokio::test]
async fn retention_of_other_topics_is_no_gap_for_a_quiet_one() {
    let log = small_log(4 * MIB).await;
    let served = Served::node(Node::new(&log)).await;
    let reader = client(served.address);
    let mut quiet = reader.subscribe("quiet", Start::Beginning).unwrap();
    let mut pattern = reader.subscribe("qui*.*", Start::Beginning);
    assert!(pattern.is_err(), "a star is a whole token");
    pattern = reader.subscribe("*.quiet", Start::Beginning);
    let mut pattern = pattern.unwrap();
    for feed in [&mut quiet, &mut pattern] {
        assert!(matches!(next(feed).await, Some(Delivery::CaughtUp(_))));
    }
    for round in 0..5 {
        // More than the node keeps in memory, too.
        publish_numbered(&log, 0..500, 50_000, |_| "loud".into()).await;
        log.publish("quiet", numbered(round, 10)).await.unwrap();
        log.publish("very.quiet", numbered(round, 10))
            .await
            .unwrap();
        assert_eq!(number(&message(&mut quiet).await), round);
        assert_eq!(number(&message(&mut pattern).await), round);
    }
}

/// A client that comes back learns that messages of its topic may be missing, once.
#[tokio::test]
async fn a_position_behind_retention_is_a_gap_that_says_may() {
    let log = small_log(MIB).await;
    let served = Served::node(Node::new(&log)).await;
    publish_numbered(&log, 0..10, 100, |_| "n".into()).await;
    let reader = client(served.address);
    let mut feed = reader.subscribe("n", Start::Beginning).unwrap();
    for expected in 0..10 {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
    let position = feed.position().unwrap();
    drop(feed);
    publish_numbered(&log, 10..10_000, 1000, |_| "n".into()).await;
    let first = log.bounds().first;
    let mut feed = reader.subscribe("n", Start::After(position)).unwrap();
    let Some(Delivery::Gap(gap)) = next(&mut feed).await else {
        panic!("no gap");
    };
    assert_eq!(gap.reason, GapReason::Removed);
    assert_eq!((gap.after, gap.through), (position.offset, first.before()));
    for expected in first.get() - 1..10_000 {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
}

#[tokio::test]
async fn what_is_too_old_is_removed_and_told() {
    let age = Duration::from_millis(300);
    let log = Log::memory(Limits::default().max_age(age)).await.unwrap();
    let served = Served::node(Node::new(&log)).await;
    let reader = client(served.address);
    publish_numbered(&log, 0..10, 10, |_| "n".into()).await;
    tokio::time::sleep(age * 2).await;
    publish_numbered(&log, 10..20, 10, |_| "n".into()).await;
    let at = unstall_topics::Position {
        log: log.id(),
        offset: Offset::new(3).unwrap(),
        time: unstall_topics::StoredAt::UNKNOWN,
    };
    let mut feed = reader.subscribe("n", Start::After(at)).unwrap();
    let delivery = in_time(feed.recv()).await.unwrap();
    let Some(Delivery::Gap(gap)) = delivery else {
        panic!("{delivery:?}");
    };
    assert_eq!((gap.after.get(), gap.through.get()), (3, 10));
    for expected in 10..20 {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
}
