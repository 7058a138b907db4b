//! `unstall doctor`: finds out why a connection of any program is stuck.

use std::collections::HashSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use unstall::doctor::{Doctor, Finding, sockets_of};

mod json;
mod library;
mod report;
mod watch;

/// Find out why a program's connection is stuck, without touching the program
///
/// Reads the kernel's account of TCP connections a few times (Linux only). Says of each connection
/// which side does not read, or whether the network is at fault. Without --pid, --port or --all it
/// examines the connections of your own processes; as root, those of all users. It sees its own
/// network namespace: to examine a container, run it inside the container.
///
/// Programs called `unstall` that listen on this machine are also asked what the library says of
/// their connections. With --ask every examined program is asked. They are asked over this machine's
/// loopback, also those that use TLS: then the name in their certificate is --tls-name.
///
/// Exit code 0: nothing is stuck. 1: something is. 2: wrong usage, missing
/// rights, or a system other than Linux.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,

    /// Keep looking and refresh a table until interrupted
    #[arg(long)]
    watch: bool,

    /// Time between two looks, for example 500ms, 1s, 1m (100ms to 1h)
    ///
    /// A verdict uses the looks of the last two seconds, at least two.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,

    /// Print JSON: one object, with --watch one in a line per look
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    ask: library::Ask,
}

#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct Selection {
    /// Examine the connections of this process
    #[arg(long, value_name = "P")]
    pid: Option<u32>,

    /// Examine the connections with this port at either end
    #[arg(long, value_name = "N")]
    port: Option<u16>,

    /// Examine every connection, also those of other users' processes
    #[arg(long)]
    all: bool,
}

/// The number of looks for a single report.
const LOOKS: u32 = 3;

/// A verdict that a program does not read needs at least this time between the first and the last
/// look.
const LEAST: Duration = Duration::from_secs(1);

/// Examines the chosen connections and prints the findings.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let done = if arguments.watch {
        watch::run(&arguments)
    } else {
        once(&arguments)
    };
    match done {
        Ok(stuck) => ExitCode::from(u8::from(stuck)),
        Err(error) => {
            eprintln!("unstall doctor: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints one report. Returns whether something is stuck.
fn once(arguments: &Arguments) -> io::Result<bool> {
    let mut library = arguments.library()?;
    let mut doctor = Doctor::new();
    let began = Instant::now();
    let mut looks = 0;
    loop {
        arguments.selection.look(&mut doctor)?;
        looks += 1;
        if looks >= LOOKS && began.elapsed() >= LEAST {
            break;
        }
        thread::sleep(arguments.interval);
    }
    let findings = arguments.selection.of(&doctor)?;
    let told = library.ask(&arguments.ask.programs(&findings));
    let said = told.of(&findings);
    let text = if arguments.json {
        json::object(&findings, &said)
    } else {
        report::text(&findings, &said)
    };
    match print(&text) {
        // The reader of the pipe has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    for note in report::rights(&findings).iter().chain(&told.notes) {
        eprintln!("{note}");
    }
    Ok(findings.iter().any(|finding| finding.verdict.is_stuck()))
}

/// Prints to standard output and flushes.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

impl Arguments {
    /// Reads the files that say how programs are asked.
    fn library(&self) -> io::Result<library::Library> {
        let library = self.ask.library();
        library.map_err(|failure| io::Error::other(failure.into_reason()))
    }
}

impl Selection {
    /// Lets the doctor look once more.
    fn look(&self, doctor: &mut Doctor) -> io::Result<()> {
        doctor.look().map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => io::Error::other(format!(
                "{error}. On this system, a program that uses the library `unstall` can still ask the library why it waits: call `stats()` or `events()`"
            )),
            _ => io::Error::other(format!(
                "the kernel's list of TCP sockets cannot be read: {error}"
            )),
        })?;
        // Check the process id before the first look.
        self.pid.map_or(Ok(()), |pid| owned(pid).map(drop))
    }

    /// The findings about the chosen connections.
    fn of(&self, doctor: &Doctor) -> io::Result<Vec<Finding>> {
        let mut findings = doctor.findings();
        // Connections by which this command asks programs.
        let own = std::process::id();
        findings.retain(|finding| {
            let mut owners = [&finding.owner, &finding.peer_owner].into_iter().flatten();
            owners.all(|owner| owner.pid != own)
        });
        if let Some(pid) = self.pid {
            let sockets = owned(pid)?;
            findings.retain(|finding| sockets.contains(&finding.account.inode));
        } else if let Some(port) = self.port {
            findings.retain(|finding| {
                finding.account.local.port() == port || finding.account.peer.port() == port
            });
        } else if !self.all {
            let user = own_user();
            findings.retain(|finding| match user {
                Some(0) | None => true,
                Some(user) => finding.account.uid == user,
            });
        }
        Ok(findings)
    }
}

fn owned(pid: u32) -> io::Result<HashSet<u32>> {
    sockets_of(pid).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!("there is no process {pid}")),
        io::ErrorKind::PermissionDenied => io::Error::other(format!(
            "process {pid} belongs to another user, so its sockets cannot be seen: run as root, or use --port"
        )),
        _ => io::Error::other(format!(
            "the sockets of process {pid} cannot be seen: {error}"
        )),
    })
}

/// The user this process runs as.
#[cfg(target_os = "linux")]
fn own_user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self")
        .ok()
        .map(|metadata| metadata.uid())
}

#[cfg(not(target_os = "linux"))]
fn own_user() -> Option<u32> {
    None
}

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("expected a number and a unit: ms, s or m".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "no number before the unit".to_owned())?;
    match number * seconds {
        seconds if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be from 100ms to 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_and_bounded() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(interval("0.5m"), Ok(Duration::from_secs(30)));
        for wrong in [
            "", "s", "1h", "99ms", "61m", "-1s", "1 s", "1..2s", "nan", "1e9",
        ] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
