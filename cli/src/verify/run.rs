//! A run: two processes, the proxy between them, and their reports.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout_at};

use super::ledger::Ledger;
use super::peer::SILENCE;
use super::process::{Ears, Process};
use super::talk::{Connections, Order, Part, Report, Side, Speaker};
use super::verdict::{Foreign, Found, Peaks, Verdict};
use super::visit::{FINISH, KILLED_WITHIN, News, Visit};
use super::{Aim, memory_limit_bytes};
use crate::failure::Failure;
use crate::faults::proxy::{self, Route};
use crate::faults::{Action, Direction, Fault, Schedule};
use crate::progress::packets_bar;
use crate::time::later;

/// How often the bar is drawn and the processes' memory is checked.
const TICK: Duration = Duration::from_millis(100);

/// How long messages under way may take after an interruption or a failure.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// The subcommand of the processes.
const PEER: &str = "verify-peer";

pub(super) struct Run {
    aim: Aim,
    started: Instant,
    ears: Ears<Speaker, Report>,
    network: Network,
    client: Option<Process>,
    /// The client, if it is a program in any language.
    visit: Option<Visit>,
    server: ServerProcess,
    /// One for each direction. With an echo, only the first is used.
    ledgers: [Ledger; 2],
    connections: Connections,
    recoveries: Recoveries,
    ending: Ending,
    bar: ProgressBar,
}

/// The fault proxy between the two processes.
struct Network {
    proxy: SocketAddr,
    strikes: mpsc::UnboundedReceiver<(Instant, Fault)>,
    server_at: watch::Sender<SocketAddr>,
    /// Faults injected so far.
    faults: u64,
}

/// The server process, which may be killed and started again.
#[derive(Default)]
struct ServerProcess {
    process: Option<Process>,
    /// The peak of all server processes so far.
    peak_rss_bytes: Option<u64>,
    kills: u64,
    /// It was killed. Once its end is reported, it starts again after this time.
    restart_after: Option<Duration>,
    /// It has ended, and starts again at this time.
    restart_at: Option<Instant>,
}

/// The times from a cut to the first message over the new connection.
#[derive(Default)]
struct Recoveries {
    times: Vec<Duration>,
    /// The first cut since the last recovery.
    cut_at: Option<Instant>,
}

/// The early end of the run, before every message was sent and received.
#[derive(Default)]
struct Ending {
    by: Option<Instant>,
    why: Option<String>,
}

impl ServerProcess {
    fn look_at_memory(&mut self) {
        let now = self.process.as_mut().and_then(Process::look_at_memory);
        self.peak_rss_bytes = self.peak_rss_bytes.max(now);
    }

    /// Notes that it has ended and all its reports have arrived. Returns whether it starts again.
    fn ended(&mut self) -> bool {
        self.look_at_memory();
        self.process = None;
        let after = self.restart_after.take();
        self.restart_at = after.map(|after| later(Instant::now(), after));
        self.restart_at.is_some()
    }

    /// Kills it, so that it is started again. Returns whether it was running.
    fn kill(&mut self, restart_after: Duration) -> io::Result<bool> {
        let Some(process) = &mut self.process else {
            return Ok(false);
        };
        self.kills += 1;
        self.restart_after = Some(restart_after);
        process.kill().map(|()| true)
    }
}

impl Recoveries {
    fn cut(&mut self, at: Instant) {
        self.cut_at.get_or_insert(at);
    }

    fn recovered(&mut self, at: Instant) {
        if let Some(cut_at) = self.cut_at.take() {
            self.times.push(at.saturating_duration_since(cut_at));
        }
    }
}

impl Run {
    pub(super) async fn start(aim: Aim) -> Result<Self, Failure> {
        let bytes = [aim.sizes.bytes(aim.count); 2];
        let schedule = Schedule::draw(&aim.faults, aim.times, bytes, SILENCE, aim.seed);
        let (server_at, upstream) = watch::channel(SocketAddr::from(([127, 0, 0, 1], 0)));
        let route = match aim.url {
            Some(_) => Route::Asked,
            None => Route::To(upstream),
        };
        let (proxy, strikes) = proxy::start(route, schedule)
            .await
            .map_err(|error| Failure::work(format_args!("starting the fault proxy: {error}")))?;
        let is_echo = aim.url.is_some() || aim.client.is_some();
        let ways = if is_echo { 1 } else { 2 };
        let mut run = Self {
            started: Instant::now(),
            ears: Ears::new(),
            network: Network {
                proxy,
                strikes,
                server_at,
                faults: 0,
            },
            client: None,
            visit: aim.client.clone().map(Visit::new),
            server: ServerProcess::default(),
            ledgers: Default::default(),
            connections: Connections::default(),
            recoveries: Recoveries::default(),
            ending: Ending::default(),
            bar: packets_bar("verify", aim.count * ways),
            aim,
        };
        if run.aim.url.is_some() {
            run.start_client().await
        } else {
            run.start_server().await
        }
        .map_err(|error| Failure::work(format_args!("starting a process: {error}")))?;
        Ok(run)
    }

