//! A run: hubs behind proxies, publishers and subscribers, and their reports.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use indicatif::ProgressBar;
use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    super::{
        peer::SILENCE,
        process::{Ears, Process},
        visit::{FINISH, News, Visit},
    },
    Aim, Named,
    account::{Published, Received},
    faults::{Plan, Strike},
    talk::{Order, Part, Report, Role},
    verdict::{Found, Verdict},
};
use crate::{
    failure::Failure,
    faults::{
        Schedule,
        proxy::{self, Route},
    },
    hub::HubProcess,
    progress::packets_bar,
    time::later,
};

/// How often the bar is drawn, and the clock is looked at.
const TICK: Duration = Duration::from_millis(20);

/// What the log keeps if retention is to remove something. It is the least of a log in a directory.
const RETAINED_BYTES: u64 = 16 << 20;

/// A subscriber has to wait until this much is published. Some MiB are on their way to it already.
const OUTRUN_BYTES: u64 = 3 * RETAINED_BYTES;

/// The subcommand of the processes.
const PEER: &str = "verify-topics-peer";

/// Who reports: a number among all publishers and subscribers.
type Speaker = usize;

pub(super) struct Run {
    aim: Aim,
    started: Instant,
    plan: Plan,
    ears: Ears<Speaker, Report>,
    nodes: Vec<Node>,
    /// Where clients connect to.
    urls: Vec<String>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// A client in any language, which forwards what is published.
    visit: Option<Visit>,
    published: Published,
    counts: Counts,
    /// Why the run ended early.
    broken_off: Option<String>,
    bar: ProgressBar,
    /// Removed with the run.
    _directory: Option<TempDir>,
}

/// A hub, and the proxy in front of it.
struct Node {
    hub: HubProcess,
    /// The proxy's way to it ends with this.
    _address: watch::Sender<std::net::SocketAddr>,
}

struct Publisher {
    /// It ends with this.
    _process: Process,
    is_done: bool,
}

struct Subscriber {
    /// `None`: it starts later.
    process: Option<Process>,
    received: Received,
    /// Everything up to this offset has arrived.
    at: u64,
    /// The final message has arrived.
    is_over: bool,
    paused: Option<Until>,
}

/// When a subscriber goes on.
#[derive(Clone, Copy)]
enum Until {
    Time(Instant),
    /// So many messages have their answers.
    Answered(u64),
}

/// What has happened.
#[derive(Default)]
struct Counts {
    kills: u64,
    restarts: u64,
    others: u64,
    /// Counted where they strike.
    network: Arc<AtomicU64>,
}

impl Run {
    pub(super) async fn start(aim: Aim) -> Result<Run, Failure> {
        let messages = aim.count.saturating_mul(u64::from(aim.publishers));
        let plan = Plan::draw(&aim, messages);
        let directory = match aim.store {
            None => Some(tempfile::tempdir().map_err(Failure::work)?),
            Some(_) => None,
        };
        let mut run = Run {
            started: Instant::now(),
            plan,
            ears: Ears::new(),
            nodes: Vec::new(),
            urls: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            visit: aim.client.clone().map(Visit::new),
            published: Published::new(aim.publishers, aim.count),
            counts: Counts::default(),
            broken_off: None,
            bar: packets_bar("verify", messages),
            _directory: directory,
            aim,
        };
        let started = run.start_processes(messages).await;
        started.map_err(|error| Failure::work(format_args!("starting the run: {error}")))?;
        Ok(run)
    }

    async fn start_processes(&mut self, messages: u64) -> io::Result<()> {
        for number in 0..self.aim.nodes {
            self.start_node(number, messages).await?;
        }
        for number in 0..self.aim.publishers {
            let role = Role::Publisher {
                number,
                count: self.aim.count,
                rate: self.aim.rate,
            };
            let part = self.part(role);
            let process = Process::start(PEER, number as usize, &part, &self.ears).await?;
            self.publishers.push(Publisher {
                _process: process,
                is_done: false,
            });
        }
        for _ in 0..self.aim.subscribers {
            self.subscribers.push(Subscriber {
                process: None,
                received: Received::new(self.aim.publishers, self.aim.count),
                at: 0,
                is_over: false,
                paused: None,
            });
        }
        for number in (0..self.subscribers.len()).step_by(2) {
            self.start_subscriber(number).await?;
        }
        match &mut self.visit {
            Some(visit) => visit.begin(self.urls.join(",")),
            None => Ok(()),
        }
    }

