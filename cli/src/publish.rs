//! `unstall publish`: publishes each line of standard input.

use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde::Serialize;
use tokio::time::Instant;
use unstall_topics::{Offset, PublishError, Topic, Topics};

use crate::{
    connect::parse_seconds, failure::Failure, relay::Place, runtime, stdout, time::later,
    topics::nodes::Nodes,
};
use input::Input;
use unstored::Unstored;

mod input;
mod replay;
mod unstored;

const EXAMPLES: &str = "\
Each line of standard input is published as one message, without its newline.
Many lines are under way at a time. When the connection is lost, publish connects
again, to the next node, and sends what has no answer once more; each line is
stored once. It ends when every line has its answer.

The token that says who you are is in the environment variable UNSTALL_TOKEN or in
the file of --token-file. It is never an argument, because everybody on the
machine can see those.

Exit code 1: some lines were not stored, or may not be. Standard error says which.

Examples:
  echo hello | unstall publish ws://127.0.0.1:9200 greetings
  unstall publish ws://a:9200,ws://b:9200 events --json <events.jsonl
  unstall publish --replay data/feed.1764453600000 ws://127.0.0.1:9200 again
  tail -f log | unstall publish --rate 100 wss://hub.example/topics log.web1";

/// How many lines are published together. A thousand short ones fill a packet or two.
const BATCH_LINES: usize = 1_024;

/// How many batches are under way. The window of the connection bounds them too.
const BATCHES: usize = 128;

/// Publish lines of standard input under a topic
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Publish {
    #[command(flatten)]
    nodes: Nodes,

    /// The topic: tokens with dots between, such as prices.EUR.USD
    topic: String,

    /// Publish a recorded stream in place of standard input: the messages of this topic, or filter, in
    /// the log of a directory, with their timing
    #[arg(long, value_name = "DIR/TOPIC", conflicts_with_all = ["binary", "rate", "is_final"])]
    replay: Option<Place>,

    /// Replay so many times as fast
    #[arg(long, value_name = "N", value_parser = replay::parse_speed, requires = "replay",
          default_value = "1")]
    speed: f64,

    /// Publish lines as binary messages, which may have any bytes; the newline is removed
    #[arg(long)]
    binary: bool,

    /// Publish at most so many lines a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Make the last line the topic's final message: subscriptions to exactly this topic end with it
    #[arg(long = "final")]
    is_final: bool,

    /// Give up when no line was answered for this many seconds, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "60")]
    timeout: Duration,

    /// Print a JSON object for each line, in order: {"offset":N}, or {"line":N,"error":"…"}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    /// `null`: it was stored before, and its offset is no longer known.
    Stored { offset: Option<u64> },
    Not {
        line: u64,
        error: String,
        /// `"unknown"`: it may be stored.
        stored: &'static str,
    },
}

type Answers = Vec<Result<Offset, PublishError>>;

impl Publish {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let topic = Topic::new(&self.topic)
            .map_err(|error| Failure::usage(format_args!("the topic: {error}")))?;
        runtime::run(async {
            let topics = self.nodes.start()?.connected().await?;
            let mut answered = Answered::default();
            let result = self.publish(&topics, &topic, &mut answered).await;
            topics.close();
            result?;
            match answered.unstored.text(answered.lines) {
                None => Ok(()),
                Some(text) => Err(Failure::work(text)),
            }
        })
    }

    /// Publishes until every line has its answer.
    async fn publish(
        &self,
        topics: &Topics,
        topic: &Topic,
        answered: &mut Answered,
    ) -> Result<(), Failure> {
        let mut input = Input::start(self, topic);
        let mut under_way: FuturesOrdered<BoxFuture<'_, Answers>> = FuturesOrdered::new();
        let mut failed = Ok(());
        let mut reads = true;
        let mut given_up = false;
        let mut deadline = later(Instant::now(), self.timeout);
        while reads || !under_way.is_empty() {
            tokio::select! {
                Some(answers) = under_way.next(), if !under_way.is_empty() => {
                    answered.take(answers, self.json)?;
                    deadline = later(Instant::now(), self.timeout);
                }
                batch = input.next(BATCH_LINES), if reads && under_way.len() < BATCHES => {
                    if batch.is_empty() {
                        failed = input.end().await;
                        reads = false;
                    } else {
                        if under_way.is_empty() {
                            deadline = later(Instant::now(), self.timeout);
                        }
                        under_way.push_back(Box::pin(topics.publish_many(batch)));
                    }
                }
                () = tokio::time::sleep_until(deadline), if !under_way.is_empty() && !given_up => {
                    tracing::warn!("no answer for {:?}: giving up", self.timeout);
                    (reads, given_up) = (false, true);
                    topics.close();
                }
                _ = tokio::signal::ctrl_c(), if !given_up => {
                    (reads, given_up) = (false, true);
                    topics.close();
                }
            }
        }
        failed
    }
}

/// What is known of the lines.
#[derive(Default)]
struct Answered {
    lines: u64,
    unstored: Unstored,
}

impl Answered {
    /// Takes the answers to the next lines.
    fn take(&mut self, answers: Answers, json: bool) -> Result<(), Failure> {
        let mut text = String::new();
        for answer in answers {
            self.lines = self.lines.saturating_add(1);
            let line = match answer {
                Ok(offset) => Line::Stored {
                    offset: Some(offset.get()),
                },
                Err(PublishError::StoredBefore) => Line::Stored { offset: None },
                Err(error) => {
                    let may_be = error.may_be_stored();
                    self.unstored.add(self.lines, may_be, &error);
                    Line::Not {
                        line: self.lines,
                        error: error.to_string(),
                        stored: if may_be { "unknown" } else { "no" },
                    }
                }
            };
            if json {
                text += &serde_json::to_string(&line).unwrap_or_default();
                text += "\n";
            }
        }
        match text.strip_suffix('\n') {
            Some(text) => stdout::print(text),
            None => Ok(()),
        }
    }
}
