//! The doctor for this library's own connections: the kernel's account joined
//! with what the library knows of itself.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Doctor, Finding};
use crate::handles::{Shared, register};
use crate::reports::StallStats;

/// Time between the two looks: the least that accusations need.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// What holds up one connection of this library, seen from the inside and by
/// the kernel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The connection's number, as in [`Stats::id`](crate::Stats::id).
    pub id: u64,
    /// The far end's address, where the library knows it.
    pub peer: Option<SocketAddr>,
    /// What the library waits for at this moment; empty when nothing is held
    /// up.
    pub stalls: Vec<StallStats>,
    /// The kernel's view. `None` while there is no connection, for a connection
    /// around a stream whose addresses the library does not know, and where
    /// the kernel gives no account (see [`Doctor::look`]).
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
            None if self.stalls.is_empty() => f.write_str(" nothing is held up."),
            None => Ok(()),
        }
    }
}

/// Says of every open connection of this library in this process whether it is
/// stuck, and why: what the library itself waits for, and the kernel's account
/// of the socket, looked at twice within a second.
///
/// Meant for a health endpoint or a signal handler of the program. Needs no
/// rights. On other systems than Linux the library's own causes remain.
///
/// # Cancellation safety
/// Nothing is lost when the future is dropped.
///
/// # Panics
/// Outside a Tokio runtime with time enabled.
pub async fn doctor() -> Vec<Diagnosis> {
    let look = |mut doctor: Doctor| async move {
        // Without an account of the kernel the library's causes remain.
        let looked = tokio::task::spawn_blocking(move || doctor.look().map(|()| doctor)).await;
        looked.ok().and_then(Result::ok)
    };
    let mut findings = Vec::new();
    if let Some(doctor) = look(Doctor::new()).await {
        tokio::time::sleep(BETWEEN_LOOKS).await;
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

/// Joins what a connection says of itself with the finding about its socket.
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