    async fn start_node(&mut self, number: u32, messages: u64) -> io::Result<()> {
        let directory = self._directory.as_ref();
        let directory = directory.map(|directory| directory.path().join("log"));
        let store = match (&self.aim.store, directory) {
            (Some(store), _) => store.clone(),
            (None, Some(directory)) => directory.display().to_string(),
            (None, None) => "memory".to_owned(),
        };
        // What is forwarded is stored twice.
        let (size, messages, forwarders) = match self.visit {
            Some(_) => (
                self.aim.sizes.bytes(messages).saturating_mul(2),
                messages.saturating_mul(2),
                1,
            ),
            None => (self.aim.sizes.bytes(messages), messages, 0),
        };
        let bytes = match self.aim.faults.contains(&Named::Retention) {
            true => RETAINED_BYTES,
            // Nothing is removed.
            false => size
                .saturating_add(messages.saturating_mul(512))
                .saturating_mul(2),
        };
        let bytes = bytes.max(RETAINED_BYTES).to_string();
        let flags = ["--store", &store, "--max-bytes", &bytes].map(str::to_owned);
        let hub = HubProcess::start(flags.into()).await?;
        let (address, upstream) = watch::channel(hub.address());
        let share = size
            .checked_div(u64::from(self.aim.nodes))
            .unwrap_or_default();
        let readers = u64::from(self.aim.subscribers).saturating_add(forwarders);
        let down = share.saturating_mul(readers);
        let (kinds, times) = &self.plan.network;
        let times = times.div_ceil(self.aim.nodes as usize);
        let seed = self.aim.seed.wrapping_add(u64::from(number));
        let schedule = Schedule::draw(kinds, times, [share, down], SILENCE, seed);
        let (proxy, mut strikes) = proxy::start(Route::To(upstream), schedule).await?;
        let counted = self.counts.network.clone();
        tokio::spawn(async move {
            while strikes.recv().await.is_some() {
                counted.fetch_add(1, Relaxed);
            }
        });
        self.urls.push(format!("ws://{proxy}/topics"));
        self.nodes.push(Node {
            hub,
            _address: address,
        });
        Ok(())
    }

    fn part(&self, role: Role) -> Part {
        Part {
            urls: self.urls.clone(),
            seed: self.aim.seed,
            forwarded: self.visit.is_some(),
            sizes: self.aim.sizes,
            role,
        }
    }

    async fn start_subscriber(&mut self, number: usize) -> io::Result<()> {
        let part = self.part(Role::Subscriber {
            told_of_removed: self.aim.faults.contains(&Named::Retention),
        });
        let speaker = number.saturating_add(self.publishers.len());
        let process = Process::start(PEER, speaker, &part, &self.ears).await?;
        if let Some(subscriber) = self.subscribers.get_mut(number) {
            subscriber.process = Some(process);
        }
        Ok(())
    }

