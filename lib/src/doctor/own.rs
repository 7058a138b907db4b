//! The doctor for this library's own connections. It joins the kernel's account with what the
//! library waits for.

use std::fmt;
use std::net::SocketAddr;

use super::{Doctor, Finding};
use crate::defaults::DOCTOR_STILL;
use crate::handles::{Shared, register};
use crate::reports::StallStats;

/// The diagnosis of one connection of this library: what it waits for, and the kernel's view.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The connection's number, as in [`Stats::id`](crate::Stats::id).
    pub id: u64,
    /// The peer's address, if the library knows it.
    pub peer: Option<SocketAddr>,
    /// The causes that the connection waits for now; empty if it waits for nothing.
    pub stalls: Vec<StallStats>,
    /// The kernel's view. `None` while there is no connection, if the library does not know the
    /// addresses of the stream, or if the kernel gives no account (see [`Doctor::look`]).
    pub finding: Option<Finding>,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.id)?;
        if let Some(peer) = self.peer {
            write!(f, " to {peer}")?;
        }
        f.write_str(":")?;
        for stall in &self.stalls {
            let seconds = stall.now.unwrap_or_default().as_secs_f64();
            write!(f, " {} (for {seconds:.1} s).", stall.cause)?;
        }
        match &self.finding {
            Some(finding) => write!(f, " {}", finding.sentence),
            None if self.stalls.is_empty() => f.write_str(" it waits for nothing."),
            None => Ok(()),
        }
    }
}

/// Diagnoses every open connection of this library in this process: whether it is stuck, and why.
/// It joins what the library waits for with two looks at the kernel's account of the socket, a
/// second apart.
///
/// Use it in a health endpoint or a signal handler of the program. It needs no rights. On other
/// systems than Linux it reports only what the library waits for.
///
/// Cancel safety: if dropped, nothing is lost.
///
/// # Panics
/// Outside a Tokio runtime with time enabled.
pub async fn doctor() -> Vec<Diagnosis> {
    let look = |mut doctor: Doctor| async move {
        // Without the kernel's account, only the library's own causes are reported.
        let looked = tokio::task::spawn_blocking(move || doctor.look().map(|()| doctor)).await;
        looked.ok().and_then(Result::ok)
    };
    let mut findings = Vec::new();
    if let Some(doctor) = look(Doctor::new()).await {
        tokio::time::sleep(DOCTOR_STILL).await;
        if let Some(doctor) = look(doctor).await {
            let judged = tokio::task::spawn_blocking(move || doctor.findings()).await;
            findings = judged.unwrap_or_default();
        }
    }
    let own = register::living();
    own.iter()
        .map(|shared| diagnose(shared, &findings))
        .collect()
}

/// Joins what a connection waits for with the finding about its socket.
fn diagnose(connection: &Shared, findings: &[Finding]) -> Diagnosis {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let identity = connection.identity();
    let ends = identity
        .local
        .map(canonical)
        .zip(identity.peer.map(canonical));
    let finding = ends.and_then(|ends| {
        findings
            .iter()
            .find(|finding| (finding.account.local, finding.account.peer) == ends)
    });
    let mut stalls = connection.stats().stalls;
    stalls.retain(|stall| stall.now.is_some());
    Diagnosis {
        id: connection.id,
        peer: identity.peer,
        stalls,
        finding: finding.cloned(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::doctor::Verdict;
    use crate::handles::Identity;
    use crate::{Options, StallCause};

    #[tokio::test]
    async fn the_library_s_causes_and_the_kernel_s_verdict_are_joined() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, peer) = listener.accept().unwrap();
        far.write_all(b"never read").unwrap();

        let identity = Identity {
            local: near.local_addr().ok(),
            peer: Some(peer),
            ..Identity::default()
        };
        let shared = Shared::new(Options::default(), identity);
        register::add(&shared);
        let now = tokio::time::Instant::now();
        shared
            .meter
            .wait(StallCause::ApplicationNotReading, true, now);

        let all = doctor().await;
        let own = all
            .iter()
            .find(|diagnosis| diagnosis.id == shared.id)
            .expect("registered");
        let causes: Vec<_> = own.stalls.iter().map(|stall| stall.cause).collect();
        assert_eq!(causes, [StallCause::ApplicationNotReading]);
        let finding = own.finding.as_ref().expect("the kernel knows the socket");
        assert_eq!(finding.verdict, Verdict::NotReading);
        assert_eq!(finding.account.unread(), 10);
        let text = own.to_string();
        assert!(
            text.contains("this application is not reading (for 1."),
            "{text}"
        );
        assert!(text.contains("leaves 10 bytes unread"), "{text}");

        let id = shared.id;
        drop(shared);
        assert!(doctor().await.iter().all(|diagnosis| diagnosis.id != id));
    }
}
