//! A message that the application keeps does not change, even if the buffer that it was read into is
//! used again.

use crate::common::{
    limit,
    net::bind,
    plain, seed,
    sessions::{client, pair},
};
use unstall::{Client, Message, Receiver, Sender, Server};

const MESSAGES: u64 = 3000;
/// How many messages the application keeps at a time.
const KEPT: usize = 40;

/// The message of that number: by turns short, long, and longer than any buffer.
fn message(seed: u64, number: u64) -> Message {
    let mut random = fastrand::Rng::with_seed(seed ^ (number << 8));
    let longest = [200, 5_000, 40_000, 200_000][random.usize(..4)];
    let mut payload = vec![0; random.usize(..longest)];
    random.fill(&mut payload);
    if random.bool() {
        payload
            .iter_mut()
            .for_each(|byte| *byte = b'a' + *byte % 26);
        return Message::from(String::from_utf8(payload).unwrap());
    }
    Message::from(payload)
}

async fn send_all(sender: Sender, seed: u64) {
    for number in 0..MESSAGES {
        sender.send(message(seed, number)).await.unwrap();
    }
    sender.flush().await.unwrap();
}

async fn keep_some(mut receiver: Receiver, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kept = Vec::new();
    let check = |(number, kept): (u64, Message)| {
        assert!(kept == message(seed, number), "message {number} changed");
    };
    for number in 0..MESSAGES {
        let message = plain(receiver.recv().await);
        if kept.len() == KEPT {
            check(kept.swap_remove(random.usize(..KEPT)));
        }
        kept.push((number, message));
    }
    kept.into_iter().for_each(check);
}

async fn both_ways(without_session: bool) {
    let seed = seed();
    let server = bind(Server::builder()).await;
    let mut client = client(server.local_addr());
    if without_session {
        client = Client::new(format!("ws://{}/", server.local_addr())).plain();
    }
    let (client, session) = pair(&server, client).await;
    assert_eq!(client.is_session(), !without_session);
    let (to_server, from_server) = client.split();
    let (to_client, from_client) = session.split();
    let work = async {
        tokio::try_join!(
            tokio::spawn(send_all(to_server.clone(), seed)),
            tokio::spawn(send_all(to_client.clone(), !seed)),
            tokio::spawn(keep_some(from_server, !seed)),
            tokio::spawn(keep_some(from_client, seed)),
        )
    };
    limit(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_messages_stay_as_they_were() {
    both_ways(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_session_stay_as_they_were() {
    both_ways(false).await;
}
