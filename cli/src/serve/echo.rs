//! `/` and `/echo`: sends each message back, as the same type.

use unstall::{Connection, Incoming};

pub(super) async fn run(mut connection: Connection) {
    while let Ok(Some(incoming)) = connection.recv().await {
        if let Incoming::Message(message) = incoming
            && connection.send(message).await.is_err()
        {
            break;
        }
    }
}
