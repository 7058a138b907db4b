//! The client of a run, if it is a program in any language: its processes, one after the other.

use std::{
    future::pending,
    io,
    time::{Duration, Instant as Time},
};

use tokio::time::{Instant, sleep_until, timeout};

use super::foreign::{ClientCommand, Exit, ForeignClient};
use crate::time::later;

/// From the fault to the death of the client. Meanwhile the server's application receives nothing, so
/// whoever acknowledges too early is caught.
pub(super) const KILLED_WITHIN: Duration = Duration::from_millis(150);

/// How long a process may take to finish before it is killed. The library's close takes less.
pub(super) const FINISH: Duration = Duration::from_secs(10);

/// A program in any language that is verified.
pub(super) struct Visit {
    command: ClientCommand,
    url: String,
    client: Option<ForeignClient>,
    /// It is killed at this time, and started again after the duration.
    kill_at: Option<(Instant, Duration)>,
    /// It was killed, and is started again at this time.
    start_at: Option<Instant>,
    /// It is stopped, and goes on at this time.
    resume_at: Option<Instant>,
    /// Its processes so far.
    pub(super) starts: u64,
    pub(super) kills: u64,
    /// Processes that ended because they told of a gap.
    pub(super) gaps: u64,
    /// Sessions that it has begun.
    pub(super) sessions: u64,
    pub(super) peak_rss_bytes: Option<u64>,
}

/// What happens to it.
pub(super) enum News {
    /// It has ended by itself.
    Ended(io::Result<Exit>),
    /// It has to be started again.
    Due,
}

impl Visit {
    pub(super) fn new(command: ClientCommand) -> Visit {
        Visit {
            command,
            url: String::new(),
            client: None,
            kill_at: None,
            start_at: None,
            resume_at: None,
            starts: 0,
            kills: 0,
            gaps: 0,
            sessions: 0,
            peak_rss_bytes: None,
        }
    }

    /// Starts it for the first time.
    pub(super) fn begin(&mut self, url: String) -> io::Result<()> {
        self.url = url;
        self.start()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.starts > 0
    }

    /// Whether a process runs, or will.
    pub(super) fn runs(&self) -> bool {
        self.client.is_some() || self.start_at.is_some()
    }

    /// Starts a new process.
    pub(super) fn start(&mut self) -> io::Result<()> {
        self.start_at = None;
        self.starts += 1;
        self.client = Some(ForeignClient::start(&self.command, &self.url)?);
        Ok(())
    }

    /// Waits for the next news.
    ///
    /// Cancel safety: it can be dropped and called again.
    pub(super) async fn news(visit: &mut Option<Visit>) -> News {
        let Some(visit) = visit else {
            return pending().await;
        };
        loop {
            let (start_at, resume_at) = (visit.start_at, visit.resume_at);
            let kill_at = visit.kill_at.map(|(at, _)| at);
            let ended = async {
                match &mut visit.client {
                    Some(client) => client.ended().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                exit = ended => {
                    visit.look_at_memory();
                    visit.client = None;
                    return News::Ended(exit);
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    visit.kill();
                }
                () = sleep_until(start_at.unwrap_or_else(Instant::now)), if start_at.is_some() => {
                    visit.start_at = None;
                    return News::Due;
                }
                () = sleep_until(resume_at.unwrap_or_else(Instant::now)), if resume_at.is_some() => {
                    visit.resume();
                }
            }
        }
    }

    /// Kills it soon. Then it is started again after this.
    pub(super) fn kill_soon(&mut self, start_after: Duration) {
        let at = later(Instant::now(), KILLED_WITHIN);
        self.kill_at.get_or_insert((at, start_after));
    }

    fn kill(&mut self) {
        let Some((_, start_after)) = self.kill_at.take() else {
            return;
        };
        self.look_at_memory();
        // Dropping it kills it. If it is about to be started, it is.
        if self.client.take().is_some() {
            self.kills += 1;
            self.resume_at = None;
            self.start_at = Some(later(Instant::now(), start_after));
        }
    }

    /// Stops it for this long.
    pub(super) fn stop(&mut self, lasts: Duration) {
        if let Some(client) = &self.client {
            client.stop(true);
            self.resume_at = Some(later(Instant::now(), lasts));
        }
    }

    fn resume(&mut self) {
        self.resume_at = None;
        if let Some(client) = &self.client {
            client.stop(false);
        }
    }

    pub(super) fn look_at_memory(&mut self) {
        if let Some(client) = &mut self.client {
            self.peak_rss_bytes = self.peak_rss_bytes.max(client.look_at_memory());
        }
    }

    /// Lets it end by itself, within this time. Says what is wrong with its end.
    pub(super) async fn conclude(&mut self, within: Duration) -> Result<(), String> {
        self.resume();
        self.kill_at = None;
        let Some(mut client) = self.client.take() else {
            return Err("the client does not run at the end".to_owned());
        };
        let began = Time::now();
        match timeout(within, client.ended()).await {
            Err(_) => Err(format!(
                "the client did not end within {:.0?} after the end of the stream",
                began.elapsed()
            )),
            Ok(Err(error)) => Err(format!("the client could not be waited for: {error}")),
            Ok(Ok(exit)) if exit.is_success() => Ok(()),
            Ok(Ok(exit)) => Err(format!(
                "the stream ended normally, and the client with {exit}"
            )),
        }
    }
}
