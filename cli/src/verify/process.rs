//! Starts the two processes of a run and receives their reports.

use std::io;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::talk::{Order, Part, Report, Side};
use crate::faults::Direction;
use crate::rss::peak_rss_bytes_of;

/// The most reports that are queued for the verifier. More wait in the pipe.
const REPORTS_WAITING: usize = 256;

/// The process that a report comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Server,
}

impl Speaker {
    /// The direction of the messages that it receives.
    pub(super) fn takes(self) -> Direction {
        match self {
            Self::Client => Direction::Down,
            Self::Server => Direction::Up,
        }
    }

    /// The direction of the messages that it sends.
    pub(super) fn sends(self) -> Direction {
        match self {
            Self::Client => Direction::Up,
            Self::Server => Direction::Down,
        }
    }
}

impl std::fmt::Display for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// A report and its time. `None` means that the process has ended.
pub(super) type Heard = (Speaker, Instant, Option<Report>);

/// The reports of all processes of the run.
pub(super) struct Ears {
    speak: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
}

impl Ears {
    pub(super) fn new() -> Self {
        let (speak, heard) = mpsc::channel(REPORTS_WAITING);
        Self { speak, heard }
    }

    pub(super) async fn next(&mut self) -> Option<Heard> {
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
    pub(super) async fn start(part: &Part, ears: &Ears) -> io::Result<Self> {
        let speaker = match part.side {
            Side::Server => Speaker::Server,
            Side::Client { .. } => Speaker::Client,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("verify-peer")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // Only the verifier handles Ctrl-C.
        #[cfg(unix)]
        command.process_group(0);
        #[cfg(windows)]
        command.creation_flags(0x0000_0200); // CREATE_NEW_PROCESS_GROUP
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

    async fn write(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        self.orders.write_all(line.as_bytes()).await?;
        self.orders.flush().await
    }

    /// Gives an order. If the process has ended, its last report says so.
    pub(super) async fn order(&mut self, order: Order) {
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
