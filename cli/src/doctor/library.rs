//! What programs that use the library say of their own connections, beside the kernel's account.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use unstall::doctor::{Finding, Process, listeners_of};
use unstall::rustls::pki_types::ServerName;

use crate::failure::{Failure, chain};
use crate::status::{Asker, Connection, Credentials, Identity, Problem};

/// How long a program may take to answer. One that does not run answers never.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How many ports of a program are asked.
const PORTS: usize = 8;

/// How many programs are asked at the same time.
const AT_ONCE: usize = 16;

/// How long a program that did not tell anything is not asked again. Most never will.
const AGAIN: Duration = Duration::from_secs(10);

/// What a program said longer ago is not shown: it may not answer any more.
const FRESH: Duration = Duration::from_secs(10);

/// Whom to ask, and how
#[derive(clap::Args, Debug)]
pub(super) struct Ask {
    /// Ask every examined program that listens on this machine what the library says of its
    /// connections, by requests for /status.json to each of its ports, over HTTP and HTTPS
    #[arg(long)]
    ask: bool,

    #[command(flatten)]
    identity: Identity,

    /// The name in the certificates of programs that are asked over HTTPS
    #[arg(long, value_name = "NAME", default_value = "localhost", value_parser = tls_name)]
    tls_name: String,
}

/// Asks programs, and remembers how each of them is reached.
pub(super) struct Library {
    way: Way,
    pages: HashMap<u32, Page>,
}

/// How all programs are asked.
struct Way {
    credentials: Credentials,
    tls_name: String,
}

/// Where a program tells its connections.
#[derive(Default)]
struct Page {
    asker: Option<Asker>,
    /// When all its ports were asked in vain, and what was wrong.
    in_vain: Option<(Instant, Option<Problem>)>,
}

/// What programs told.
#[derive(Default)]
pub(super) struct Told {
    /// By the process id.
    connections: HashMap<u32, Vec<Connection>>,
    /// Why programs that could tell did not.
    pub(super) notes: Vec<String>,
}

/// What programs say, by the cookie of the kernel's account.
pub(super) type Said = HashMap<u64, Connection>;

impl Ask {
    /// Reads the files.
    pub(super) fn library(&self) -> Result<Library, Failure> {
        Ok(Library {
            way: Way {
                credentials: self.identity.read()?,
                tls_name: self.tls_name.clone(),
            },
            pages: HashMap::new(),
        })
    }

    /// The programs of these findings that are asked.
    pub(super) fn programs(&self, findings: &[Finding]) -> Vec<Process> {
        let owners = findings.iter().filter_map(|it| it.owner.as_ref());
        let asked = owners.filter(|it| self.ask || is_own(it));
        let running = asked.filter(|it| !it.is_stopped());
        let programs: BTreeMap<u32, Process> = running.map(|it| (it.pid, it.clone())).collect();
        programs.into_values().collect()
    }
}

/// Whether it is called as this command.
fn is_own(program: &Process) -> bool {
    program.program == "unstall"
}

impl Library {
    /// Asks these programs. Whoever does not answer, or answers something else, says nothing.
    pub(super) fn ask(&mut self, programs: &[Process]) -> Told {
        let mut earlier = std::mem::take(&mut self.pages);
        let mut told = Told::default();
        for some in programs.chunks(AT_ONCE) {
            let way = &self.way;
            let answers = thread::scope(|scope| {
                let asked = some.iter().map(|program| {
                    let mut page = earlier.remove(&program.pid).unwrap_or_default();
                    scope.spawn(move || {
                        let answer = page.ask(program.pid, way);
                        (program, page, answer)
                    })
                });
                let asked: Vec<_> = asked.collect();
                let answers = asked.into_iter().filter_map(|it| it.join().ok());
                answers.collect::<Vec<_>>()
            });
            for (program, page, answer) in answers {
                self.pages.insert(program.pid, page);
                told.take(program, answer);
            }
        }
        told
    }
}

impl Page {
    /// The connections of the process, if it tells them.
    fn ask(&mut self, pid: u32, way: &Way) -> Result<Vec<Connection>, Option<Problem>> {
        if let Some(asker) = &self.asker {
            let status = asker.status().map_err(telling)?;
            return Ok(status.connections);
        }
        if let Some((at, problem)) = &self.in_vain
            && at.elapsed() < AGAIN
        {
            return Err(problem.clone());
        }
        let listeners = listeners_of(pid).unwrap_or_default();
        let mut problem = None;
        for address in listeners.into_iter().filter_map(reached).take(PORTS) {
            for url in way.urls(address) {
                let Ok(asker) = way.asker(address, &url) else {
                    continue;
                };
                match asker.status() {
                    Ok(status) if status.process.pid == pid => {
                        self.asker = Some(asker);
                        return Ok(status.connections);
                    }
                    Ok(_) => {}
                    Err(why) => problem = problem.or_else(|| telling(why)),
                }
            }
        }
        self.in_vain = Some((Instant::now(), problem.clone()));
        Err(problem)
    }
}

impl Way {
    /// A program may use TLS on a port or not.
    fn urls(&self, address: SocketAddr) -> [String; 2] {
        let (name, port) = (&self.tls_name, address.port());
        [
            format!("http://{address}"),
            format!("https://{name}:{port}"),
        ]
    }

