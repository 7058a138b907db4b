//! `unstall cat`: sends lines of standard input as messages, and prints messages as lines.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use tokio::io::BufReader;
use unstall::{CloseCode, Message, Receiver, SendError, Sender};

use crate::connect::{Connect, connect_failure, log_events, parse_seconds};
use crate::failure::{Failure, chain};
use crate::packets::MAX_PACKET_BYTES as MAX_LINE_BYTES;
use crate::runtime;
use output::Printed;

mod input;
mod output;

pub(crate) use input::Lines;
pub(crate) use output::show;

const EXAMPLES: &str = "\
Each line of standard input is sent as one text message, without its newline.
Each received message is written to standard output, followed by a newline. A
message that contains newlines takes several lines. On a terminal, control
characters are escaped, for example as \\u{1b}, because escape codes could rewrite
what the terminal shows; --raw writes them unchanged. To a pipe or a file, every
byte is written unchanged.

When the connection is lost, cat connects again; lines wait in the meantime. If
the server speaks sessions, nothing is lost. With any other server, messages that
it sent in between are missing, and standard error says so at that place. cat
ends when standard input has ended, everything is sent and --linger has passed,
or when the server closes the connection for good (code 1000).

Examples:
  unstall cat ws://127.0.0.1:9100/echo
  echo subscribe | unstall cat --linger forever wss://feed.example | head -n 9
  unstall cat -H 'Authorization: Bearer …' wss://feed.example/stream
  printf 'one\\ntwo\\n' | unstall cat ws://127.0.0.1:9100/echo";

/// How long closing may take once standard output is closed. A user who typed `| head` waits for
/// the prompt.
const ENOUGH_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Send lines as messages, print messages as lines, and reconnect
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cat {
    #[command(flatten)]
    connect: Connect,

    /// Send lines as binary messages, which may have any bytes; the newline is removed
    #[arg(long)]
    binary: bool,

    /// After the end of input, give the server this many seconds to answer, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "1")]
    linger: Duration,

    /// End when the connection is lost, with exit code 1
    #[arg(long)]
    no_reconnect: bool,

    /// Write received messages to a terminal unchanged, with their escape codes
    #[arg(long)]
    raw: bool,
}

impl Cat {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            let mut client = self.connect.client()?;
            if self.no_reconnect {
                client = client.without_reconnect();
            }
            let connection = client.connect().await.map_err(connect_failure)?;
            let logging = tokio::spawn(log_events(&connection));
            let (sender, receiver) = connection.split();
            let result = self.exchange(&sender, receiver).await;
            logging.abort();
            result
        })
    }

    /// Sends and prints until the input is sent, the connection ends, the output is closed, or the
    /// user interrupts. Then closes the connection and prints the rest.
    async fn exchange(&self, sender: &Sender, receiver: Receiver) -> Result<(), Failure> {
        let waiting = AtomicBool::new(false);
        let mut printing = pin!(output::print(receiver, self.raw));
        let mut printed = None;
        let mut sent = Ok(());
        let mut linger = self.linger;
        tokio::select! {
            result = &mut printing => printed = Some(result),
            result = self.send_input(sender, &waiting) => sent = result,
            _ = tokio::signal::ctrl_c() => linger = Duration::ZERO,
        }
        if printed.is_none() {
            tokio::select! {
                result = &mut printing => printed = Some(result),
                () = tokio::time::sleep(linger) => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        if let Some(Ok(Printed::Enough)) = printed {
            let closing = sender.close(CloseCode::NORMAL, "");
            let _ = tokio::time::timeout(ENOUGH_CLOSE_TIMEOUT, closing).await;
            return sent;
        }
        let (report, printed) = tokio::join!(sender.close(CloseCode::NORMAL, ""), async {
            match printed {
                Some(printed) => printed,
                None => printing.await,
            }
        });
        let printed = printed?;
        sent?;
        let undelivered = sender.take_undelivered().len() + report.maybe_delivered.len();
        if undelivered > 0 {
            return Err(Failure::work(format_args!(
                "the session was lost with {undelivered} messages that may not have reached the server"
            )));
        }
        let unsent = report.unsent.len() + usize::from(waiting.load(Relaxed));
        if unsent > 0 && printed == Printed::All {
            return Err(Failure::work(format_args!(
                "the connection was closed before {unsent} messages of the input were sent"
            )));
        }
        Ok(())
    }

    /// Sends every line, and waits until all are written to the socket. `waiting` is true while a
    /// line waits for room.
    async fn send_input(&self, sender: &Sender, waiting: &AtomicBool) -> Result<(), Failure> {
        let mut lines = Lines::new(BufReader::new(tokio::io::stdin()), MAX_LINE_BYTES);
        loop {
            let line = lines
                .next()
                .await
                .map_err(|error| Failure::work(format_args!("standard input: {error}")))?;
            let Some(line) = line else { break };
            let message = self.message(line, lines.number())?;
            waiting.store(true, Relaxed);
            send(sender, message).await?;
            waiting.store(false, Relaxed);
        }
        sender.flush().await.map_err(Failure::because)
    }

    fn message(&self, mut line: Vec<u8>, number: u64) -> Result<Message, Failure> {
        if self.binary {
            return Ok(Message::binary(line));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map(Message::text).map_err(|_| {
            Failure::work(format_args!(
                "line {number} of standard input is not UTF-8; send it with --binary"
            ))
        })
    }
}

async fn send(sender: &Sender, message: Message) -> Result<(), Failure> {
    sender
        .send(message)
        .await
        .map_err(|SendError { reason, .. }| {
            Failure::work(format_args!("a line was not sent: {}", chain(&reason)))
        })
}