    /// Runs to the end and returns the verdict.
    pub(super) async fn conclude(mut self) -> Verdict {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        // Created once, so that a signal between two iterations is not missed.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        while !self.is_done() && self.broken_off.is_none() {
            tokio::select! {
                Some((speaker, _, report)) = self.ears.next() => {
                    heard_at = Instant::now();
                    self.heard(speaker, report);
                }
                _ = ticks.tick() => {
                    if let Err(error) = self.tick().await {
                        self.broken_off = Some(format!("a process could not be started: {error}"));
                    }
                    if heard_at.elapsed() > self.aim.patience {
                        self.broken_off = Some(self.stalled());
                    }
                }
                news = Visit::news(&mut self.visit) => self.client_news(news),
                _ = &mut interrupt => self.broken_off = Some("interrupted".to_owned()),
            }
        }
        if let (Some(visit), None) = (&mut self.visit, &self.broken_off)
            && visit.runs()
        {
            self.broken_off = visit.conclude(FINISH).await.err();
        }
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        // Whatever is left of the processes ends with the run.
        for node in &mut self.nodes {
            let _ = node.hub.end().await;
        }
        self.found(seconds)
    }

    fn found(self, seconds: f64) -> Verdict {
        let received = self
            .subscribers
            .iter()
            .map(|subscriber| &subscriber.received);
        let faults = self.counts.network.load(Relaxed);
        let faults = [self.counts.kills, self.counts.restarts, self.counts.others]
            .into_iter()
            .fold(faults, u64::saturating_add);
        Verdict::new(Found {
            delivered: received.clone().map(Received::delivered).collect(),
            counts: received.map(|it| it.settled(&self.published)).collect(),
            published: self.published,
            kills: self.counts.kills,
            restarts: self.counts.restarts,
            faults,
            may_remove: self.aim.faults.contains(&Named::Retention),
            seed: self.aim.seed,
            seconds,
            broken_off: self.broken_off,
        })
    }

    /// Every publisher has every answer, and every subscriber has read up to the last of them, or to the
    /// final message.
    fn is_done(&self) -> bool {
        let last = self.published.last;
        if self.visit.is_some() {
            return self.all_published() && self.subscribers.iter().all(|it| it.is_over);
        }
        self.all_published()
            && self
                .subscribers
                .iter()
                .all(|subscriber| subscriber.at >= last)
    }

    fn all_published(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.is_done)
    }

    fn stalled(&self) -> String {
        let patience = self.aim.patience;
        match &self.visit {
            Some(visit) if !visit.runs() => format!(
                "nothing moved for {patience:?}: the client has ended, and no final message has come"
            ),
            _ => format!("nothing moved for {patience:?}"),
        }
    }

    /// The client in any language has ended. If it did so too early, messages are missing.
    fn client_news(&mut self, news: News) {
        match news {
            News::Due => {}
            News::Ended(Ok(exit)) if exit.is_success() => {}
            News::Ended(Ok(exit)) => {
                self.broken_off = Some(format!("the client ended early: {exit}"));
            }
            News::Ended(Err(error)) => {
                self.broken_off = Some(format!("the client could not be waited for: {error}"));
            }
        }
    }

    fn heard(&mut self, speaker: Speaker, report: Option<Report>) {
        let subscriber = speaker.checked_sub(self.publishers.len());
        let is_over = |number: usize| self.subscribers.get(number).is_some_and(|it| it.is_over);
        match (report, subscriber) {
            (None, Some(number)) if is_over(number) => {}
            (Some(Report::Failed(why)), _) => {
                self.broken_off = Some(format!("{}: {why}", self.name(speaker)));
            }
            (None, None) if self.publishers.get(speaker).is_some_and(|it| it.is_done) => {}
            (None, _) => {
                self.broken_off = Some(format!("{} has ended by itself", self.name(speaker)));
            }
            (Some(report), None) => self.heard_of_publisher(speaker, &report),
            (Some(report), Some(number)) => self.heard_of_subscriber(number, &report),
        }
    }

    fn name(&self, speaker: Speaker) -> String {
        match speaker.checked_sub(self.publishers.len()) {
            Some(number) => format!("subscriber {number}"),
            None => format!("publisher {speaker}"),
        }
    }

    fn heard_of_publisher(&mut self, number: usize, report: &Report) {
        match report {
            Report::Published(fate, stretches) => {
                self.published.took(*fate, stretches);
                self.bar.set_position(self.published.answered());
            }
            Report::Done => {
                if let Some(publisher) = self.publishers.get_mut(number) {
                    publisher.is_done = true;
                }
            }
            _ => {}
        }
    }

    fn heard_of_subscriber(&mut self, number: usize, report: &Report) {
        let Some(subscriber) = self.subscribers.get_mut(number) else {
            return;
        };
        match report {
            Report::Took(stretches) => subscriber.received.took(stretches),
            Report::Corrupted(messages) => subscriber.received.corrupted(*messages),
            Report::Gap(after, through) => subscriber.received.gap(*after, *through),
            Report::At(offset) => subscriber.at = *offset,
            Report::Final => subscriber.is_over = true,
            _ => {}
        }
    }

    /// What is due: faults, their ends, and late subscribers.
    async fn tick(&mut self) -> io::Result<()> {
        let answered = self.published.answered();
        let messages = self
            .aim
            .count
            .saturating_mul(u64::from(self.aim.publishers));
        if answered >= messages / 2 {
            // They read history while there is live traffic.
            for number in 0..self.subscribers.len() {
                if self
                    .subscribers
                    .get(number)
                    .is_some_and(|it| it.process.is_none())
                {
                    self.start_subscriber(number).await?;
                }
            }
        }
        while let Some(strike) = self.plan.due(answered) {
            self.strike(strike, answered).await?;
        }
        let all_published = self.all_published();
        for subscriber in &mut self.subscribers {
            let over = match subscriber.paused {
                None => continue,
                Some(Until::Time(at)) => at <= Instant::now(),
                Some(Until::Answered(count)) => count <= answered || all_published,
            };
            if over {
                subscriber.order(Order::Resume).await;
                subscriber.paused = None;
            }
        }
        Ok(())
    }

    async fn strike(&mut self, strike: Strike, answered: u64) -> io::Result<()> {
        match strike {
            Strike::Kill(node, after) | Strike::Restart(node, after) => {
                let Some(node) = self.nodes.get_mut(node) else {
                    return Ok(());
                };
                match strike {
                    Strike::Kill(..) => {
                        node.hub.kill().await?;
                        self.counts.kills = self.counts.kills.saturating_add(1);
                    }
                    _ => {
                        node.hub.end().await?;
                        self.counts.restarts = self.counts.restarts.saturating_add(1);
                    }
                }
                tokio::time::sleep(after).await;
                node.hub.start_again().await?;
            }
            Strike::Slow(number, lasts) => {
                if let Some(visit) = &mut self.visit {
                    visit.stop(lasts);
                    self.counts.others = self.counts.others.saturating_add(1);
                    return Ok(());
                }
                self.pause(number, Until::Time(later(Instant::now(), lasts)))
                    .await;
            }
            Strike::Retention(number) => {
                let one = self.aim.sizes.bytes(1).max(1);
                let messages = OUTRUN_BYTES.checked_div(one).unwrap_or_default();
                let until = Until::Answered(answered.saturating_add(messages));
                self.pause(number, until).await;
            }
        }
        Ok(())
    }

    async fn pause(&mut self, number: usize, until: Until) {
        let Some(subscriber) = self.subscribers.get_mut(number) else {
            return;
        };
        if subscriber.paused.is_none() && subscriber.process.is_some() {
            subscriber.order(Order::Pause).await;
            subscriber.paused = Some(until);
            self.counts.others = self.counts.others.saturating_add(1);
        }
    }
}

impl Subscriber {
    async fn order(&mut self, order: Order) {
        if let Some(process) = &mut self.process {
            process.order(order).await;
        }
    }
}
