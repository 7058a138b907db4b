//! `unstall subscribe`: prints the messages of topics.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    path::PathBuf,
};

use clap::Args;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use unstall::printable;
use unstall_topics::{Delivery, Filter, Start, Subscription, SubscriptionError};

use crate::{
    cat::show,
    failure::Failure,
    runtime,
    topics::{lines, nodes::Nodes, start},
};
use resume::Resume;

mod resume;

const EXAMPLES: &str = "\
Payloads are written as lines. On a terminal, control characters are escaped, as in
`unstall cat`. With --json each delivery is an object:

  {\"topic\":\"a.b\",\"offset\":7,\"time\":1764500000000,\"text\":\"…\"}   a message; base64 in
                                      place of text if it is binary, and
                                      \"final\":true if it is its topic's last one
  {\"gap\":{\"reason\":\"removed\",\"certain\":true,\"after\":7,\"through\":9}}
                                      messages behind offset 7 and up to 9 are
                                      missing for sure, or may be
  {\"caught_up\":9}                     everything up to offset 9 was printed, which
                                      was the end when it began

Without --json, standard error tells of gaps in their places.

When the connection is lost, subscribe connects again, to the next node, and goes
on behind the last message: each one is printed once, in order. With --resume it
does so after a restart too: the file has the position behind what was written. A
process that is killed may print its last lines once more.

It ends with --count, with the final message of a topic, or with Ctrl-C.

Examples:
  unstall subscribe ws://127.0.0.1:9200 greetings
  unstall subscribe ws://127.0.0.1:9200 'prices.>' --from latest --json
  unstall subscribe ws://a:9200,ws://b:9200 events --from start --resume events.position";

/// Bytes that are gathered for one write.
const BATCH_BYTES: usize = 64 << 10;

/// Print the messages of a topic or filter
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Subscribe {
    #[command(flatten)]
    nodes: Nodes,

    /// A topic, in which * stands for any token, and > for all the rest
    filter: String,

    /// Where to begin: start, now, latest (of each topic, and then what follows), last:N,
    /// since:MILLISECONDS (since 1970), an offset, or a position (LOG:OFFSET:TIME)
    #[arg(long, value_name = "PLACE", default_value = "now")]
    from: start::From,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Print a JSON object for each message, gap and mark
    #[arg(long)]
    json: bool,

    /// Write messages to a terminal unchanged, with their escape codes
    #[arg(long)]
    raw: bool,

    /// Keep the position in this file, and begin there if it exists, not at --from
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

type Received = Result<Option<Delivery>, SubscriptionError>;

/// Why printing ended.
enum End {
    /// There is no more to print.
    Done,
    /// Standard output is a pipe, and its reader has closed it.
    Enough,
}

impl Subscribe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let filter = Filter::new(&self.filter)
            .map_err(|error| Failure::usage(format_args!("the filter: {error}")))?;
        let mut resume = self.resume.clone().map(Resume::open).transpose()?;
        runtime::run(async {
            let topics = self.nodes.start()?.connected().await?;
            let start = match resume.as_ref().and_then(Resume::position) {
                Some(position) => Start::After(position),
                None => self.from.begin(&topics, &filter).await?,
            };
            let feed = topics.subscribe(filter.as_str(), start);
            let feed = feed.map_err(Failure::because)?;
            let mut printer = Printer {
                feed,
                out: Vec::new(),
                resume: resume.as_mut(),
                left: self.count.unwrap_or(u64::MAX),
                json: self.json,
                shown: !self.raw && !self.json && io::stdout().is_terminal(),
            };
            let end = tokio::select! {
                end = printer.print() => end,
                _ = tokio::signal::ctrl_c() => Ok(End::Done),
            };
            topics.close();
            match end? {
                End::Done => printer.save(true),
                // The last lines may not be read.
                End::Enough => Ok(()),
            }
        })
    }
}

/// Prints a subscription.
struct Printer<'a> {
    feed: Subscription,
    /// What is gathered for the next write.
    out: Vec<u8>,
    resume: Option<&'a mut Resume>,
    left: u64,
    json: bool,
    /// Control characters are escaped.
    shown: bool,
}

impl Printer<'_> {
    /// Prints until the subscription ends. Flushes when nothing more has arrived, so that a batch is
    /// one write.
    ///
    /// Cancel safety: if dropped, everything is printed up to the position that was saved.
    async fn print(&mut self) -> Result<End, Failure> {
        while self.left > 0 {
            // Before the next one is received, because the position is then behind that.
            if self.out.len() >= BATCH_BYTES
                && let Some(end) = self.flush().await?
            {
                return Ok(end);
            }
            let next = match self.feed.recv().now_or_never() {
                Some(next) => next,
                None => {
                    if let Some(end) = self.flush().await? {
                        return Ok(end);
                    }
                    self.wait().await?
                }
            };
            match next {
                Ok(Some(delivery)) => self.write(&delivery),
                Ok(None) => break,
                Err(error) => {
                    self.flush().await?;
                    return Err(Failure::because(error));
                }
            }
        }
        let end = self.flush().await?;
        Ok(end.unwrap_or(End::Done))
    }

    /// Waits for the next delivery. Saves the position when that is due.
    async fn wait(&mut self) -> Result<Received, Failure> {
        let due = match self.resume.as_ref().zip(self.feed.position()) {
            Some((resume, position)) => resume.due(position),
            None => None,
        };
        if let Some(due) = due {
            tokio::select! {
                next = self.feed.recv() => return Ok(next),
                () = tokio::time::sleep(due) => self.save(false)?,
            }
        }
        Ok(self.feed.recv().await)
    }

    fn write(&mut self, delivery: &Delivery) {
        let out = &mut self.out;
        match delivery {
            Delivery::Message(_) => self.left = self.left.saturating_sub(1),
            Delivery::Gap(gap) if !self.json => {
                let _ = writeln!(
                    io::stderr(),
                    "unstall: {}",
                    printable(&lines::gap_text(gap))
                );
                return;
            }
            _ if !self.json => return,
            _ => {}
        }
        match delivery {
            Delivery::Message(message) if !self.json => match self.shown {
                true => out.extend_from_slice(show(message.as_bytes()).as_bytes()),
                false => out.extend_from_slice(message.as_bytes()),
            },
            _ => out.extend_from_slice(lines::json(delivery).as_bytes()),
        }
        out.push(b'\n');
    }

    /// Writes what was gathered, and then the position behind it.
    async fn flush(&mut self) -> Result<Option<End>, Failure> {
        if !self.out.is_empty() {
            let mut stdout = tokio::io::stdout();
            let written = async {
                stdout.write_all(&self.out).await?;
                stdout.flush().await
            };
            match written.await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Ok(Some(End::Enough));
                }
                Err(error) => {
                    return Err(Failure::work(format_args!(
                        "writing to standard output: {error}"
                    )));
                }
            }
            self.out.clear();
        }
        self.save(false)?;
        Ok(None)
    }

    /// Saves the position, if that is due or it is the last time, and if everything before it is
    /// written.
    fn save(&mut self, last: bool) -> Result<(), Failure> {
        if !self.out.is_empty() {
            return Ok(());
        }
        match self.resume.as_mut().zip(self.feed.position()) {
            Some((resume, position)) => resume.save(position, last),
            None => Ok(()),
        }
    }
}
