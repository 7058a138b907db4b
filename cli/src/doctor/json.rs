//! Findings as JSON, for scripts.

use std::time::Duration;

use serde::Serialize;
use unstall::doctor::{Finding, Process, TcpAccount, TcpState, TcpTimer};

use super::library::Said;
use crate::status;

#[derive(Serialize)]
struct Report<'a> {
    connections: Vec<Connection<'a>>,
}

#[derive(Serialize)]
struct Connection<'a> {
    pid: Option<u32>,
    program: Option<&'a str>,
    local: String,
    peer: String,
    verdict: &'static str,
    sentence: &'a str,
    since_ms: u64,
    evidence: Evidence<'a>,
    /// What the program's library says, if it was asked and has told.
    library: Option<Library<'a>>,
}

/// The library's own account of the connection.
#[derive(Serialize)]
struct Library<'a> {
    id: u64,
    kind: &'a str,
    state: &'a str,
    stalls: Vec<Stall<'a>>,
    to_send_bytes: u64,
    unread_bytes: u64,
}

#[derive(Serialize)]
struct Stall<'a> {
    cause: &'a str,
    words: &'a str,
    for_ms: u64,
}

/// The figures behind the verdict: those of the last look, and rates between the first and the last
/// look.
#[derive(Serialize)]
struct Evidence<'a> {
    observed_ms: u64,
    state: String,
    #[serde(flatten)]
    receiving: Receiving,
    #[serde(flatten)]
    sending: Sending,
    #[serde(flatten)]
    retransmission: Retransmission,
    #[serde(flatten)]
    limits: Limits,
    #[serde(flatten)]
    ends: Ends<'a>,
}

/// The direction from the peer to the program.
#[derive(Serialize)]
struct Receiving {
    unread_bytes: u32,
    read_bytes_per_second: u64,
    received_bytes_per_second: u64,
    last_data_received_ms: u64,
    own_window_bytes: Option<u32>,
}

/// The direction from the program to the peer.
#[derive(Serialize)]
struct Sending {
    send_queue_bytes: u32,
    not_sent_bytes: u32,
    unacknowledged_packets: u32,
    lost_packets: u32,
    acknowledged_bytes_per_second: u64,
    last_data_sent_ms: u64,
    last_acknowledgement_ms: u64,
    peer_window_bytes: Option<u32>,
    congestion_window_packets: u32,
}

/// The kernel's timer of the socket.
#[derive(Serialize)]
struct Retransmission {
    timer: &'static str,
    timer_expires_ms: Option<u64>,
    timer_backoff: u8,
    consecutive_retransmissions: u8,
    unanswered_probes: u8,
    retransmitted_packets_total: u32,
    retransmitted_bytes: u64,
    round_trip_us: u64,
    retransmission_timeout_ms: u64,
}

/// How long the kernel had data to send, and which limits held it back.
#[derive(Serialize)]
struct Limits {
    busy_ms: u64,
    limited_by_peer_window_ms: u64,
    limited_by_send_buffer_ms: u64,
    limited_by_congestion_ms: u64,
}

/// The processes at both ends, as far as they can be seen.
#[derive(Serialize)]
struct Ends<'a> {
    process_state: Option<char>,
    peer_process: Option<PeerProcess<'a>>,
    peer_unread_bytes: Option<u32>,
}

#[derive(Serialize)]
struct PeerProcess<'a> {
    pid: u32,
    program: &'a str,
    state: char,
}

/// The findings as one JSON object in one line.
pub(super) fn object(findings: &[Finding], said: &Said) -> String {
    let one = |finding| connection(finding, said);
    let report = Report {
        connections: findings.iter().map(one).collect(),
    };
    let mut text = serde_json::to_string(&report).unwrap_or_default();
    text.push('\n');
    text
}

fn connection<'a>(finding: &'a Finding, said: &'a Said) -> Connection<'a> {
    let owner = finding.owner.as_ref();
    Connection {
        pid: owner.map(|process| process.pid),
        program: owner.map(|process| process.program.as_str()),
        local: finding.account.local.to_string(),
        peer: finding.account.peer.to_string(),
        verdict: finding.verdict.code(),
        sentence: &finding.sentence,
        since_ms: millis(finding.since),
        evidence: evidence(finding),
        library: said.get(&finding.account.cookie).map(library),
    }
}

