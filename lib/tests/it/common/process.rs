//! Other processes: a test's own binary run again as a server or a client, watched from outside.

use std::{process::Stdio, str::FromStr, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
};

/// Marks the child's lines among the output of the test harness.
const MARK: &str = "child: ";
/// Set in a child process only.
const ROLE: &str = "UNSTALL_TEST_ROLE";

/// Whether this process is a child that plays `role`.
pub(crate) fn is(role: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|value| value == role)
}

/// A setting that the parent gave.
pub(crate) fn setting<T: FromStr>(name: &str) -> T {
    let value = std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let parsed = value.parse().ok();
    parsed.unwrap_or_else(|| panic!("{name}={value} is not valid"))
}

/// Prints a line for the parent.
pub(crate) fn say(line: impl std::fmt::Display) {
    // One write: other threads print too.
    println!("\n{MARK}{line}");
}

/// The lines of the parent.
pub(crate) type Commands = mpsc::UnboundedReceiver<String>;

/// In a child: a runtime of two threads for `work`. The process ends when the parent closes its
/// input, and not before.
pub(crate) fn play<F: Future<Output = ()>>(work: impl FnOnce(Commands) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (commands, told) = mpsc::unbounded_channel();
        let listen = async {
            let mut lines = BufReader::new(tokio::io::stdin()).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = commands.send(line);
            }
        };
        let work = async {
            work(told).await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = work => {}
            () = listen => {}
        }
    });
    // Does not wait for tasks of the library.
    std::process::exit(0);
}

/// The name by which the test harness knows the test `name` of a module, of which `module_path!()`
/// is given.
pub(crate) fn test_name(module: &str, name: &str) -> String {
    match module.split_once("::") {
        Some((_crate, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    }
}

/// This test program once more, to run nothing but the ignored test `name` of a module, after
/// commands of the shell.
pub(crate) fn again(shell: &str, module: &str, name: &str) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{shell} exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test_name(module, name)])
        .args(["--ignored", "--nocapture"]);
    command
}

/// Fails with the program's output, unless it ran its one test and that passed.
pub(crate) fn passed(output: &std::process::Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{errors}"
    );
}

/// A process that runs an ignored test of this test binary.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Process {
    /// Runs the test `role` of a module, of which `module_path!()` is given.
    pub(crate) fn spawn(module: &str, role: &str, settings: &[(&str, String)]) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                &test_name(module, role),
                "--ignored",
                "--nocapture",
            ])
            .args(["--test-threads", "1"])
            .env(ROLE, role)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process {
            child,
            lines,
            name: role.to_owned(),
        }
    }

    /// The rest of the child's next line that begins with `word`.
    pub(crate) async fn hear(&mut self, word: &str) -> String {
        let heard = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let Some(said) = line.strip_prefix(MARK) else {
                    continue;
                };
                if let Some(rest) = said.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
            }
            panic!("{} ended before it said {word:?}", self.name)
        };
        match tokio::time::timeout(Duration::from_secs(600), heard).await {
            Ok(rest) => rest,
            Err(_) => panic!("nothing was heard of {word:?}"),
        }
    }

    /// One line to the child's input.
    pub(crate) async fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the child runs")
    }

    /// Sends a signal by name, such as STOP.
    pub(crate) fn signal(&self, name: &str) {
        let status = std::process::Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status();
        assert!(status.unwrap().success());
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Resident memory now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() << 10
    }
}
