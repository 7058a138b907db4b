use super::*;
use crate::{defaults::MESSAGE_OVERHEAD_BYTES, settings::Budget};
use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};
use unstall_proto::{Records, limits::PACKET_FILL};

fn outbox(bytes: usize) -> Outbox {
    outbox_with(Options::default().outbox_bytes(bytes))
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// At once.
fn expired() -> Manner {
    Manner {
        expires: Some(Instant::now()),
        ..Manner::default()
    }
}

fn message(len: usize) -> Message {
    Message::from(vec![0; len])
}

/// Takes everything that is queued and finishes it, as the pump does.
fn write_all(outbox: &Outbox) -> Vec<Message> {
    let mut batch = VecDeque::new();
    let cx = Context::from_waker(Waker::noop());
    let _ = outbox.take(&mut batch, None, Instant::now(), &cx);
    let mut done = Done::default();
    for entry in &batch {
        done.add(entry.done());
    }
    outbox.done(done, std::iter::empty());
    messages(batch)
}

#[test]
fn spare_packets_take_no_more_than_the_queue_may_and_are_used_first() {
    let spare = || std::iter::repeat_with(|| Records::with_capacity(PACKET_FILL));
    let limited = Options::default().outbox_bytes(3 * PACKET_FILL);
    let budgeted = Options::default().budget(Budget::new(1 << 20));
    for (options, most) in [(limited, 3), (budgeted, 2)] {
        let outbox = outbox_with(options);
        for _ in 0..2 {
            outbox.release(&Done::default(), spare());
            assert_eq!(outbox.lock().packets.spare.len(), most);
        }
        // They cost more than a packet.
        (0..5).for_each(|_| assert!(outbox.push_short(false, &[7; 8 << 10])));
        outbox.release(&Done::default(), spare());
        assert_eq!(outbox.lock().packets.spare.len(), most - 1);
        outbox.shrink();
        assert_eq!(outbox.lock().packets.spare.len(), 0);
    }
}

/// Once, with a shared budget, a later sender overtook one that waited for the budget.
#[tokio::test]
async fn waiting_senders_keep_their_order() {
    let budget = Budget::new(0);
    for options in [
        Options::default().outbox_bytes(1000),
        Options::default().budget(budget),
    ] {
        let outbox = outbox_with(options);
        outbox.try_send(message(60_000)).ok();
        outbox.try_send(message(700)).ok();
        let filled = outbox.stats(Instant::now()).0.messages;
        let mut large = pin!(outbox.send(message(10_000), Manner::default()));
        let mut small = pin!(outbox.send(Message::from("small"), Manner::default()));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending());
        let refused = outbox.try_send(Message::from("later")).unwrap_err();
        assert!(matches!(&refused, TrySendError::Full(_)), "{refused}");
        assert_eq!(refused.into_message(), Message::from("later"));
        assert_eq!(write_all(&outbox).len(), filled);
        assert!(poll(large.as_mut()).is_ready());
        let mut order = write_all(&outbox);
        assert!(poll(small.as_mut()).is_ready());
        order.extend(write_all(&outbox));
        assert_eq!(order, [message(10_000), Message::from("small")]);
    }
}

#[test]
fn the_limit_is_kept_to_the_byte() {
    const FIRST: usize = 100;
    let rest = 1000 - FIRST - 2 * MESSAGE_OVERHEAD_BYTES;
    let outbox = outbox(1000);
    outbox.try_send(message(FIRST)).unwrap();
    let refused = outbox.try_send(message(rest + 1)).unwrap_err();
    assert!(matches!(refused, TrySendError::Full(_)), "{refused}");
    assert!(!outbox.push_short(false, &vec![0; rest + 1]));
    outbox.try_send(message(rest)).unwrap();
    assert_eq!(outbox.stats(Instant::now()).0.bytes, 1000);
}

#[test]
fn what_was_sent_goes_back_to_the_budget() {
    let budget = Budget::new(64 << 20);
    let outbox = outbox_of(&budget);
    outbox.try_send(message(4 << 20)).unwrap();
    assert!(budget.used() >= 4 << 20);
    write_all(&outbox);
    assert!(budget.used() <= 256 << 10, "{}", budget.used());
}

