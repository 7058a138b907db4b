//! Prints received messages as lines on standard output.

use std::io::{self, ErrorKind, IsTerminal, Write};

use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use unstall::{ConnectionError, Gap, Incoming, Receiver, printable};

use crate::failure::{Failure, chain};

/// Bytes that are gathered for one write to standard output.
const BATCH_BYTES: usize = 64 << 10;

/// Why printing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// The connection was closed normally and everything received is printed.
    All,
    /// Standard output is a pipe, and its reader has closed it.
    Enough,
}

#[derive(Debug, thiserror::Error)]
enum PrintError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("standard output cannot be written")]
    Output(#[from] io::Error),
}

/// Prints received messages until the connection ends or the output is closed. On a terminal,
/// control characters are escaped, unless `raw` is set.
///
/// Cancel safety: if dropped, a line may be printed only in part.
pub(super) async fn print(receiver: Receiver, raw: bool) -> Result<Printed, Failure> {
    let shown = !raw && io::stdout().is_terminal();
    let stdout = BufWriter::with_capacity(BATCH_BYTES, tokio::io::stdout());
    match print_to(receiver, stdout, shown).await {
        Ok(()) => Ok(Printed::All),
        Err(PrintError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            Ok(Printed::Enough)
        }
        Err(error) => Err(Failure::because(error)),
    }
}

/// Flushes when nothing more has been received, so that a batch is one write.
async fn print_to(
    mut receiver: Receiver,
    mut out: impl AsyncWrite + Unpin,
    shown: bool,
) -> Result<(), PrintError> {
    loop {
        let incoming = match receiver.try_recv() {
            Some(incoming) => Ok(Some(incoming)),
            None => {
                out.flush().await?;
                receiver.recv().await
            }
        };
        match incoming {
            Ok(Some(Incoming::Message(message))) => {
                match shown {
                    true => out.write_all(show(message.as_bytes()).as_bytes()).await?,
                    false => out.write_all(message.as_bytes()).await?,
                }
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

/// A message for a terminal. Control characters other than newlines and tabs are escaped.
pub(crate) fn show(message: &[u8]) -> String {
    const KEPT: [char; 2] = ['\n', '\t'];
    let text = String::from_utf8_lossy(message);
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(KEPT) {
        let body = piece.trim_end_matches(KEPT);
        shown += &printable(body).to_string();
        shown += &piece[body.len()..];
    }
    shown
}

/// Reports a gap on standard error.
fn tell(gap: &Gap) {
    let story = match gap {
        Gap::Reconnected { why, away } => format!(
            "messages may be missing here: the connection was lost ({}), and made again after {away:.1?}",
            chain(&**why)
        ),
        Gap::SessionLost { why } => format!("messages are missing here: {}", chain(&**why)),
        Gap::Dropped { messages, bytes } => {
            format!("{messages} messages ({bytes} bytes) were dropped here")
        }
        other => format!("messages are missing here: {other:?}"),
    };
    let _ = writeln!(io::stderr(), "unstall: {story}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_on_a_terminal_has_only_its_newlines_and_tabs() {
        assert_eq!(show(b"a\tb\n\nc"), "a\tb\n\nc");
        assert_eq!(show(b"\x1b[2J\rgone"), r"\u{1b}[2J\rgone");
        assert_eq!(show("日本語 \"x\"".as_bytes()), "日本語 \"x\"");
        assert_eq!(show(b"\xff\x9b31m"), "\u{fffd}\u{fffd}31m");
    }
}
