//! What the verifier and its two processes tell each other: a line of JSON each, in pipes.
//!
//! What a process has written into its pipe outlives it. So a server that is killed leaves a record
//! that is exact: it writes down what it received before it acknowledges it, and what it is about to
//! send before it sends it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Sizes;

/// The first line that a process is given: its part in the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) side: Side,
    pub(super) plain: bool,
    /// Messages to send, `first` and up, below `count`.
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) sizes: Sizes,
    /// Messages a second; `None`: as fast as it goes.
    pub(super) rate: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Side {
    Server,
    Client {
        url: String,
        /// The fault proxy, where it is asked for the way.
        proxy: Option<String>,
        headers: Vec<(String, String)>,
        tls_roots: Option<std::path::PathBuf>,
    },
}

/// What a process is told later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Take no message for so many milliseconds.
    Pause(u64),
    /// Send no more.
    Stop,
    /// Close and end.
    Finish,
}

/// What a process tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The server is up.
    Listening(SocketAddr),
    /// Messages below this index are sent, or may be.
    Sending(u64),
    /// The messages from the first index to the second, both included, were taken in this order.
    Took(u64, u64),
    /// So many messages had a wrong hash or size.
    Corrupted(u64),
    /// The stream told of something missing here.
    Gap,
    /// The first message after a new connection, or the session's resumption, was taken.
    Recovered,
    /// The peer sends no message of this index or a higher one.
    Ended(u64),
    /// Messages that came back, from the first index to the second, both included.
    Undelivered(Vec<(u64, u64)>),
    /// The client's counts: new connections, sessions resumed, sessions lost.
    Connections(Connections),
    /// It cannot go on.
    Failed(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connections {
    pub(super) reconnects: u64,
    pub(super) resumes: u64,
    pub(super) sessions_lost: u64,
}

/// Writes reports to standard output. When it returns they are in the pipe, whatever happens next.
pub(super) fn report(reports: &[Report]) -> io::Result<()> {
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
