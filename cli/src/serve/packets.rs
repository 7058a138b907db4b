//! `/packets`: answers requests in order, and reads new ones at the same time.

use tokio::sync::mpsc;
use unstall::{Connection, Incoming, Message, Receiver, SendError, Sender};

use crate::packets::{self, BadRequest, Request};

/// How many requests a client may send ahead: more than the 100,000 that a client without flow
/// control sends before it reads, in at most 4 MiB for each connection. Further requests wait in
/// the connection.
const REQUESTS_AHEAD: usize = 128 * 1024;

type Asked = Result<Request, BadRequest>;

pub(super) async fn run(connection: Connection) {
    let (sender, receiver) = connection.split();
    let (ask, asked) = mpsc::channel(REQUESTS_AHEAD);
    tokio::select! {
        () = take_requests(receiver, ask) => {}
        // The loop ends when a send fails, because the connection has ended.
        _ = answer(sender, asked) => {}
    }
}

/// Reads requests until the connection ends.
async fn take_requests(mut receiver: Receiver, ask: mpsc::Sender<Asked>) {
    while let Ok(Some(incoming)) = receiver.recv().await {
        let Incoming::Message(message) = incoming else {
            continue;
        };
        let asked = message
            .as_text()
            .map_or(Err(BadRequest::Binary), Request::parse);
        if ask.send(asked).await.is_err() {
            break;
        }
    }
}

async fn answer(sender: Sender, mut asked: mpsc::Receiver<Asked>) -> Result<(), SendError> {
    while let Some(asked) = asked.recv().await {
        match asked {
            Ok(Request { count, size }) => {
                for index in 0..count {
                    sender
                        .send(Message::binary(packets::packet(index, size)))
                        .await?;
                }
                sender.send(packets::done_text(count)).await?;
            }
            Err(reason) => sender.send(packets::error_text(reason)).await?,
        }
    }
    Ok(())
}