    fn part(&self, side: Side, first: u64) -> Part {
        Part {
            side,
            plain: self.aim.plain,
            echoed: self.visit.is_some(),
            compress: self.aim.compress.clone(),
            first,
            count: self.aim.count,
            sizes: self.aim.sizes,
            rate: self.aim.rate,
        }
    }

    /// The new server starts after the last message that the earlier one may have sent.
    async fn start_server(&mut self) -> io::Result<()> {
        let first = self.ledger(Direction::Down).sent();
        let mut part = self.part(Side::Server, first);
        if self.ending.by.is_some() {
            // If the run was interrupted, nothing more is sent.
            part.count = first;
        }
        let process = Process::start(PEER, Speaker::Server, &part, &self.ears);
        self.server.process = Some(process.await?);
        Ok(())
    }

    async fn start_client(&mut self) -> io::Result<()> {
        if let Some(visit) = &mut self.visit {
            return visit.begin(format!("ws://{}/", self.network.proxy));
        }
        let (url, proxy) = match &self.aim.url {
            Some(url) => (url.clone(), Some(format!("http://{}", self.network.proxy))),
            None => (format!("ws://{}/", self.network.proxy), None),
        };
        let side = Side::Client {
            url,
            proxy,
            headers: self.aim.headers.clone(),
            tls_roots: self.aim.tls_roots.clone(),
        };
        let part = self.part(side, 0);
        let process = Process::start(PEER, Speaker::Client, &part, &self.ears);
        self.client = Some(process.await?);
        Ok(())
    }

    /// Runs to the end and returns the verdict.
    pub(super) async fn conclude(mut self) -> Verdict {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Created once, so that a signal between two iterations is not missed.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        while !self.is_done() {
            let restart_at = self.server.restart_at;
            tokio::select! {
                // Reports may arrive without a pause, so everything else is polled first.
                biased;
                _ = &mut interrupt => {
                    interrupt.set(tokio::signal::ctrl_c());
                    self.interrupted().await;
                }
                _ = ticks.tick() => self.look(),
                Some((at, fault)) = self.network.strikes.recv() => self.struck(at, fault).await,
                () = sleep_until(restart_at.unwrap_or_else(Instant::now)), if restart_at.is_some() => {
                    self.server.restart_at = None;
                    if let Err(error) = self.start_server().await {
                        self.break_off(format!("the server could not be started again: {error}"));
                    }
                }
                news = Visit::news(&mut self.visit) => self.client_news(news),
                heard = self.ears.next() => {
                    if let Some((speaker, at, report)) = heard {
                        self.hear(speaker, at, report).await;
                    }
                }
            }
        }
        self.finish().await
    }

    fn is_done(&self) -> bool {
        self.has_all() || self.ending.by.is_some_and(|by| Instant::now() >= by)
    }

    /// Whether each consumer knows that it has received everything.
    fn has_all(&self) -> bool {
        self.ways().all(Ledger::is_ended)
    }

    /// The ledgers of the directions that are used.
    fn ways(&self) -> impl Iterator<Item = &Ledger> {
        let ways = if self.is_echo() { 1 } else { 2 };
        self.ledgers.iter().take(ways)
    }

    /// Whether one side sends every message back.
    fn is_echo(&self) -> bool {
        self.aim.url.is_some() || self.visit.is_some()
    }

    fn ledger(&mut self, direction: Direction) -> &mut Ledger {
        let echo = self.is_echo();
        &mut self.ledgers[if echo { 0 } else { direction.index() }]
    }

