//! Each message is stored once.

use unstall_proto::topics::Refusal;
use unstall_topics::{
    jetstream::JetStream,
    store::{Appended, Store},
};

use crate::{common::*, servers::are_installed};

#[tokio::test(flavor = "multi_thread")]
async fn a_number_names_one_message_over_all_topics_and_processes() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let other = open(JetStream::builder(servers.urls(), "LOG")).await;
    let publisher = publisher();
    let first = store
        .append(vec![numbered(publisher, 1, "a")])
        .await
        .unwrap();
    let stored = offset(first[0]);
    for (store, topic) in [(&store, "a"), (&other, "a"), (&other, "b")] {
        let again = store
            .append(vec![numbered(publisher, 1, topic)])
            .await
            .unwrap();
        assert_eq!(again, [Appended::Before(Some(at(stored)))], "{topic}");
    }
    assert_eq!(store.bounds().await.unwrap().last, at(stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_may_be_under_way_together_and_are_stored_in_order() {
    if !are_installed() {
        return;
    }
    let (_servers, store) = single().await;
    let publisher = publisher();
    let batch = |first: u64| {
        (first..first + 100)
            .map(|it| numbered(publisher, it, "a"))
            .collect()
    };
    let appends: Vec<_> = (0..100)
        .map(|it| store.append(batch(1 + it * 100)))
        .collect();
    let mut expected = 0;
    for append in appends {
        for answer in append.await.unwrap() {
            expected += 1;
            assert_eq!(offset(answer), expected);
        }
    }
    let stored = read_all(&store, 10_000, ">").await;
    assert!(
        stored
            .iter()
            .zip(1..)
            .all(|(stored, number): (_, u64)| { stored.payload == number.to_string().as_bytes() })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_nothing_is_stored_and_a_lost_answer_says_unknown() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    append(&store, &["a"]).await;
    // Stopped, it takes messages and never answers.
    servers.stop(0);
    let under_way = store.append(vec![publication("a", "under way")]);
    let answers = under_way.await.unwrap();
    assert_eq!(answers, [Appended::Refused(Refusal::Unknown)]);
    let never_sent = store
        .append(vec![publication("a", "never sent")])
        .await
        .unwrap();
    assert_eq!(never_sent, [Appended::Refused(Refusal::Unavailable)]);
    servers.go_on(0);
    // It goes on by itself.
    let answers = store
        .append(vec![publication("a", "after it")])
        .await
        .unwrap();
    let last = offset(answers[0]);
    let payloads: Vec<_> = read_all(&store, last, ">")
        .await
        .into_iter()
        .map(|it| it.payload)
        .collect();
    assert!(!payloads.contains(&"never sent".into()), "{payloads:?}");
    let unknown = payloads
        .iter()
        .filter(|payload| *payload == "under way")
        .count();
    assert!(unknown <= 1);
}
