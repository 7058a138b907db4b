//! A client in any language: a command, its process, and how that ends.

use std::{
    collections::VecDeque,
    io,
    process::{ExitStatus, Stdio},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{process_group, rss::peak_rss_bytes_of};

/// Where the URL stands in a command.
const URL: &str = "{url}";

/// How much of what a client writes to standard error is kept: the end of it.
const WORDS_BYTES: usize = 4 << 10;

/// How much of that a verdict quotes.
const QUOTED_BYTES: usize = 400;

/// How long standard error may stay open after the end of its process. A child of it may have it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program and its arguments, of which at least one has `{url}`.
#[derive(Clone, Debug)]
pub(super) struct ClientCommand(Vec<String>);

impl FromStr for ClientCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<ClientCommand, String> {
        let words = shlex::split(text).ok_or("a quote or a backslash at the end is not closed")?;
        match words.as_slice() {
            [] => Err("the command is empty".to_owned()),
            [_, arguments @ ..] if arguments.iter().any(|word| word.contains(URL)) => {
                Ok(ClientCommand(words))
            }
            _ => Err(format!(
                "one argument of the command has to contain {URL}, where the URL is put"
            )),
        }
    }
}

/// A running client, the leader of a process group. The whole group is killed when this is dropped.
pub(super) struct ForeignClient {
    child: Child,
    words: Arc<Mutex<VecDeque<u8>>>,
    reader: JoinHandle<()>,
    peak_rss_bytes: Option<u64>,
}

/// How a client ended.
#[derive(Debug)]
pub(super) struct Exit {
    status: ExitStatus,
    words: String,
}

impl Exit {
    pub(super) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Whether it told of a gap: exit code 1, and the word `gap` on standard error.
    pub(super) fn tells_of_a_gap(&self) -> bool {
        self.status.code() == Some(1) && self.words.to_ascii_lowercase().contains("gap")
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut start = self.words.len().saturating_sub(QUOTED_BYTES);
        while !self.words.is_char_boundary(start) {
            start = start.saturating_add(1);
        }
        let words = self.words.get(start..).unwrap_or_default().trim();
        match words {
            "" => write!(f, "{}, and nothing on standard error", self.status),
            words => write!(f, "{}; standard error: {words}", self.status),
        }
    }
}

impl ForeignClient {
    pub(super) fn start(command: &ClientCommand, url: &str) -> io::Result<ForeignClient> {
        let mut words = command.0.iter().map(|word| word.replace(URL, url));
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A wrapper and its children are stopped and killed together.
        process_group::lead(&mut command);
        let mut child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let words = Arc::new(Mutex::new(VecDeque::new()));
        let stderr = child.stderr.take();
        let reader = tokio::spawn(listen(
            stderr.ok_or_else(|| io::Error::other("no pipe"))?,
            words.clone(),
        ));
        Ok(ForeignClient {
            child,
            words,
            reader,
            peak_rss_bytes: None,
        })
    }

    /// Waits until it has ended.
    ///
    /// Cancel safety: it can be dropped and called again.
    pub(super) async fn ended(&mut self) -> io::Result<Exit> {
        let status = self.child.wait().await?;
        let _ = timeout(LAST_WORDS, &mut self.reader).await;
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let words: Vec<u8> = words.iter().copied().collect();
        Ok(Exit {
            status,
            words: String::from_utf8_lossy(&words).into_owned(),
        })
    }

    /// Kills it and its children, as `kill -9` does.
    pub(super) fn kill(&mut self) {
        self.look_at_memory();
        #[cfg(unix)]
        self.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.start_kill();
    }

    /// Stops it, or lets it go on. Only Unix can.
    #[cfg(unix)]
    pub(super) fn stop(&self, stops: bool) {
        use nix::sys::signal::Signal;
        self.signal(if stops {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        });
    }

    #[cfg(not(unix))]
    pub(super) fn stop(&self, _stops: bool) {}

    #[cfg(unix)]
    fn signal(&self, signal: nix::sys::signal::Signal) {
        // The group has the id of its leader, as long as that was not waited for.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // It fails only if the group has ended.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(id), signal);
        }
    }

    /// Reads its memory from outside. Returns the peak.
    pub(super) fn look_at_memory(&mut self) -> Option<u64> {
        if let Some(pid) = self.child.id() {
            self.peak_rss_bytes = self.peak_rss_bytes.max(peak_rss_bytes_of(pid));
        }
        self.peak_rss_bytes
    }
}

impl Drop for ForeignClient {
    fn drop(&mut self) {
        self.kill();
        self.reader.abort();
    }
}

/// Reads standard error to its end, however much it is, and keeps the last of it.
async fn listen(mut stderr: impl AsyncRead + Unpin, words: Arc<Mutex<VecDeque<u8>>>) {
    let mut piece = [0; WORDS_BYTES];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        let piece = piece.get(..read).unwrap_or_default();
        let text = String::from_utf8_lossy(piece);
        tracing::info!("the client says: {}", unstall::printable(text.trim_end()));
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend(piece);
        let excess = words.len().saturating_sub(WORDS_BYTES);
        words.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does_and_needs_a_place_for_the_url() {
        let command: ClientCommand = "node 'my echo.mjs' --to={url}/x \"{url}\"".parse().unwrap();
        assert_eq!(command.0, ["node", "my echo.mjs", "--to={url}/x", "{url}"]);
        for wrong in ["", "node echo.mjs", "{url}", "node 'echo.mjs {url}"] {
            assert!(wrong.parse::<ClientCommand>().is_err(), "{wrong}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_gap_is_told_by_exit_code_1_and_a_line_on_standard_error() {
        for (script, tells) in [
            (
                "echo hello >&2; echo 'gap: the session was lost' >&2; exit 1",
                true,
            ),
            ("echo 'a Gap' >&2; exit 1", true),
            ("echo gap >&2; exit 2", false),
            ("echo gap >&2", false),
            ("echo 'no session' >&2; exit 1", false),
            ("exit 1", false),
        ] {
            let command = ClientCommand(["sh", "-c", script, URL].map(str::to_owned).to_vec());
            let mut client = ForeignClient::start(&command, "ws://a").unwrap();
            let exit = client.ended().await.unwrap();
            assert_eq!(exit.tells_of_a_gap(), tells, "{script}: {exit}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn endless_words_are_read_and_the_last_are_kept() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done >&2; exit 3";
        let command = ClientCommand(["sh", "-c", script, URL].map(str::to_owned).to_vec());
        let mut client = ForeignClient::start(&command, "ws://a").unwrap();
        let exit = client.ended().await.unwrap();
        assert!(exit.words.len() <= WORDS_BYTES);
        assert!(exit.to_string().ends_with("line 19999"), "{exit}");
        assert!(exit.to_string().len() < 2 * QUOTED_BYTES);
    }
}
