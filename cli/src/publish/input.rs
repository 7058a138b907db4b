//! Lines of standard input as messages.

use std::time::Duration;

use tokio::{
    io::BufReader,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use unstall_proto::Kind;
use unstall_topics::{Topic, store::Publication};

use super::{Publish, replay::replay};
use crate::{
    cat::Lines, failure::Failure, packets::MAX_PACKET_BYTES as MAX_LINE_BYTES, time::later,
};

/// How many lines wait to be published.
const WAITING: usize = 4_096;

/// Reads lines in a task of its own, because a read of a line cannot be cut off and go on.
pub(super) struct Input {
    lines: mpsc::Receiver<Publication>,
    reading: JoinHandle<Result<(), Failure>>,
}

/// What the task does with a line.
struct How {
    topic: Topic,
    binary: bool,
    is_final: bool,
    /// The time from one line to the next.
    pause: Option<Duration>,
}

impl Input {
    pub(super) fn start(publish: &Publish, topic: &Topic) -> Input {
        let how = How {
            topic: topic.clone(),
            binary: publish.binary,
            is_final: publish.is_final,
            pause: publish
                .rate
                .and_then(|rate| Duration::from_secs(1).checked_div(rate)),
        };
        let (to, lines) = mpsc::channel(WAITING);
        let reading = match publish.replay.clone() {
            None => tokio::spawn(async move { how.read(to).await }),
            Some(from) => tokio::spawn(replay(from, publish.speed, how.topic, to)),
        };
        Input { lines, reading }
    }

    /// The next lines, which are at most so many. None at the end.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    pub(super) async fn next(&mut self, most: usize) -> Vec<Publication> {
        let mut batch = Vec::new();
        self.lines.recv_many(&mut batch, most).await;
        batch
    }

    /// Why there are no more lines.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        let end = (&mut self.reading).await;
        end.unwrap_or_else(|error| Err(Failure::work(error)))
    }
}

impl How {
    async fn read(self, to: mpsc::Sender<Publication>) -> Result<(), Failure> {
        let mut lines = Lines::new(BufReader::new(tokio::io::stdin()), MAX_LINE_BYTES);
        let mut due = Instant::now();
        // The last line waits until it is known to be the last.
        let mut held = None;
        loop {
            let line = lines
                .next()
                .await
                .map_err(|error| Failure::work(format_args!("standard input: {error}")));
            let next = match line {
                Ok(Some(line)) => self.message(line, lines.number()).map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            let (sent, end) = match next {
                Ok(Some(next)) if self.is_final => (held.replace(next), None),
                Ok(Some(next)) => (Some(next), None),
                Ok(None) => {
                    let last = held.take().map(|mut last: Publication| {
                        last.is_final = true;
                        last
                    });
                    (last, Some(Ok(())))
                }
                Err(error) => (held.take(), Some(Err(error))),
            };
            if let Some(message) = sent {
                if let Some(pause) = self.pause {
                    sleep_until(due).await;
                    due = later(due.max(Instant::now()), pause);
                }
                if to.send(message).await.is_err() {
                    return Ok(());
                }
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn message(&self, mut line: Vec<u8>, number: u64) -> Result<Publication, Failure> {
        let kind = if self.binary {
            Kind::Binary
        } else {
            Kind::Text
        };
        if !self.binary && line.last() == Some(&b'\r') {
            line.pop();
        }
        if !self.binary && std::str::from_utf8(&line).is_err() {
            return Err(Failure::work(format_args!(
                "line {number} of standard input is not UTF-8; publish it with --binary"
            )));
        }
        Ok(Publication::new(self.topic.clone(), kind, line))
    }
}
