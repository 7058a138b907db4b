//! `unstall verify-topics-peer`: a publisher or a subscriber of a run. It reads its part and its
//! orders from standard input.

use std::{io, time::Duration};

use clap::Args;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin},
    sync::watch,
    time::Instant,
};
use unstall::{Client, Options, Reconnect};
use unstall_proto::Kind;
use unstall_topics::{
    Delivery, Offset, PublishError, Start, Subscription, Topics, store::Publication,
};

use super::{
    super::{peer::SILENCE, talk::report},
    messages,
    talk::{Fate, Order, Part, Report, Role, add},
};
use crate::{failure::Failure, runtime, time::later, topics::start::From};

/// Four pings fit into the silence timeout.
const PING_INTERVAL: Duration = Duration::from_millis(250);

/// The bounds of the first and of the longest wait before connecting again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How many messages are published together, at most.
const BATCH: u64 = 64;

/// How many batches are under way.
const BATCHES: usize = 64;

/// How many messages are reported together, at most.
const REPORTED: usize = 1_024;

/// How often a publisher with a rate looks at the clock.
const PACE: Duration = Duration::from_millis(5);

/// One process of a run; `unstall verify --topics` starts it
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct VerifyTopicsPeer {}

impl VerifyTopicsPeer {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            let mut lines = BufReader::new(tokio::io::stdin()).lines();
            let usage = || Failure::usage("only `unstall verify` starts verify-topics-peer");
            let line = lines.next_line().await.map_err(Failure::work)?;
            let part: Part = serde_json::from_str(&line.ok_or_else(usage)?).map_err(|_| usage())?;
            let orders = obey(lines);
            let topics = connect(&part);
            let done = match part.role {
                Role::Publisher { .. } => publish(&part, &topics, orders).await,
                Role::Subscriber { .. } => subscribe(&part, &topics, orders).await,
            };
            match done {
                Ok(()) => Ok(()),
                Err(why) => report(&[Report::Failed(why)]).map_err(Failure::work),
            }
        })
    }
}

/// What the last orders say.
#[derive(Clone, Copy, Debug, Default)]
struct Halt {
    paused: bool,
    stopped: bool,
}

/// Follows the orders. Ends the process when the verifier has ended.
fn obey(mut lines: Lines<BufReader<Stdin>>) -> watch::Receiver<Halt> {
    let (tell, orders) = watch::channel(Halt::default());
    tokio::spawn(async move {
        loop {
            let line = lines.next_line().await.ok().flatten();
            let order = line.and_then(|line| serde_json::from_str(&line).ok());
            match order {
                Some(Order::Pause) => tell.send_modify(|halt| halt.paused = true),
                Some(Order::Resume) => tell.send_modify(|halt| halt.paused = false),
                Some(Order::Stop) => tell.send_modify(|halt| halt.stopped = true),
                None => std::process::exit(1),
            }
        }
    });
    orders
}

fn connect(part: &Part) -> Topics {
    let options = Options::default()
        .ping_interval(PING_INTERVAL)
        .silence_timeout(SILENCE);
    let reconnect = Reconnect::default()
        .first(RECONNECT.0)
        .max(RECONNECT.1)
        .proof(Duration::ZERO);
    let client = |url: &String| Client::new(url).without_proxy().options(options.clone());
    Topics::over(part.urls.iter().map(client))
        .reconnect(reconnect)
        .start()
}

fn pipe(error: io::Error) -> String {
    error.to_string()
}

type Answers = (u64, Vec<Result<Offset, PublishError>>);

/// Publishes messages, and reports what became of each.
async fn publish(
    part: &Part,
    topics: &Topics,
    orders: watch::Receiver<Halt>,
) -> Result<(), String> {
    let Role::Publisher {
        number,
        count,
        rate,
    } = part.role
    else {
        return Err("this is not the part of a publisher".to_owned());
    };
    let mut under_way: FuturesOrdered<BoxFuture<'_, Answers>> = FuturesOrdered::new();
    let mut next = 0u64;
    let started = Instant::now();
    loop {
        let stops = orders.borrow().stopped || next >= count;
        if stops && under_way.is_empty() {
            break;
        }
        let due = match rate {
            Some(rate) => (started.elapsed().as_secs_f64() * rate) as u64,
            None => count,
        };
        let end = due.min(count).min(next.saturating_add(BATCH));
        let mut sends = !stops && under_way.len() < BATCHES;
        if sends && end > next {
            let batch = batch(part, number, next..end, count)?;
            let first = next;
            let publishing = topics
                .publish_many(batch)
                .map(move |results| (first, results));
            under_way.push_back(Box::pin(publishing));
            next = end;
            sends = next < due.min(count);
            if sends {
                continue;
            }
        }
        let more_is_due = !stops && under_way.len() < BATCHES;
        tokio::select! {
            Some((first, results)) = under_way.next(), if !under_way.is_empty() => {
                answered(number, first, results).map_err(pipe)?;
            }
            () = tokio::time::sleep_until(later(Instant::now(), PACE)), if more_is_due => {}
        }
    }
    report(&[Report::Done]).map_err(pipe)
}

