//! Each start begins where it says, and the mark comes once.

use std::time::Duration;

use unstall_topics::{
    Delivery, GapReason, Limits, Log, Node, Offset, Start, StoredAt, SubscribeOptions, Topics,
};

use crate::common::{
    Served, before_mark, client, cutter::Cutter, in_time, log, message, next, number, numbered,
    publish_numbered, soon, url,
};

fn numbers(messages: &[unstall_topics::Message]) -> Vec<u64> {
    messages.iter().map(number).collect()
}

/// A log with the numbers 0 to 999 under `n.0` to `n.9`, and a client of it.
async fn thousand() -> (Log, Served, Topics) {
    let log = log().await;
    publish_numbered(&log, 0..1000, 50, |at| format!("n.{}", at % 10)).await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    (log, served, topics)
}

#[tokio::test]
async fn latest_is_one_message_of_each_topic_in_order_and_then_what_follows() {
    let (log, _served, topics) = thousand().await;
    log.publish("n.3", numbered(1000, 8)).await.unwrap();
    for local in [false, true] {
        let last = log.bounds().last.get() - 1;
        let mut feed = match local {
            true => log.subscribe("n.*", Start::Latest(None)),
            false => topics.subscribe("n.*", Start::Latest(None)),
        }
        .unwrap();
        let (messages, gaps) = before_mark(&mut feed).await;
        assert!(gaps.is_empty());
        let mut expected: Vec<u64> = (990..1000).filter(|at| at % 10 != 3).collect();
        expected.extend(1000..=last);
        if local {
            // What the first round published was under topic n.3 alone.
            expected.retain(|at| *at < 1000 || *at == last);
        }
        assert_eq!(numbers(&messages), expected);
        for at in last + 1..last + 50 {
            log.publish("n.3", numbered(at, 8)).await.unwrap();
            assert_eq!(number(&message(&mut feed).await), at);
        }
    }
}

/// A snapshot of more than fits into a connection's life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_goes_on_and_has_each_topic_once() {
    const TOPICS: u64 = 2_000;
    let log = Log::memory(Limits::default()).await.unwrap();
    publish_numbered(&log, 0..TOPICS * 3, 300, |at| format!("n.{}", at % TOPICS)).await;
    let served = Served::node(Node::new(&log)).await;
    for seed in 0..4 {
        let cutter = Cutter::to(served.address, seed).await;
        cutter.cut_after(60_000..200_000);
        let topics = Topics::builder([url(cutter.address)])
            .reconnect(soon())
            .start();
        let mut feed = topics.subscribe("n.*", Start::Latest(None)).unwrap();
        let (messages, gaps) = before_mark(&mut feed).await;
        assert!(gaps.is_empty());
        assert!(
            numbers(&messages).into_iter().eq(TOPICS * 2..TOPICS * 3),
            "seed {seed}: {} messages",
            messages.len()
        );
        assert!(cutter.cuts() >= 2, "seed {seed}: it was cut");
    }
}

#[tokio::test]
async fn last_begins_with_that_many_of_the_filter_or_fewer() {
    let (log, _served, topics) = thousand().await;
    for (filter, count, expected) in [
        ("n.*", 5, (995..1000).collect::<Vec<_>>()),
        ("n.4", 3, vec![974, 984, 994]),
        (
            "n.4",
            100_000,
            (0..1000).filter(|at| at % 10 == 4).collect(),
        ),
        ("other", 7, vec![]),
    ] {
        let mut feed = topics.subscribe(filter, Start::Last(count)).unwrap();
        let (messages, gaps) = before_mark(&mut feed).await;
        assert!(gaps.is_empty());
        assert_eq!(numbers(&messages), expected, "{filter}");
    }
    let empty = crate::common::log().await;
    let mut feed = empty.subscribe(">", Start::Last(3)).unwrap();
    assert!(before_mark(&mut feed).await.0.is_empty());
    drop(log);
}

