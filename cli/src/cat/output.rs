//! Received messages, as lines on standard output.

use std::io::{self, ErrorKind, Write};

use futures_util::FutureExt;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use unstall::{ConnectionError, Gap, Incoming, Receiver};

use crate::failure::Failure;

/// What is gathered for one write to standard output.
const BATCH_BYTES: usize = 64 << 10;

/// Why printing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// The connection was closed normally and everything received is printed.
    All,
    /// Nobody reads standard output any more: a pipe's way to say that it has enough.
    Enough,
}

#[derive(Debug, thiserror::Error)]
enum PrintError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("writing to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Prints what `receiver` gives until the connection ends or nobody reads the output any more.
///
/// Dropped before it resolves, the line that it was writing may be cut off.
pub(super) async fn print(receiver: Receiver) -> Result<Printed, Failure> {
    let stdout = BufWriter::with_capacity(BATCH_BYTES, tokio::io::stdout());
    match print_to(receiver, stdout).await {
        Ok(()) => Ok(Printed::All),
        Err(PrintError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            Ok(Printed::Enough)
        }
        Err(error) => Err(Failure::work(error)),
    }
}

/// Flushes when nothing more has been received, so that a batch is one write.
async fn print_to(
    mut receiver: Receiver,
    mut out: impl AsyncWrite + Unpin,
) -> Result<(), PrintError> {
    loop {
        let incoming = match receiver.recv().now_or_never() {
            Some(incoming) => incoming,
            None => {
                out.flush().await?;
                receiver.recv().await
            }
        };
        match incoming {
            Ok(Some(Incoming::Message(message))) => {
                out.write_all(message.as_bytes()).await?;
                out.write_all(b"\n").await?;
            }
            Ok(Some(Incoming::Gap(gap))) => tell(&gap),
            Ok(None) => return Ok(out.flush().await?),
            Err(error) => {
                out.flush().await?;
                return Err(error.into());
            }
        }
    }
}

/// Says on standard error what is missing at this place.
fn tell(gap: &Gap) {
    let story = match gap {
        Gap::Reconnected { why, away } => format!(
            "messages may be missing here: the connection was lost ({why}) and made again after \
             {away:.1?}"
        ),
        Gap::SessionLost { why } => format!("messages are missing here: {why}"),
        Gap::Dropped { messages, bytes } => {
            format!("{messages} messages of {bytes} bytes are missing here: dropped")
        }
        other => format!("messages are missing here: {other:?}"),
    };
    let _ = writeln!(io::stderr(), "unstall: {story}");
}
