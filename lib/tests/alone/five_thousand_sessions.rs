//! Five thousand sessions on one server process are cut at the same moment. All of them resume in a short
//! time, and the server's memory stays within its limit.
//!
//! Each session takes three descriptors of this process (client, and both sides of the proxy) and one of
//! the server's. If fewer are allowed, there are fewer sessions, and the test says so.
//!
//! The normal run has a thousand sessions; with `UNSTALL_FULL=1` all of them.

use std::time::Instant;

use crate::common::{
    full, limit,
    net::echo_server,
    plain,
    process::{Process, is, play, say},
    proxy::Proxy,
};
use crate::{alone, descriptors};
use unstall::{Client, Connection, Server};

const SESSIONS: usize = 5_000;
/// What a session may cost the server while it is idle, and at the peak, when all resume at once. Measured
/// were 16 and 24 KiB with a thousand sessions, and less with more. A session that kept its read window of
/// 64 KiB, or a block of encoded messages, would exceed it.
const IDLE: u64 = 28 << 10;
const PEAK: u64 = 44 << 10;

#[test]
#[ignore = "the other process of the test below"]
fn server() {
    if is("server") {
        play(|_| async {
            let server = echo_server(Server::builder()).await;
            say(format!("listens {}", server.local_addr()));
            std::future::pending().await
        });
    }
}

/// How many sessions the descriptors of a process allow.
fn sessions() -> usize {
    let descriptors = descriptors().unwrap_or(256);
    // After the cut the old and the new connections overlap for a moment.
    let allowed = (descriptors - 200) * 2 / 7;
    let wanted = if full() { SESSIONS } else { SESSIONS / 5 };
    if allowed < wanted {
        println!("scaled down: {descriptors} descriptors allow {allowed} sessions, not {wanted}");
    }
    allowed.min(wanted)
}

/// Each session sends a number and gets it back, all at the same time.
async fn round(sessions: &mut Vec<Connection>, number: u64) {
    let tasks: Vec<_> = sessions
        .drain(..)
        .map(|mut session| {
            tokio::spawn(async move {
                session.send(number.to_string()).await.unwrap();
                let back = plain(session.recv().await);
                assert_eq!(back.as_text(), Some(number.to_string().as_str()));
                session
            })
        })
        .collect();
    for task in tasks {
        sessions.push(task.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_them_resume_after_a_cut_and_memory_stays_within_its_limit() {
    let _alone = alone().await;
    let count = sessions();
    let mut server = Process::spawn(module_path!(), "server", &[]);
    let proxy = Proxy::to(server.hear("listens").await.parse().unwrap()).await;
    let empty = server.memory();
    let mut sessions = Vec::new();
    for _ in 0..count {
        let client = Client::new(format!("ws://{}/", proxy.address)).require_session();
        sessions.push(client.connect().await.unwrap());
    }
    limit(round(&mut sessions, 1)).await;
    let idle = server.memory() - empty;

    let arrived = proxy.arrivals().len();
    assert_eq!(arrived, count);
    let cut = Instant::now();
    proxy.cut();
    // The number goes out on the next connection, and comes back on it.
    limit(round(&mut sessions, 2)).await;
    let recovered = cut.elapsed();
    let stats: Vec<_> = sessions.iter().map(Connection::stats).collect();
    let resumed = stats.iter().filter(|stats| stats.resumes > 0).count();
    let mut waits: Vec<_> = proxy.arrivals()[arrived..]
        .iter()
        .map(|at| at.into_std().saturating_duration_since(cut))
        .collect();
    waits.sort_unstable();
    let peak = server.peak_memory() - empty;
    println!(
        "{resumed} of {count} sessions resumed, all within {recovered:?}, by {} attempts: half of \
         them after {:?}, the last after {:?}; server memory {} KiB per session idle, {} KiB at its \
         peak",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1],
        (idle / count as u64) >> 10,
        (peak / count as u64) >> 10,
    );
    assert_eq!(resumed, count);
    assert!(idle <= IDLE * count as u64, "{idle}");
    assert!(peak <= PEAK * count as u64, "{peak}");
}
