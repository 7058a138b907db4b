//! Publishers and subscribers as processes, and their reports.

use std::{io, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

use super::talk::{Order, Part, Report};

/// The most reports that are queued for the verifier. More wait in the pipe.
const REPORTS_WAITING: usize = 256;

/// Who reports: a number among all publishers and subscribers.
pub(super) type Speaker = usize;

/// A report. `None` means that the process has ended.
pub(super) type Heard = (Speaker, Option<Report>);

/// The reports of all processes of the run.
pub(super) struct Ears {
    speak: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
}

impl Ears {
    pub(super) fn new() -> Ears {
        let (speak, heard) = mpsc::channel(REPORTS_WAITING);
        Ears { speak, heard }
    }

    /// The next report.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

/// A process. It is killed when this is dropped.
pub(super) struct Process {
    _child: Child,
    orders: ChildStdin,
}

impl Process {
    pub(super) async fn start(speaker: Speaker, part: &Part, ears: &Ears) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("verify-topics-peer")
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
                let Ok(report) = serde_json::from_str(&line) else {
                    break;
                };
                if speak.send((speaker, Some(report))).await.is_err() {
                    return;
                }
            }
            let _ = speak.send((speaker, None)).await;
        });
        let mut process = Process {
            _child: child,
            orders,
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
}