    async fn hear(&mut self, speaker: Speaker, at: Instant, report: Option<Report>) {
        let taking = speaker.takes();
        match report {
            Some(Report::Listening(address)) => {
                self.network.server_at.send_replace(address);
                let has_begun =
                    self.client.is_some() || self.visit.as_ref().is_some_and(Visit::has_begun);
                if !has_begun && let Err(error) = self.start_client().await {
                    self.break_off(format!("the client could not be started: {error}"));
                }
            }
            Some(Report::Sending(next)) => self.ledger(speaker.sends()).sending(next),
            Some(Report::Took(first, last)) => self.ledger(taking).took(first, last, at),
            Some(Report::Corrupted(count)) => self.ledger(taking).corrupted(count),
            Some(Report::Gap) => self.ledger(taking).gap(),
            Some(Report::Ended(count)) => self.ledger(taking).ended(count),
            Some(Report::Undelivered(runs)) => {
                for (first, last) in runs {
                    self.ledger(speaker.sends()).returned(first, last);
                }
            }
            Some(Report::Recovered) => {
                if speaker == Speaker::Client || self.visit.is_some() {
                    self.recoveries.recovered(at);
                }
            }
            Some(Report::Session) => {
                if let Some(visit) = &mut self.visit {
                    visit.sessions += 1;
                    self.connections.reconnects += u64::from(visit.sessions > 1);
                }
            }
            Some(Report::Resumed(times)) => {
                self.connections.resumes += times;
                self.connections.reconnects += times;
            }
            Some(Report::Again(first, end)) => self.ledger(taking).again(first, end),
            Some(Report::Connections(connections)) => self.connections = connections,
            Some(Report::Failed(why)) => self.break_off(format!("the {speaker} failed: {why}")),
            None => self.ended(speaker),
        }
    }

    /// Handles the end of a process, after all its reports.
    fn ended(&mut self, speaker: Speaker) {
        match speaker {
            Speaker::Client => self.client = None,
            Speaker::Server if self.server.ended() => return,
            Speaker::Server => {}
        }
        self.break_off(format!("the {speaker} process ended unexpectedly"));
    }

    async fn struck(&mut self, at: Instant, fault: Fault) {
        self.network.faults += 1;
        let Fault {
            direction,
            offset,
            mut action,
        } = fault;
        if let (Action::Slow(taker, _), Some(_)) = (&mut action, &self.aim.url) {
            // A server at a URL takes no orders.
            *taker = Direction::Down;
        }
        let seconds = at.saturating_duration_since(self.started).as_secs_f64();
        let offset = HumanCount(offset);
        let story = format!("{action}, after {offset} bytes {direction}");
        tracing::info!("{story}");
        self.bar.println(format!("{seconds:7.2} s  {story}"));
        match action {
            Action::Cut { .. } | Action::Refuse(_) => {
                self.recoveries.cut(at);
            }
            Action::Restart(after) => self.kill_server(at, after),
            Action::Kill(after) => {
                if let Some(visit) = &mut self.visit {
                    visit.kill_soon(after);
                    // Echoes are then under way or in the client, and not delivered.
                    if let Some(server) = &mut self.server.process {
                        server.order(Order::pause(KILLED_WITHIN * 2)).await;
                    }
                }
            }
            Action::Slow(direction, lasts) => {
                if let (Direction::Down, Some(visit)) = (direction, &mut self.visit) {
                    return visit.stop(lasts);
                }
                let taker = match direction {
                    Direction::Up => &mut self.server.process,
                    Direction::Down => &mut self.client,
                };
                if let Some(taker) = taker {
                    taker.order(Order::pause(lasts)).await;
                }
            }
            Action::Freeze(_) | Action::Swallow(_) | Action::Delay { .. } => {}
        }
    }

    fn kill_server(&mut self, at: Instant, after: Duration) {
        match self.server.kill(after) {
            Ok(true) => self.recoveries.cut(at),
            Ok(false) => {}
            Err(error) => self.break_off(format!("the server could not be killed: {error}")),
        }
    }

    /// A client that is a program in any language has ended, or has to be started again.
    fn client_news(&mut self, news: News) {
        let kills = self.server.kills;
        let Some(visit) = &mut self.visit else { return };
        let why = match news {
            News::Due => visit.start().err().map(|error| error.to_string()),
            News::Ended(Err(error)) => Some(error.to_string()),
            News::Ended(Ok(exit)) if exit.tells_of_a_gap() && visit.gaps < kills => {
                visit.gaps += 1;
                self.connections.sessions_lost += 1;
                let started = visit.start();
                self.ledger(Direction::Down).gap();
                started.err().map(|error| error.to_string())
            }
            News::Ended(Ok(exit)) => Some(exit.to_string()),
        };
        if let Some(why) = why {
            self.break_off(format!("the client ended early: {why}"));
        }
    }