fn batch(
    part: &Part,
    number: u32,
    indexes: std::ops::Range<u64>,
    count: u64,
) -> Result<Vec<Publication>, String> {
    let message = |index| {
        let topic = messages::topic(part, number, index).map_err(|error| error.to_string())?;
        let (kind, payload) = part.sizes.payload(index);
        let mut publication = Publication::new(topic, kind, payload);
        publication.is_final = part.forwarded && index.checked_add(1) == Some(count);
        Ok(publication)
    };
    indexes.map(message).collect()
}

fn answered(number: u32, first: u64, results: Vec<Result<Offset, PublishError>>) -> io::Result<()> {
    let mut reports: Vec<Report> = Vec::new();
    for (index, result) in (first..).zip(results) {
        let (fate, offset) = match result {
            Ok(offset) => (Fate::Stored, offset.get()),
            Err(PublishError::StoredBefore) => (Fate::StoredBefore, 0),
            Err(error) if error.may_be_stored() => (Fate::Unknown, 0),
            Err(_) => (Fate::Not, 0),
        };
        match reports.last_mut() {
            Some(Report::Published(last, stretches)) if *last == fate => {
                add(stretches, number, index, offset);
            }
            _ => {
                let mut stretches = Vec::new();
                add(&mut stretches, number, index, offset);
                reports.push(Report::Published(fate, stretches));
            }
        }
    }
    report(&reports)
}

/// Receives everything, and reports it.
async fn subscribe(
    part: &Part,
    topics: &Topics,
    mut orders: watch::Receiver<Halt>,
) -> Result<(), String> {
    let filter = messages::filter(part).map_err(|error| error.to_string())?;
    let start = match part.role {
        Role::Subscriber {
            told_of_removed: true,
        } => From::Offset(Offset::START),
        _ => From::Start(Start::Beginning),
    };
    let start = start.begin(topics, &filter).await;
    let start = start.map_err(Failure::into_reason)?;
    let feed = topics.subscribe(filter.as_str(), start);
    let mut feed = feed.map_err(|error| error.to_string())?;
    let mut told = 0;
    loop {
        let resumed = orders.wait_for(|halt| !halt.paused).await;
        resumed.map_err(|_| "the verifier has ended")?;
        let first = tokio::select! {
            next = feed.recv() => next,
            _ = orders.changed() => continue,
        };
        let reports = gather(part, &mut feed, first)?;
        let at = feed.position().map_or(0, |position| position.offset.get());
        let at = (at != std::mem::replace(&mut told, at)).then_some(Report::At(at));
        let is_over = matches!(reports.last(), Some(Report::Final));
        report(&reports.into_iter().chain(at).collect::<Vec<_>>()).map_err(pipe)?;
        if is_over {
            return Ok(());
        }
    }
}

fn kind(message: &unstall_topics::Message) -> Kind {
    match message.is_text() {
        true => Kind::Text,
        false => Kind::Binary,
    }
}

type Received = Result<Option<Delivery>, unstall_topics::SubscriptionError>;

/// Reports of a delivery, and of those that are there already.
fn gather(part: &Part, feed: &mut Subscription, first: Received) -> Result<Vec<Report>, String> {
    let mut reports = Vec::new();
    let mut took = Vec::new();
    let mut next = Some(first);
    let mut count = 0usize;
    while let Some(delivery) = next {
        match delivery.map_err(|error| error.to_string())? {
            Some(Delivery::Message(message)) => {
                let publisher = messages::publisher(message.topic());
                let index = part.sizes.intact_index(kind(&message), message.as_bytes());
                match publisher.zip(index) {
                    // The order that counts is that of `verify.in`.
                    Some((publisher, index)) if part.forwarded => {
                        add(&mut took, publisher, index, index.saturating_add(1));
                    }
                    Some((publisher, index)) => {
                        add(&mut took, publisher, index, message.offset().get());
                    }
                    None => reports.push(Report::Corrupted(1)),
                }
            }
            Some(Delivery::Gap(gap)) => {
                reports.push(Report::Took(std::mem::take(&mut took)));
                reports.push(Report::Gap(gap.after.get(), gap.through.get()));
            }
            Some(_) => {}
            None if part.forwarded => {
                reports.push(Report::Took(took));
                reports.push(Report::Final);
                return Ok(reports);
            }
            None => return Err("the subscription ended by itself".to_owned()),
        }
        count = count.saturating_add(1);
        next = match count < REPORTED {
            true => feed.recv().now_or_never(),
            false => None,
        };
    }
    reports.push(Report::Took(took));
    Ok(reports)
}
