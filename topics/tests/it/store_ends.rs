//! A store that ends for good is told to whoever subscribes.

use std::sync::Arc;

use unstall_topics::{
    Delivery, Limits, Log, Node, Start, Subscription, SubscriptionError, TopicsEvent,
};

use crate::common::{
    Served,
    bent::{Bends, Bent},
    client, in_time, publication,
};

const WHY: &str = "the disk was taken out";

async fn log() -> (Log, Arc<Bends>) {
    let (store, bends) = Bent::new(Limits::default());
    (Log::with_store(store).await.unwrap(), bends)
}

async fn ends(log: &Log, bends: &Bends) {
    *bends.ended.lock().unwrap() = Some(WHY.into());
    // A change of the store, as when it ends.
    log.publish_many(vec![publication("n", "last")]).await;
}

async fn caught_up(feed: &mut Subscription) {
    let delivery = in_time(feed.recv()).await.unwrap();
    assert!(
        matches!(delivery, Some(Delivery::CaughtUp(_))),
        "{delivery:?}"
    );
}

/// Once those who waited for messages of a store that had ended waited for ever, and heard nothing.
#[tokio::test]
async fn a_client_leaves_a_node_whose_store_has_ended() {
    let (log, bends) = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let mut events = topics.events();
    let mut feed = topics.subscribe("n", Start::Now).unwrap();
    caught_up(&mut feed).await;
    ends(&log, &bends).await;
    let told = async {
        loop {
            if let Some(TopicsEvent::Disconnected { why }) = events.next().await
                && why.contains(WHY)
            {
                break;
            }
        }
    };
    // Its application goes on waiting: another node may have the messages.
    tokio::select! {
        () = in_time(told) => {}
        received = feed.recv() => panic!("{received:?}"),
    }
}

#[tokio::test]
async fn a_subscription_in_the_process_ends_with_the_reason() {
    let (log, bends) = log().await;
    let mut feed = log.subscribe("n", Start::Now).unwrap();
    caught_up(&mut feed).await;
    ends(&log, &bends).await;
    let end = async {
        loop {
            if let Err(error) = feed.recv().await {
                break error;
            }
        }
    };
    let SubscriptionError::ClientEnded(why) = in_time(end).await else {
        panic!("another end");
    };
    assert!(why.contains(WHY), "{why}");
}
