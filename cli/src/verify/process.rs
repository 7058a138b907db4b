//! The processes of a run, and their reports.

use std::io;
use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::process_group;
use crate::rss::peak_rss_bytes_of;

/// The most reports that are queued for the verifier. More wait in the pipe.
const REPORTS_WAITING: usize = 256;

/// A report, who made it, and its time. `None` means that the process has ended.
pub(super) type Heard<S, R> = (S, Instant, Option<R>);

/// The reports of all processes of the run.
pub(super) struct Ears<S, R> {
    speak: mpsc::Sender<Heard<S, R>>,
    heard: mpsc::Receiver<Heard<S, R>>,
}

impl<S, R> Ears<S, R> {
    pub(super) fn new() -> Self {
        let (speak, heard) = mpsc::channel(REPORTS_WAITING);
        Self { speak, heard }
    }

    /// The next report.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Heard<S, R>> {
        self.heard.recv().await
    }
}

/// A process of the run. Killed when dropped.
pub(super) struct Process {
    child: Child,
    orders: ChildStdin,
    peak_rss_bytes: Option<u64>,
}

impl Process {
    /// Starts this program with a hidden subcommand, and tells it its part.
    pub(super) async fn start<S, R>(
        subcommand: &str,
        speaker: S,
        part: &impl Serialize,
        ears: &Ears<S, R>,
    ) -> io::Result<Self>
    where
        S: Copy + Send + 'static,
        R: DeserializeOwned + Send + 'static,
    {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(subcommand)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        process_group::lead(&mut command);
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, reports) = pipes.ok_or_else(|| io::Error::other("no pipes"))?;
        let speak = ears.speak.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(reports).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // A killed process may leave a partial line.
                let Ok(report) = serde_json::from_str(&line) else {
                    break;
                };
                let heard = (speaker, Instant::now(), Some(report));
                if speak.send(heard).await.is_err() {
                    return;
                }
            }
            let _ = speak.send((speaker, Instant::now(), None)).await;
        });
        let mut process = Self {
            child,
            orders,
            peak_rss_bytes: None,
        };
        process.write(part).await?;
        Ok(process)
    }

    async fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        self.orders.write_all(line.as_bytes()).await?;
        self.orders.flush().await
    }

    /// Gives an order. If the process has ended, its last report says so.
    pub(super) async fn order(&mut self, order: impl Serialize) {
        let _ = self.write(&order).await;
    }

    /// Kills it, as `kill -9` does. Its earlier reports still arrive, then its end.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.look_at_memory();
        self.child.start_kill()
    }

    /// Reads its memory from outside. Returns the peak.
    pub(super) fn look_at_memory(&mut self) -> Option<u64> {
        if let Some(pid) = self.child.id() {
            self.peak_rss_bytes = self.peak_rss_bytes.max(peak_rss_bytes_of(pid));
        }
        self.peak_rss_bytes
    }
}
