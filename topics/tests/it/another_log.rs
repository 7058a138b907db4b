//! A position says which log it is of: another log, or one that lost its end, is a gap and never a
//! silence.

use unstall_topics::{
    Delivery, Gap, GapReason, Limits, Log, LogId, Node, Offset, Position, Start, Topics,
};

use crate::common::{
    Served, bent::Bent, client, cutter::Cutter, log, message, next, number, publish_numbered, soon,
    url,
};

async fn gap(feed: &mut unstall_topics::Subscription) -> Gap {
    loop {
        match next(feed).await {
            Some(Delivery::Gap(gap)) => return gap,
            Some(Delivery::CaughtUp(_)) => {}
            other => panic!("a gap, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_restart_with_another_log_is_a_gap_and_then_everything_of_the_new_log() {
    let old = log().await;
    let served = Served::node(Node::new(&old)).await;
    let cutter = Cutter::to(served.address, 0).await;
    let topics = Topics::builder([url(cutter.address)])
        .reconnect(soon())
        .start();
    for filter in ["n.>", "n.3"] {
        cutter.lead_to(served.address);
        cutter.cut();
        let mut feed = topics.subscribe(filter, Start::Now).unwrap();
        next(&mut feed).await;
        publish_numbered(&old, 0..100, 20, |_| "n.3".into()).await;
        for expected in 0..100 {
            assert_eq!(number(&message(&mut feed).await), expected);
        }
        let before = old.bounds().last;
        let new = log().await;
        publish_numbered(&new, 1000..1300, 20, |_| "n.3".into()).await;
        let restarted = Served::node(Node::new(&new)).await;
        cutter.lead_to(restarted.address);
        cutter.cut();
        let gap = gap(&mut feed).await;
        assert_eq!(gap.reason, GapReason::AnotherLog);
        assert_eq!(gap.after, before, "in the offsets of the old log");
        for expected in 1000..1300 {
            assert_eq!(number(&message(&mut feed).await), expected);
        }
        let position = feed.position().unwrap();
        assert_eq!(position.log, new.id());
        publish_numbered(&new, 1300..1310, 20, |_| "n.3".into()).await;
        for expected in 1300..1310 {
            let message = message(&mut feed).await;
            assert_eq!(number(&message), expected);
        }
    }
}

/// Two logs with one id, as after a machine came back with an older disk.
async fn twins(old: u64, new: u64) -> (Log, Log) {
    let mut logs = Vec::new();
    for (count, from) in [(old, 0), (new, 10_000)] {
        let (store, bends) = Bent::new(Limits::default());
        *bends.id.lock().unwrap() = Some(LogId([9; 16]));
        let log = Log::with_store(store).await.unwrap();
        publish_numbered(&log, from..from + count, 20, |_| "n".into()).await;
        logs.push(log);
        // So that the times of the messages differ.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    let new = logs.pop().unwrap();
    (logs.pop().unwrap(), new)
}

/// Reads the old log to its end, then goes on at the new one.
async fn diverges(old: u64, new: u64) -> (unstall_topics::Subscription, Log, Served, Gap) {
    let (old_log, new_log) = twins(old, new).await;
    let served = Served::node(Node::new(&old_log)).await;
    let cutter = Cutter::to(served.address, 0).await;
    let topics = Topics::builder([url(cutter.address)])
        .reconnect(soon())
        .start();
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    for expected in 0..old {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
    let restarted = Served::node(Node::new(&new_log)).await;
    cutter.lead_to(restarted.address);
    cutter.cut();
    let gap = gap(&mut feed).await;
    assert_eq!(gap.reason, GapReason::Diverged);
    assert_eq!(gap.after.get(), old);
    (feed, new_log, restarted, gap)
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_a_gap_and_then_what_is_published_next() {
    let (mut feed, log, _served, gap) = diverges(100, 60).await;
    assert_eq!(gap.through.get(), 60, "the end of the log as it is now");
    publish_numbered(&log, 20_000..20_100, 20, |_| "n".into()).await;
    for expected in 20_000..20_100 {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
}

/// The log lost its end and grew beyond the position: the offset is there, with another message.
#[tokio::test]
async fn a_log_that_lost_its_end_and_grew_beyond_it_is_a_gap_too() {
    let (mut feed, log, _served, gap) = diverges(100, 150).await;
    assert!(gap.through.get() <= 150, "{gap:?}");
    let next_number = 10_000 + gap.through.get();
    publish_numbered(&log, 20_000..20_010, 20, |_| "n".into()).await;
    for expected in next_number..10_150 {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
    for expected in 20_000..20_010 {
        assert_eq!(number(&message(&mut feed).await), expected);
    }
}

/// A position from elsewhere: of no log that there ever was, or beyond the end.
#[tokio::test]
async fn a_position_that_is_not_of_the_log_is_never_taken_for_the_nearest() {
    let log = log().await;
    publish_numbered(&log, 0..10, 20, |_| "n".into()).await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let at = |log, offset| Position {
        log,
        offset: Offset::new(offset).unwrap(),
        time: unstall_topics::StoredAt::UNKNOWN,
    };
    let mut feed = topics
        .subscribe("n", Start::After(at(LogId([1; 16]), 5)))
        .unwrap();
    assert_eq!(gap(&mut feed).await.reason, GapReason::AnotherLog);
    assert_eq!(number(&message(&mut feed).await), 0);
    let mut feed = topics
        .subscribe("n", Start::After(at(log.id(), 11)))
        .unwrap();
    assert_eq!(gap(&mut feed).await.reason, GapReason::Diverged);
    let mut feed = topics
        .subscribe("n", Start::After(at(log.id(), 4)))
        .unwrap();
    assert_eq!(number(&message(&mut feed).await), 4);
}