    fn asker(&self, address: SocketAddr, url: &str) -> Result<Asker, Failure> {
        Asker::at(address, url, self.credentials.clone(), TIMEOUT)
    }
}

/// A problem that the user can do something about.
fn telling(problem: Problem) -> Option<Problem> {
    match problem {
        Problem::Unreachable { .. } | Problem::Foreign { .. } | Problem::Unknown { .. } => None,
        problem => Some(problem),
    }
}

impl Told {
    fn take(&mut self, program: &Process, answer: Result<Vec<Connection>, Option<Problem>>) {
        match answer {
            Ok(connections) => {
                self.connections.insert(program.pid, connections);
            }
            // Other programs may mean something else by it.
            Err(Some(problem)) if is_own(program) => {
                let Process { program, pid, .. } = program;
                let why = chain(&problem);
                let note = format!("{program} (pid {pid}) does not tell its connections: {why}");
                self.notes.push(note);
            }
            Err(_) => {}
        }
    }

    /// What is said of these connections.
    pub(super) fn of(&self, findings: &[Finding]) -> Said {
        let mut said = Said::new();
        for (pid, connections) in &self.connections {
            let own: Vec<&Finding> = findings
                .iter()
                .filter(|it| it.owner.as_ref().is_some_and(|owner| owner.pid == *pid))
                .collect();
            said.extend(joined(&own, connections));
        }
        said
    }
}

/// Asks in a thread of its own, so that looks do not wait for programs that do not answer.
pub(super) struct Background {
    ask: Sender<Vec<Process>>,
    answers: Receiver<Told>,
    /// An answer is still to come.
    is_asking: bool,
    last: Told,
    since: Instant,
}

impl Background {
    pub(super) fn start(mut library: Library) -> io::Result<Background> {
        let (ask, questions) = mpsc::channel::<Vec<Process>>();
        let (tell, answers) = mpsc::channel();
        thread::Builder::new()
            .name("asking".to_owned())
            .spawn(move || {
                for programs in questions {
                    if tell.send(library.ask(&programs)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Background {
            ask,
            answers,
            is_asking: false,
            last: Told::default(),
            since: Instant::now(),
        })
    }

    /// Asks these programs, and waits so long for their answers at most. Then what they told before is what
    /// they say.
    pub(super) fn told(&mut self, programs: Vec<Process>, patience: Duration) -> &Told {
        if !self.is_asking {
            self.is_asking = self.ask.send(programs).is_ok();
        }
        if let Ok(told) = self.answers.recv_timeout(patience.min(TIMEOUT)) {
            (self.last, self.since) = (told, Instant::now());
            self.is_asking = false;
        } else if self.since.elapsed() > FRESH {
            self.last = Told::default();
        }
        &self.last
    }
}

/// The address on loopback that reaches a listener. `None`: it listens elsewhere.
fn reached(listener: SocketAddr) -> Option<SocketAddr> {
    let ip = match listener.ip().to_canonical() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, listener.port()))
}

/// A name that a certificate can have.
fn tls_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(ServerName::DnsName(_)) => Ok(text.to_owned()),
        Ok(ServerName::IpAddress(ip)) => {
            // As it stands in a URL.
            let ip = IpAddr::from(ip);
            Ok(if ip.is_ipv6() {
                format!("[{ip}]")
            } else {
                ip.to_string()
            })
        }
        _ => Err("expected a name such as hub.example, or an address".to_owned()),
    }
}

/// The peer's address names a connection, if no other one of the process has the same peer.
fn joined(findings: &[&Finding], connections: &[Connection]) -> Said {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let mut by_peer: HashMap<SocketAddr, Vec<&Connection>> = HashMap::new();
    for connection in connections {
        let peer = connection.peer.as_deref().and_then(|it| it.parse().ok());
        if let Some(peer) = peer {
            let same = by_peer.entry(canonical(peer)).or_default();
            same.push(connection);
        }
    }
    let mut said = Said::new();
    for finding in findings {
        let peer = canonical(finding.account.peer);
        let alike = findings
            .iter()
            .filter(|it| canonical(it.account.peer) == peer);
        if alike.count() == 1
            && let Some([connection]) = by_peer.get(&peer).map(Vec::as_slice)
        {
            said.insert(finding.account.cookie, (*connection).clone());
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_a_certificate_is_a_name_or_an_address() {
        for (given, asked) in [
            ("hub.example", "hub.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
        ] {
            assert_eq!(tls_name(given), Ok(asked.to_owned()));
        }
        for wrong in ["", "a b", "hub.example:9200", "https://hub.example", "a/b"] {
            assert!(tls_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_asked() {
        for (listener, asked) in [
            ("0.0.0.0:1", Some("127.0.0.1:1")),
            ("127.0.0.2:1", Some("127.0.0.2:1")),
            ("[::]:1", Some("[::1]:1")),
            ("[::ffff:0.0.0.0]:1", Some("127.0.0.1:1")),
            ("10.0.0.1:1", None),
        ] {
            let asked = asked.map(|it| it.parse().unwrap());
            assert_eq!(reached(listener.parse().unwrap()), asked, "{listener}");
        }
    }
}
