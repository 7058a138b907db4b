//! The messages between the verifier and its two processes: lines of JSON, in pipes.
//!
//! A line in a pipe outlives the process that wrote it. So the reports of a killed server are
//! complete: a process reports messages before it acknowledges them, and before it sends them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Sizes;
use crate::compress::How;
use crate::faults::Direction;

/// The first line that a process reads: its part in the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) side: Side,
    pub(super) plain: bool,
    /// The other side is a client in any language, which sends every message back.
    pub(super) echoed: bool,
    /// Compress messages.
    pub(super) compress: Option<How>,
    /// Messages to send, `first` and up, below `count`.
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) sizes: Sizes,
    /// Messages a second; `None`: as fast as possible.
    pub(super) rate: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Side {
    Server,
    Client {
        url: String,
        /// The fault proxy, if the connection goes through it by CONNECT.
        proxy: Option<String>,
        headers: Vec<(String, String)>,
        tls_roots: Option<std::path::PathBuf>,
    },
}

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

/// An order to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Receive no message for this many milliseconds.
    Pause(u64),
    /// Send no further message.
    Stop,
    /// Close and end.
    Finish,
}

/// A report of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The server listens.
    Listening(SocketAddr),
    /// Messages below this index may have been sent.
    Sending(u64),
    /// The messages from the first index to the second, both included, were received in this order.
    Took(u64, u64),
    /// This many messages had a wrong hash or size.
    Corrupted(u64),
    /// The stream reported a gap here.
    Gap,
    /// The first message after a new connection, or after a resumed session, was received.
    Recovered,
    /// The peer sends no message of this index or a higher one.
    Ended(u64),
    /// A client has begun a session.
    Session,
    /// A session went on over a new connection, so many times.
    Resumed(u64),
    /// The messages from the first index to the second, without the second, are sent again in a new
    /// session.
    Again(u64, u64),
    /// Messages that came back, from the first index to the second, both included.
    Undelivered(Vec<(u64, u64)>),
    /// The client's counts: new connections, sessions resumed, sessions lost.
    Connections(Connections),
    /// The process failed.
    Failed(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connections {
    pub(super) reconnects: u64,
    pub(super) resumes: u64,
    pub(super) sessions_lost: u64,
}

/// Writes reports to standard output. When it returns, they are in the pipe.
pub(super) fn report(reports: &[impl Serialize]) -> io::Result<()> {
    let mut lines = Vec::new();
    for report in reports {
        serde_json::to_writer(&mut lines, report)?;
        lines.push(b'\n');
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&lines)?;
    stdout.flush()
}

/// Runs of indexes, both ends included.
pub(super) fn runs(indexes: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    runs
}

impl Order {
    pub(super) fn pause(lasts: Duration) -> Self {
        Self::Pause(lasts.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_make_one_run() {
        assert_eq!(runs([1, 2, 3, 7, 8, 5]), [(1, 3), (7, 8), (5, 5)]);
        assert_eq!(runs([]), []);
    }

    #[test]
    fn reports_read_back_as_they_were_written() {
        for report in [
            Report::Listening("127.0.0.1:9".parse().unwrap()),
            Report::Took(1, 9),
            Report::Gap,
            Report::Undelivered(vec![(1, 2)]),
            Report::Connections(Connections::default()),
        ] {
            let line = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }
}