    /// Ends the run early. Only the first reason is kept.
    fn break_off(&mut self, why: String) {
        self.ending.why.get_or_insert(why);
        // Without a client nothing more can be received.
        let has_client = self.client.is_some() || self.visit.as_ref().is_some_and(Visit::runs);
        let moments = if !has_client {
            Duration::ZERO
        } else {
            LAST_MOMENTS
        };
        let by = later(Instant::now(), moments);
        self.ending.by.get_or_insert(by);
    }

    /// Handles Ctrl-C. The first one stops sending, and messages under way are still received. The
    /// second one ends the run.
    async fn interrupted(&mut self) {
        let now = Instant::now();
        self.ending.by = Some(match self.ending.by {
            None => later(now, LAST_MOMENTS),
            Some(_) => now,
        });
        let processes = [&mut self.client, &mut self.server.process];
        for process in processes.into_iter().flatten() {
            process.order(Order::Stop).await;
        }
    }

    /// Checks the processes' memory and whether messages arrive, and draws the bar.
    fn look(&mut self) {
        let taken = self.ways().map(Ledger::received).sum();
        self.bar.set_position(taken);
        if let Some(client) = &mut self.client {
            client.look_at_memory();
        }
        if let Some(visit) = &mut self.visit {
            visit.look_at_memory();
        }
        self.server.look_at_memory();
        let last = self.ways().filter_map(Ledger::last).max();
        let between = self.aim.rate.map_or(0.0, |rate| 2.0 / rate);
        let patience = self.aim.patience;
        let patience = patience.saturating_add(Duration::from_secs_f64(between));
        if self.ending.why.is_none() && last.unwrap_or(self.started).elapsed() > patience {
            let is_away = self.visit.as_ref().is_some_and(|visit| visit.sessions == 0);
            self.break_off(match is_away {
                true => format!("the client has begun no session within {patience:.0?}"),
                false => format!("nothing was received for {patience:.0?}: stalled"),
            });
        }
    }

    /// Lets both processes close, receives their last reports and returns the verdict.
    async fn finish(mut self) -> Verdict {
        if self.ending.why.is_none() && !self.has_all() {
            self.ending.why = Some("interrupted before everything was received".to_owned());
        }
        self.look();
        let seconds = self.started.elapsed().as_secs_f64();
        let client_peak_rss_bytes = match &self.visit {
            Some(visit) => visit.peak_rss_bytes,
            None => self.client.as_mut().and_then(Process::look_at_memory),
        };
        for speaker in [Speaker::Client, Speaker::Server] {
            let process = match speaker {
                Speaker::Client => &mut self.client,
                Speaker::Server => &mut self.server.process,
            };
            if let Some(mut process) = process.take() {
                process.order(Order::Finish).await;
                self.hear_out(speaker).await;
            }
        }
        if let (Some(visit), None) = (&mut self.visit, &self.ending.why) {
            self.ending.why = visit.conclude(FINISH).await.err();
        }
        self.bar.finish_and_clear();
        let foreign = self.visit.as_ref().map(|visit| Foreign {
            kills: visit.kills,
            repeated: self.ledgers[0].repeated(),
            sessions: visit.sessions,
            // Of each process one, and another one if it goes on after the server was killed.
            sessions_expected: visit.starts + self.server.kills,
        });
        let longest_silence = self.ways().map(Ledger::longest_silence).max();
        let ways = self.ways().count();
        Verdict::new(Found {
            accounts: self
                .ledgers
                .into_iter()
                .take(ways)
                .map(Ledger::close)
                .collect(),
            connections: self.connections,
            longest_silence: longest_silence.unwrap_or_default(),
            recoveries: self.recoveries.times,
            memory: Peaks {
                client_peak_rss_bytes,
                server_peak_rss_bytes: self.server.peak_rss_bytes,
            },
            memory_limit_bytes: memory_limit_bytes(self.aim.sizes),
            seed: self.aim.seed,
            plain: self.aim.plain,
            faults: self.network.faults,
            kills: self.server.kills,
            foreign,
            seconds,
            broken_off: self.ending.why,
        })
    }

    /// Receives the reports of a process until it has ended.
    async fn hear_out(&mut self, speaker: Speaker) {
        let until = later(Instant::now(), FINISH);
        while let Ok(Some((from, at, report))) = timeout_at(until, self.ears.next()).await {
            match report {
                Some(report) => Box::pin(self.hear(from, at, Some(report))).await,
                None if from == speaker => return,
                None => {}
            }
        }
    }
}