#[test]
fn short_messages_do_not_overtake_a_sender_that_waits_for_room() {
    let outbox = outbox(1000);
    outbox.try_send(message(300)).unwrap();
    let mut large = Box::pin(outbox.send(message(500), Manner::default()));
    assert!(poll(large.as_mut()).is_pending());
    assert!(!outbox.push_short(false, b"there would be room"));
    let mut run = [Message::from("and here")].into_iter();
    assert!(outbox.push_run(&mut run).unwrap().is_some());
    drop(large);
    assert!(outbox.push_short(false, b"there is room"));
}

#[tokio::test]
async fn message_larger_than_the_outbox_is_taken_alone() {
    let outbox = outbox(1000);
    outbox.try_send(message(50_000)).unwrap();
    assert!(outbox.try_send(message(0)).is_err());
    write_all(&outbox);
    outbox.try_send(message(0)).unwrap();
    assert!(outbox.try_send(message(50_000)).is_err());
    let mut large = pin!(outbox.send(message(50_000), Manner::default()));
    assert!(poll(large.as_mut()).is_pending());
    write_all(&outbox);
    assert!(poll(large.as_mut()).is_ready());
}

/// Once `flush` counted messages that were sent after it and expired. It resolved although nothing was
/// written.
#[tokio::test]
async fn flush_does_not_count_what_expires_behind_it() {
    let outbox = outbox(1 << 20);
    outbox.try_send(message(1)).unwrap();
    outbox.try_send(message(2)).unwrap();
    let mut flush = pin!(outbox.flush());
    assert!(poll(flush.as_mut()).is_pending());
    for _ in 0..5 {
        outbox.send(message(3), expired()).await.unwrap();
    }
    assert_eq!(outbox.expire(Instant::now() + Duration::from_secs(1)), 5);
    assert!(poll(flush.as_mut()).is_pending(), "nothing was written");
    assert_eq!(write_all(&outbox).len(), 2);
    assert!(poll(flush.as_mut()).is_ready());
}

#[tokio::test]
async fn flush_is_over_when_all_before_it_expired() {
    let outbox = outbox(1 << 20);
    outbox.send(message(3), expired()).await.unwrap();
    let mut flush = pin!(outbox.flush());
    assert!(poll(flush.as_mut()).is_pending());
    outbox.try_send(message(1)).unwrap();
    assert_eq!(outbox.expire(Instant::now() + Duration::from_secs(1)), 1);
    assert!(poll(flush.as_mut()).is_ready());
}

#[tokio::test]
async fn flush_is_over_when_what_was_put_back_expired() {
    let outbox = outbox(1 << 20);
    outbox.send(message(3), expired()).await.unwrap();
    let mut batch = VecDeque::new();
    let cx = Context::from_waker(Waker::noop());
    let _ = outbox.take(&mut batch, None, Instant::now(), &cx);
    outbox.put_back(batch);
    let mut flush = pin!(outbox.flush());
    assert!(poll(flush.as_mut()).is_pending());
    outbox.try_send(message(1)).unwrap();
    assert_eq!(outbox.expire(Instant::now() + Duration::from_secs(1)), 1);
    assert!(poll(flush.as_mut()).is_ready());
}

#[tokio::test]
async fn senders_after_the_end_get_their_message_and_the_reason() {
    let outbox = outbox(1000);
    outbox.try_send(message(900)).unwrap();
    let mut waiting: Vec<_> = (0..3)
        .map(|len| Box::pin(outbox.send(message(len), Manner::default())))
        .collect();
    for waiting in &mut waiting {
        assert!(poll(waiting.as_mut()).is_pending());
    }
    outbox.refuse(Arc::new(ConnectionError::EndOfStream));
    for (len, waiting) in waiting.into_iter().enumerate() {
        let error = waiting.await.unwrap_err();
        assert_eq!(error.message, message(len));
        assert!(matches!(error.reason, SendRefusal::Ended(_)));
    }
    let Err(TrySendError::Refused(error)) = outbox.try_send(message(7)) else {
        panic!("taken after the end, or only put off");
    };
    assert_eq!(error.message, message(7));
    assert!(matches!(error.reason, SendRefusal::Ended(_)));
    assert_eq!(outbox.take_unsent(), [message(900)]);
    assert_eq!(outbox.stats(Instant::now()).0.messages, 0);
}