#[tokio::test]
async fn since_begins_with_the_first_message_of_that_time_or_later() {
    let log = log().await;
    publish_numbered(&log, 0..10, 20, |_| "n".into()).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    publish_numbered(&log, 10..20, 20, |_| "n".into()).await;
    let mut feed = log.subscribe("n", Start::Beginning).unwrap();
    let (all, _) = before_mark(&mut feed).await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    for time in [all[10].time(), all[0].time(), StoredAt::MAX] {
        let mut feed = topics.subscribe("n", Start::Since(time)).unwrap();
        let (messages, gaps) = before_mark(&mut feed).await;
        assert!(gaps.is_empty());
        let expected = all.iter().filter(|it| it.time() >= time).map(number);
        assert!(numbers(&messages).into_iter().eq(expected));
    }
}

#[tokio::test]
async fn now_begins_behind_what_is_there() {
    let (log, _served, topics) = thousand().await;
    let mut feed = topics.subscribe("n.*", Start::Now).unwrap();
    assert!(before_mark(&mut feed).await.0.is_empty());
    log.publish("n.1", numbered(5, 8)).await.unwrap();
    assert_eq!(number(&message(&mut feed).await), 5);
}

/// The mark comes once, also over many connections, and also when nothing matches.
#[tokio::test]
async fn caught_up_comes_once() {
    let (log, served, _) = thousand().await;
    let cutter = Cutter::to(served.address, 0).await;
    let topics = Topics::builder([url(cutter.address)])
        .reconnect(soon())
        .start();
    let mut nothing = topics.subscribe("nothing", Start::Beginning).unwrap();
    let mut all = topics.subscribe(">", Start::Beginning).unwrap();
    let Some(Delivery::CaughtUp(position)) = next(&mut nothing).await else {
        panic!("no mark");
    };
    assert_eq!(position.offset, log.bounds().last);
    assert_eq!(nothing.position(), Some(position));
    assert_eq!(before_mark(&mut all).await.0.len(), 1000);
    for round in 0..5 {
        let arrived = cutter.arrived();
        cutter.cut();
        crate::common::until("a new connection", || cutter.arrived() > arrived).await;
        log.publish("n.0", numbered(round, 8)).await.unwrap();
        let Some(Delivery::Message(message)) = next(&mut all).await else {
            panic!("another mark");
        };
        assert_eq!(number(&message), round);
    }
    log.publish("nothing", numbered(9, 8)).await.unwrap();
    let Some(Delivery::Message(_)) = next(&mut nothing).await else {
        panic!("another mark");
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_prefers_fresh_messages_is_moved_ahead_with_a_gap() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let options = SubscribeOptions::new().max_lag(Duration::from_millis(100));
    let mut feed = topics.subscribe_with("n", Start::Now, options).unwrap();
    before_mark(&mut feed).await;
    publish_numbered(&log, 0..20_000, 1000, |_| "n".into()).await;
    // The window holds 1 MiB, and the rest waits until it is old.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut read = 0;
    let gap = loop {
        match next(&mut feed).await {
            Some(Delivery::Message(message)) => {
                assert_eq!(number(&message), read);
                read += 1;
            }
            Some(Delivery::Gap(gap)) => break gap,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(gap.reason, GapReason::MovedAhead);
    assert_eq!((gap.after.get(), gap.through.get()), (read, 20_000));
    assert!((500..2_000).contains(&read), "{read} were sent before");
    log.publish("n", numbered(7, 8)).await.unwrap();
    assert_eq!(number(&message(&mut feed).await), 7);
}

#[tokio::test]
async fn a_final_message_ends_exactly_its_topic() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let mut exact = topics.subscribe("job.1", Start::Beginning).unwrap();
    let mut wide = topics.subscribe("job.*", Start::Beginning).unwrap();
    let mut local = log.subscribe("job.1", Start::Beginning).unwrap();
    topics.publish("job.1", numbered(0, 8)).await.unwrap();
    let end = topics.publish_final("job.1", numbered(1, 8)).await.unwrap();
    topics.publish("job.1", numbered(2, 8)).await.unwrap();
    topics.publish("job.2", numbered(3, 8)).await.unwrap();
    for feed in [&mut exact, &mut local] {
        assert_eq!(number(&message(feed).await), 0);
        let last = message(feed).await;
        assert!(last.is_final() && last.offset() == end);
        for _ in 0..3 {
            assert!(next(feed).await.is_none());
        }
    }
    for at in 0..4 {
        assert_eq!(number(&message(&mut wide).await), at);
    }
    // Who comes later gets it too, and who begins behind it gets what is behind it.
    let mut later = topics.subscribe("job.1", Start::Beginning).unwrap();
    assert_eq!(number(&message(&mut later).await), 0);
    assert_eq!(number(&message(&mut later).await), 1);
    assert!(next(&mut later).await.is_none());
    let position = unstall_topics::Position {
        log: log.id(),
        offset: end,
        time: StoredAt::UNKNOWN,
    };
    let mut behind = topics.subscribe("job.1", Start::After(position)).unwrap();
    assert_eq!(number(&message(&mut behind).await), 2);
}

#[tokio::test]
async fn empty_and_long_messages_arrive_as_they_were() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    // Characters of two, three and four bytes, so that pieces of 64 KiB are cut within some.
    let text = "aé世🦀".repeat(840_000);
    assert!(text.len() >= 8 << 20);
    topics.publish("n", "").await.unwrap();
    topics.publish("n", Vec::new()).await.unwrap();
    topics.publish("n", text.as_str()).await.unwrap();
    topics.publish("n", numbered(3, 8 << 20)).await.unwrap();
    for bytes in [65_535, 65_536, 65_537, 131_072] {
        topics.publish("n", numbered(4, bytes)).await.unwrap();
    }
    let first = message(&mut feed).await;
    assert!(first.is_text() && first.as_bytes().is_empty());
    let second = message(&mut feed).await;
    assert!(!second.is_text() && second.as_bytes().is_empty());
    assert_eq!(message(&mut feed).await.as_text(), Some(text.as_str()));
    assert_eq!(message(&mut feed).await.as_bytes(), numbered(3, 8 << 20));
    for bytes in [65_535, 65_536, 65_537, 131_072] {
        assert_eq!(message(&mut feed).await.as_bytes(), numbered(4, bytes));
    }
}

/// In the place of a message that the client does not take stands a gap.
#[tokio::test]
async fn a_message_that_is_too_large_for_the_client_is_a_gap() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = Topics::builder([url(served.address)])
        .max_message_bytes(100_000)
        .start();
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    for (at, bytes) in [(0, 100_000), (1, 100_001), (2, 8)] {
        log.publish("n", numbered(at, bytes)).await.unwrap();
    }
    assert_eq!(number(&message(&mut feed).await), 0);
    let delivery = in_time(feed.recv()).await.unwrap();
    let Some(Delivery::Gap(gap)) = delivery else {
        panic!("{delivery:?}");
    };
    assert_eq!(gap.reason, GapReason::TooLarge);
    assert!(gap.certain);
    assert_eq!(
        (gap.after, gap.through),
        (Offset::new(1).unwrap(), Offset::new(2).unwrap())
    );
    assert_eq!(number(&message(&mut feed).await), 2);
}

/// Once text that is not UTF-8 was stored, and ended every client that read it, again and again.
#[tokio::test]
async fn text_that_is_none_is_not_published() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let topic = unstall_topics::Topic::new("n").unwrap();
    let bad = || {
        let text = unstall_topics::Kind::Text;
        unstall_topics::Publication::new(topic.clone(), text, vec![0xff, 0xfe])
    };
    let good = || crate::common::publication("n", numbered(1, 8));
    for results in [
        in_time(topics.publish_many(vec![good(), bad(), good()])).await,
        in_time(log.publish_many(vec![good(), bad(), good()])).await,
    ] {
        assert!(results[0].is_ok() && results[2].is_ok());
        let error = results[1].as_ref().unwrap_err();
        assert!(!error.may_be_stored(), "{error}");
    }
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    assert_eq!(before_mark(&mut feed).await.0.len(), 4);
}
