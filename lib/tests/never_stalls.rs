//! Both sides may write for as long as they like before they read.

mod common;

use common::{pair, plain};
use unstall::{CloseCode, Message, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_and_close() {
    let (mut client, mut server) = pair(Options::default()).await;
    client.send("hello").await.unwrap();
    let message = plain(server.recv().await);
    assert_eq!(message.as_text(), Some("hello"));
    server.send(message).await.unwrap();
    assert_eq!(plain(client.recv().await), Message::from("hello"));
    let report = client.close(CloseCode::NORMAL, "done").await;
    assert!(report.clean, "{report:?}");
    assert!(matches!(server.recv().await, Ok(None)));
    assert!(matches!(client.recv().await, Ok(None)));
}