/// Once the age of the oldest message started anew after the pump had taken a batch.
#[tokio::test(start_paused = true)]
async fn oldest_age_counts_messages_that_the_pump_has_taken() {
    let outbox = outbox(1 << 20);
    let second = Duration::from_secs(1);
    let age = || outbox.stats(Instant::now()).0.oldest;
    assert_eq!(age(), None);
    outbox.try_send(message(1)).unwrap();
    tokio::time::advance(second).await;
    let mut batch = VecDeque::new();
    let cx = Context::from_waker(Waker::noop());
    assert!(
        outbox
            .take(&mut batch, None, Instant::now(), &cx)
            .is_ready()
    );
    outbox.try_send(message(2)).unwrap();
    tokio::time::advance(second).await;
    assert_eq!(age(), Some(2 * second));
    outbox.put_back(batch);
    assert_eq!(age(), Some(2 * second));
    write_all(&outbox);
    assert_eq!(age(), None);
}

/// Once a sender waited for a budget that others had used up, although its own queue was empty. A
/// message above the free floor was never sent.
#[tokio::test]
async fn used_up_budget_lets_an_empty_outbox_take_one_message() {
    let budget = Budget::new(1 << 20);
    let others = outbox_of(&budget);
    others.try_send(message(1 << 20)).unwrap();
    let own = outbox_of(&budget);
    own.try_send(message(60_000)).unwrap();
    let mut send = pin!(own.send(message(100_000), Manner::default()));
    assert!(poll(send.as_mut()).is_pending());
    write_all(&own);
    assert!(poll(send.as_mut()).is_ready());
}

fn outbox_of(budget: &Budget) -> Outbox {
    outbox_with(Options::default().budget(budget.clone()))
}

fn outbox_with(options: Options) -> Outbox {
    Outbox::new(&options, &Account::new(options.budget.clone()))
}

/// Once a panic of the user's iterator poisoned the lock, and the process aborted.
#[test]
fn a_panic_while_messages_are_drawn_leaves_the_queue_as_it_was_with_what_was_drawn() {
    let outbox = outbox(1 << 20);
    let mut prices = ["1.5", "2.5", "n/a", "3.5"].iter().map(|price| {
        let price: f64 = price.parse().expect("a price");
        price.to_string()
    });
    let drawn = std::panic::AssertUnwindSafe(|| outbox.push_run(&mut prices));
    assert!(std::panic::catch_unwind(drawn).is_err());
    assert_eq!(
        write_all(&outbox),
        [Message::from("1.5"), Message::from("2.5")]
    );
    let stats = outbox.stats(Instant::now()).0;
    assert_eq!((stats.messages, stats.bytes), (0, 0));
}

/// Once the iterator was drawn under the lock. An iterator that used its own connection deadlocked.
#[test]
fn the_iterator_may_use_the_connection() {
    let outbox = outbox(1 << 20);
    let mut run = (0..3).map(|index| {
        outbox.try_send(Message::from("between")).unwrap();
        format!("{index}")
    });
    assert!(outbox.push_run(&mut run).unwrap().is_none());
    assert_eq!(write_all(&outbox).len(), 6);
}

#[test]
fn a_run_keeps_the_limit_and_gives_back_the_message_that_found_no_room() {
    for limit in [1, 1000, 100_000, 1 << 20] {
        let outbox = outbox(limit);
        let mut messages = (0..10_000).map(|_| "12345678901234567890".to_owned());
        let mut queued = 0;
        loop {
            let left = outbox.push_run(&mut messages).unwrap();
            let stats = outbox.stats(Instant::now()).0;
            assert!(stats.bytes <= limit, "{} of {limit}", stats.bytes);
            assert_eq!(stats.high_water, stats.bytes);
            if left.is_some() {
                queued += stats.messages;
                break;
            }
        }
        assert_eq!(write_all(&outbox).len(), queued);
        let rest = messages.count();
        assert_eq!(queued + 1 + rest, 10_000, "one came back");
    }
}

