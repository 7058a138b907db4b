//! A subscription yields every message of its filter, once and in order.

use unstall_topics::{Delivery, Node, Start};

use crate::common::{client, log, message, next, serve};

#[tokio::test]
async fn what_is_published_over_a_connection_is_delivered_over_another() {
    let log = log().await;
    let (_server, address) = serve(Node::new(&log)).await;
    let (publisher, reader) = (client(address), client(address));
    let mut feed = reader.subscribe("prices.>", Start::Beginning).unwrap();
    assert!(matches!(next(&mut feed).await, Some(Delivery::CaughtUp(_))));
    for number in 0..1000 {
        let topic = format!("prices.{}", number % 7);
        let offset = publisher.publish(&topic, number.to_string()).await.unwrap();
        assert_eq!(offset.get(), number + 1);
        let message = message(&mut feed).await;
        assert_eq!(
            (message.topic().as_str(), message.as_text()),
            (&*topic, Some(&*number.to_string()))
        );
        assert_eq!(message.offset(), offset);
    }
}

#[tokio::test]
async fn a_subscription_in_the_same_process_gets_the_same() {
    let log = log().await;
    for number in 0..100 {
        log.publish("a.b", number.to_string()).await.unwrap();
        log.publish("a.c", number.to_string()).await.unwrap();
    }
    let mut feed = log.subscribe("a.b", Start::Beginning).unwrap();
    for number in 0..100 {
        assert_eq!(
            message(&mut feed).await.as_text(),
            Some(&*number.to_string())
        );
    }
    assert!(matches!(next(&mut feed).await, Some(Delivery::CaughtUp(_))));
    log.publish_final("a.b", "end").await.unwrap();
    assert!(message(&mut feed).await.is_final());
    assert!(next(&mut feed).await.is_none());
}
