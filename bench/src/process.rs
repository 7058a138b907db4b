//! Starts the two workers of a run and reads their reports.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::{
    Result,
    contestants::python,
    job::{Job, Line, Outcome, Report, Role},
};

/// A worker ends itself before this. The limit is for one that hangs.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `job` in both roles, the server on the first of `cores`, the client on the second.
pub(crate) fn run(job: &Job, cores: [usize; 2]) -> Result<Outcome> {
    let mut server = Worker::spawn(&Job {
        role: Role::Server,
        core: cores[0],
        ..job.clone()
    })?;
    let Line::Listening(address) = server.line()? else {
        return Err("the server reports before it listens".into());
    };
    let mut client = Worker::spawn(&Job {
        role: Role::Client { server: address },
        core: cores[1],
        ..job.clone()
    })?;
    let client = client
        .report()
        .map_err(|error| format!("client: {error}"))?;
    let server = server
        .report()
        .map_err(|error| format!("server: {error}"))?;
    Ok(Outcome { server, client })
}

struct Worker {
    child: Child,
    lines: Receiver<std::io::Result<String>>,
    limit: Duration,
}

impl Worker {
    fn spawn(job: &Job) -> Result<Worker> {
        let mut command = match job.contestant == python::NAME {
            true => python::worker().ok_or("there is no Python with websockets")?,
            false => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("worker");
                command
            }
        };
        let mut child = command
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let limit = job.limit + GRACE;
        Ok(Worker {
            child,
            lines,
            limit,
        })
    }

    fn line(&mut self) -> Result<Line> {
        let line = self.lines.recv_timeout(self.limit);
        let line = line.map_err(|_| "it ended, or hangs, without a report")??;
        Ok(serde_json::from_str(&line)?)
    }

    fn report(&mut self) -> Result<Report> {
        let Line::Report(report) = self.line()? else {
            return Err("no report".into());
        };
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(report),
            false => Err(format!("it ended with {status}").into()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