/// Once expired messages were dropped under the lock. A payload whose drop sent a message deadlocked.
#[tokio::test]
async fn a_payload_whose_drop_sends_does_not_deadlock() {
    struct Sends(Arc<Outbox>);
    impl AsRef<[u8]> for Sends {
        fn as_ref(&self) -> &[u8] {
            &[7; 10_000]
        }
    }
    impl Drop for Sends {
        fn drop(&mut self) {
            self.0.try_send(Message::from("dropped")).unwrap();
        }
    }
    let outbox = Arc::new(outbox(1 << 20));
    let payload = || bytes::Bytes::from_owner(Sends(outbox.clone()));
    outbox
        .send(Message::binary(payload()), expired())
        .await
        .unwrap();
    assert_eq!(outbox.expire(Instant::now() + Duration::from_secs(1)), 1);
    assert_eq!(write_all(&outbox), [Message::from("dropped")]);
    outbox.open_setup();
    outbox.send_setup(Message::binary(payload())).await.unwrap();
    outbox.close_setup();
    assert_eq!(write_all(&outbox), [Message::from("dropped")]);
}

/// Once a full queue of 4 KiB messages freed one packet and allocated another each time that a batch was
/// written: a full packet of them costs less than its memory.
#[test]
fn full_queue_uses_each_packet_again() {
    let outbox = outbox(2 * PACKET_FILL);
    while outbox.push_short(false, &[7; 4 << 10]) {}
    let mut batch = VecDeque::new();
    let cx = Context::from_waker(Waker::noop());
    let _ = outbox.take(&mut batch, None, Instant::now(), &cx);
    let first = batch.pop_front().unwrap();
    let spare = std::iter::once(Records::with_capacity(PACKET_FILL));
    outbox.done(first.done(), spare);
    assert_eq!(outbox.lock().packets.spare.len(), 1);
}

/// The connection says once how it writes packets. Until then, and without, they are packets of a
/// session. Their messages are the same.
#[test]
fn packets_are_made_for_frames_where_the_connection_writes_frames() {
    let outbox = outbox(1 << 20);
    for for_frames in [false, true] {
        outbox.set_for_frames(for_frames);
        assert!(outbox.push_short(true, b"one"));
        assert!(outbox.push_short(false, &[7; 200]));
        let mut batch = VecDeque::new();
        let cx = Context::from_waker(Waker::noop());
        let _ = outbox.take(&mut batch, None, Instant::now(), &cx);
        let [Entry::Packed(packed)] = batch.make_contiguous() else {
            panic!("one packet: {batch:?}");
        };
        assert_eq!(packed.records.is_for_frames(), for_frames);
        let expected = [Message::from("one"), Message::from(vec![7; 200])];
        assert_eq!(messages(batch), expected);
    }
}

/// Once a sender filled the whole outbox before anything was compressed. By then the first packets had left
/// the processor's cache.
#[test]
fn a_run_of_messages_to_be_compressed_ends_at_a_batch_which_the_sender_writes() {
    let compressed = Options::default().compression(crate::Compression::default());
    for (options, most) in [
        (compressed, COMPRESSED_RUN_BYTES),
        (Options::default(), crate::defaults::OUTBOX_BYTES),
    ] {
        let writes = most == COMPRESSED_RUN_BYTES;
        let outbox = outbox_with(options);
        let mut run = std::iter::repeat_n(message(4096), 1_000);
        assert!(outbox.push_run(&mut run).unwrap().is_some(), "not all");
        let cost = 4096 + MESSAGE_OVERHEAD_BYTES;
        let (queued, _) = outbox.stats(Instant::now());
        assert_eq!(queued.messages, most / cost);
        assert_eq!(outbox.take_filled(), writes);
    }
}
