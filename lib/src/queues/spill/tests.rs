//! What is spilled comes back, or is counted as lost.

use super::*;
async fn finished(file: &mut SpillFile) -> SpillProgress {
    std::future::poll_fn(|cx| file.poll(cx)).await
}

fn batch(from: u32, count: u32) -> Unpacked {
    (from..from + count).map(message).collect()
}

fn message(number: u32) -> Incoming {
    Incoming::Message(Message::binary(number.to_be_bytes().repeat(25)))
}

#[tokio::test]
async fn ring_wraps_and_keeps_messages_and_gaps_in_order() {
    let mut file = SpillFile::new(Spill::default().max_bytes(10_000));
    let (mut written, mut read) = (0, 0u32);
    for round in 0..200 {
        file.behind = batch(written, 30);
        written += 30;
        file.behind.push_back(Incoming::Gap(Gap::Dropped {
            messages: round,
            bytes: 0,
        }));
        assert!(file.write());
        assert!(matches!(
            finished(&mut file).await,
            SpillProgress::Spilled { messages: 30, .. }
        ));
        while file.has_stored() {
            file.read();
            assert!(matches!(finished(&mut file).await, SpillProgress::Loaded));
        }
        for item in file.ready.drain(..) {
            match item {
                Incoming::Message(message) => {
                    assert_eq!(message.as_bytes()[..4], read.to_be_bytes());
                    read += 1;
                }
                Incoming::Gap(Gap::Dropped { messages, .. }) => assert_eq!(messages, round),
                Incoming::Gap(gap) => panic!("{gap:?}"),
            }
        }
    }
    assert_eq!(read, written);
}

/// A file that is never empty, so that it runs around: writes and reads go over its end.
#[tokio::test]
async fn ring_that_is_never_empty_goes_over_its_end() {
    let capacity = SPILL_CHUNK_BYTES as u64 * 3 / 2;
    let mut file = SpillFile::new(Spill::default().max_bytes(capacity));
    let (mut written, mut read) = (0, 0u32);
    for _round in 0..50 {
        while file.behind.is_empty() {
            file.behind = batch(written, 1_000);
            written += 1_000;
            if file.write() {
                assert!(matches!(
                    finished(&mut file).await,
                    SpillProgress::Spilled { .. }
                ));
            }
        }
        file.read();
        assert!(matches!(finished(&mut file).await, SpillProgress::Loaded));
        assert!(file.has_stored());
        for item in file.ready.drain(..) {
            assert_eq!(item.into_message(), message(read).into_message());
            read += 1;
        }
        assert!(file.write(), "there is room for what did not fit");
        assert!(matches!(
            finished(&mut file).await,
            SpillProgress::Spilled { .. }
        ));
    }
    let tail = file.disk.as_ref().unwrap().tail;
    assert!(tail > 10 * capacity, "it never went around: {tail}");
    assert!(u64::from(read) * 100 > 9 * capacity, "{read}");
}

#[tokio::test]
async fn full_file_takes_no_more_than_its_bytes() {
    let mut file = SpillFile::new(Spill::default().max_bytes(1000));
    file.behind = batch(0, 11);
    assert!(file.write());
    finished(&mut file).await;
    assert_eq!(file.stored(), (9, 981));
    assert!(!file.write());
    assert_eq!(file.behind.len(), 2, "what did not fit waits");
    assert!(file.news_of_full().is_some() && file.news_of_full().is_none());
    file.read();
    finished(&mut file).await;
    assert_eq!(file.ready.len(), 9);
    assert!(file.write(), "there is room again");
}

#[tokio::test]
async fn unwritable_directory_gives_the_batch_back() {
    let mut file = SpillFile::new(Spill::default().directory("/nonexistent/unstall"));
    file.behind = batch(0, 3);
    assert!(file.write());
    assert!(matches!(
        finished(&mut file).await,
        SpillProgress::Failed { lost: 0, .. }
    ));
    assert_eq!(file.behind.len(), 3);
    assert!(!file.write(), "it is not tried again");
    assert_eq!(file.drop_behind(), (3, 300));
    assert_eq!(file.behind.len(), 1);
}

#[tokio::test]
async fn file_that_cannot_be_read_back_is_marked_with_exact_counts() {
    let mut file = SpillFile::new(Spill::default());
    file.behind = batch(0, 5_000);
    file.write();
    finished(&mut file).await;
    file.read();
    finished(&mut file).await;
    let back = std::mem::take(&mut file.ready).len() as u64;
    assert!(
        back > 0 && !file.partial.is_empty(),
        "a message is cut in two"
    );
    // What is left in the file vanishes beneath.
    file.disk.as_mut().unwrap().file.set_len(0).unwrap();
    file.behind = batch(5_000, 1);
    file.read();
    let progress = finished(&mut file).await;
    assert!(matches!(progress, SpillProgress::Failed { lost, .. } if lost == 5_000 - back));
    let Some(Incoming::Gap(Gap::Dropped { messages, bytes })) = file.behind.pop_front() else {
        panic!("the mark comes first");
    };
    assert_eq!((messages, bytes), (5_000 - back, 100 * (5_000 - back)));
    assert_eq!(file.behind.len(), 1);
    assert!(!file.holds_any());
}
