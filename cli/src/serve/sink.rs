//! `/sink`: checks packets and reports on them.

use unstall::{Connection, Incoming};

use crate::packets::{self, Checker};

pub(super) async fn run(mut connection: Connection) {
    let mut checker = Checker::anything();
    while let Ok(Some(incoming)) = connection.recv().await {
        let Incoming::Message(message) = incoming else {
            continue;
        };
        let Some(text) = message.as_text() else {
            checker.take(message.as_bytes());
            continue;
        };
        let answer = match packets::parse_report_request(text) {
            Ok(()) => serde_json::json!(checker.report()).to_string(),
            Err(reason) => packets::error_text(reason),
        };
        if connection.send(answer).await.is_err() {
            break;
        }
    }
}