fn library(said: &status::Connection) -> Library<'_> {
    let stalls = said.stalls.iter().map(|it| Stall {
        cause: &it.cause,
        words: &it.words,
        for_ms: it.for_ms,
    });
    Library {
        id: said.id,
        kind: &said.kind,
        state: &said.state,
        stalls: stalls.collect(),
        to_send_bytes: said.outbox.bytes,
        unread_bytes: said.inbox.bytes,
    }
}

fn evidence(finding: &Finding) -> Evidence<'_> {
    let account = &finding.account;
    Evidence {
        observed_ms: millis(finding.observed),
        state: state(account.state),
        receiving: Receiving {
            unread_bytes: account.unread(),
            read_bytes_per_second: finding.read_per_second,
            received_bytes_per_second: finding.received_per_second,
            last_data_received_ms: millis(account.last_data_received),
            own_window_bytes: account.own_window,
        },
        sending: Sending {
            send_queue_bytes: account.send_queue,
            not_sent_bytes: account.not_sent,
            unacknowledged_packets: account.unacked,
            lost_packets: account.lost,
            acknowledged_bytes_per_second: finding.acked_per_second,
            last_data_sent_ms: millis(account.last_data_sent),
            last_acknowledgement_ms: millis(account.last_ack_received),
            peer_window_bytes: account.peer_window,
            congestion_window_packets: account.congestion_window,
        },
        retransmission: retransmission(finding),
        limits: limits(account),
        ends: Ends {
            process_state: finding.owner.as_ref().map(|process| process.state),
            peer_process: finding.peer_owner.as_ref().map(peer_process),
            peer_unread_bytes: finding.peer_account.as_ref().map(|peer| peer.unread()),
        },
    }
}

fn retransmission(finding: &Finding) -> Retransmission {
    let account = &finding.account;
    let (timer, expires) = timer(account.timer);
    Retransmission {
        timer,
        timer_expires_ms: expires.map(millis),
        timer_backoff: account.backoff,
        consecutive_retransmissions: account.retransmits,
        unanswered_probes: account.probes,
        retransmitted_packets_total: account.total_retransmits,
        retransmitted_bytes: finding.retransmitted,
        round_trip_us: u64::try_from(account.rtt.as_micros()).unwrap_or(u64::MAX),
        retransmission_timeout_ms: millis(account.rto),
    }
}

fn limits(account: &TcpAccount) -> Limits {
    let by_window = account.limited_by_peer_window;
    let by_buffer = account.limited_by_send_buffer;
    let by_congestion = account.busy.saturating_sub(by_window);
    Limits {
        busy_ms: millis(account.busy),
        limited_by_peer_window_ms: millis(by_window),
        limited_by_send_buffer_ms: millis(by_buffer),
        limited_by_congestion_ms: millis(by_congestion.saturating_sub(by_buffer)),
    }
}

fn peer_process(process: &Process) -> PeerProcess<'_> {
    PeerProcess {
        pid: process.pid,
        program: &process.program,
        state: process.state,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn timer(timer: TcpTimer) -> (&'static str, Option<Duration>) {
    match timer {
        TcpTimer::Retransmit { expires } => ("retransmit", Some(expires)),
        TcpTimer::KeepAlive { expires } => ("keepalive", Some(expires)),
        TcpTimer::Persist { expires } => ("persist", Some(expires)),
        TcpTimer::TimeWait => ("time_wait", None),
        _ => ("off", None),
    }
}

fn state(state: TcpState) -> String {
    let name = match state {
        TcpState::Established => "established",
        TcpState::SynSent => "syn_sent",
        TcpState::SynReceived => "syn_received",
        TcpState::FinWait1 => "fin_wait_1",
        TcpState::FinWait2 => "fin_wait_2",
        TcpState::TimeWait => "time_wait",
        TcpState::Closed => "closed",
        TcpState::CloseWait => "close_wait",
        TcpState::LastAck => "last_ack",
        TcpState::Listen => "listen",
        TcpState::Closing => "closing",
        other => return format!("{other:?}").to_lowercase(),
    };
    name.to_owned()
}
