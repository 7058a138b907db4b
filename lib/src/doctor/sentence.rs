//! The texts of verdicts: a sentence and advice.

use std::time::Duration;

use super::{Finding, Process, Verdict};
use crate::kernel::{TcpAccount, TcpState, TcpTimer};

/// The verdict in a sentence, with its figures.
pub(super) fn sentence(finding: &Finding) -> String {
    let account = &finding.account;
    let here = name(finding.owner.as_ref(), "the program on this side");
    let there = name(finding.peer_owner.as_ref(), "the peer");
    let since = time(finding.since);
    let unread = bytes(account.unread().into());
    let mut sentence = match finding.verdict {
        Verdict::NotReading => {
            let newest = time(account.last_data_received);
            format!(
                "{here} leaves {unread} unread and has read nothing for {since}; data last arrived {newest} ago."
            )
        }
        Verdict::PeerNotReading => peer_not_reading(finding, &there),
        Verdict::BothNotReading => both_not_reading(finding, &here, &there),
        Verdict::Network => network(finding),
        Verdict::PeerGone => {
            let probes = account.probes;
            format!(
                "The peer left {probes} probes unanswered; nothing arrived from it for {since}."
            )
        }
        Verdict::SlowReader => slow_reader(finding, &here, &there),
        Verdict::Idle => format!(
            "No bytes wait on either side: data last arrived {} ago and was last sent {} ago.",
            time(account.last_data_received),
            time(account.last_data_sent),
        ),
        Verdict::Moving => moving(finding),
    };
    if account.state == TcpState::CloseWait && finding.verdict == Verdict::Idle {
        sentence.push_str(" The peer has closed the connection; this program has not.");
    }
    let peer = finding.peer_account.as_ref();
    if account.is_unaccepted() || peer.is_some_and(TcpAccount::is_unaccepted) {
        sentence.push_str(" The listening program has not accepted the connection.");
    }
    for process in [finding.owner.as_ref(), finding.peer_owner.as_ref()]
        .into_iter()
        .flatten()
    {
        if process.is_stopped() {
            sentence.push_str(&format!(
                " {} is stopped by a signal.",
                name(Some(process), "")
            ));
        }
    }
    sentence
}

/// What to do about it, in one line.
pub(super) fn advice(finding: &Finding) -> String {
    let stopped = |process: &Option<Process>| process.as_ref().filter(|p| p.is_stopped()).cloned();
    let blamed = match finding.verdict {
        Verdict::NotReading => stopped(&finding.owner),
        Verdict::PeerNotReading => stopped(&finding.peer_owner),
        Verdict::BothNotReading => stopped(&finding.owner).or(stopped(&finding.peer_owner)),
        _ => None,
    };
    if let Some(process) = blamed {
        return format!("Continue the process: kill -CONT {}", process.pid);
    }
    match finding.verdict {
        Verdict::NotReading => {
            "Find out what the read loop of this program waits for: an awaited send, a full channel, a slow handler. Reading must wait for none of them."
        }
        Verdict::PeerNotReading => {
            "Fix the peer: find out what its read loop waits for. This side can only bound its queue and set a timeout for sending."
        }
        Verdict::BothNotReading => {
            "In at least one of the two programs, read and write independently of each other (two tasks, or one task that polls both)."
        }
        Verdict::Network => {
            "Check that the peer's machine is up, and what drops packets in between (firewall, NAT, VPN, route). Close and reconnect. Pings with a timeout detect this sooner."
        }
        Verdict::PeerGone => {
            "The peer's machine or the network is down: close and reconnect. Pings with a timeout detect this sooner."
        }
        Verdict::SlowReader => {
            "Make the reader faster, or send it less: conflate or drop messages, or send fewer, larger ones."
        }
        Verdict::Idle => {
            "If data is missing, it was never written to the socket. Check the sending program for a missing flush, a lost subscription, or a wait for something else."
        }
        Verdict::Moving => "Nothing to do.",
    }
    .to_owned()
}

fn peer_not_reading(finding: &Finding, there: &str) -> String {
    let account = &finding.account;
    let (since, waiting) = (time(finding.since), bytes(account.send_queue.into()));
    let unread = finding
        .peer_account
        .as_ref()
        .map_or(0, |peer| peer.unread());
    if unread > 0 {
        let more = match account.send_queue {
            0 => String::new(),
            _ => format!(", and {waiting} more wait here"),
        };
        return format!(
            "{there} has read nothing for {since} and leaves {} unread{more}.",
            bytes(unread.into())
        );
    }
    let answered = time(account.last_ack_received);
    format!(
        "{there} does not read: its receive window has been closed for {since}, and {waiting} wait here. Its kernel is alive: it last acknowledged something {answered} ago."
    )
}

fn both_not_reading(finding: &Finding, here: &str, there: &str) -> String {
    let account = &finding.account;
    let unread = bytes(account.unread().into());
    let waiting = bytes(account.send_queue.into());
    let ours = match &finding.peer_account {
        Some(peer) => format!("{there} leaves {} unread", bytes(peer.unread().into())),
        None => format!("the window of {there} is closed"),
    };
    let meaning = if account.send_queue > 0 {
        format!("{waiting} wait here to be sent: each side waits for the other to read")
    } else {
        "neither reads what the other sent".to_owned()
    };
    format!(
        "Deadlock for {}: {here} leaves {unread} unread, {ours}, and {meaning}.",
        time(finding.since)
    )
}

fn network(finding: &Finding) -> String {
    let account = &finding.account;
    let waiting = bytes(account.send_queue.into());
    let since = time(finding.since);
    if account.state == TcpState::SynSent {
        return format!(
            "The peer does not answer: {} attempts to connect over {since}.",
            u32::from(account.retransmits) + 1
        );
    }
    format!(
        "Nothing was acknowledged for {since}: {waiting} wait, and were sent again {} times; the peer was last heard {} ago.",
        account.retransmits,
        time(account.last_heard())
    )
}

fn slow_reader(finding: &Finding, here: &str, there: &str) -> String {
    let account = &finding.account;
    if account.send_queue == 0 {
        return format!(
            "{here} reads {}, slower than the peer sends; {} wait unread.",
            rate(finding.read_per_second),
            bytes(account.unread().into())
        );
    }
    let waiting = bytes(account.send_queue.into());
    if matches!(account.timer, TcpTimer::Persist { .. }) && finding.acked_per_second == 0 {
        return format!(
            "{there} reads slowly: its window closed {} ago and {waiting} wait here.",
            time(account.last_data_sent)
        );
    }
    format!(
        "{there} reads {}, slower than this side sends; {waiting} wait here.",
        rate(finding.acked_per_second)
    )
}

fn moving(finding: &Finding) -> String {
    let mut sentence = format!(
        "Moving: {} in, {} out.",
        rate(finding.received_per_second),
        rate(finding.acked_per_second)
    );
    if finding.retransmitted > 0 {
        let again = bytes(finding.retransmitted);
        sentence.push_str(&format!(
            " {again} were sent again: they were lost, or the receiver had no room."
        ));
    }
    sentence
}

fn name(process: Option<&Process>, otherwise: &str) -> String {
    match process {
        Some(process) => format!("{} (pid {})", process.program, process.pid),
        None => otherwise.to_owned(),
    }
}

fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// Formats a number of bytes, for example `2.4 MiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count == 1 {
        return "1 byte".to_owned();
    }
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a duration, for example `12.3 s` or `2 h 5 min`.
fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let sizes = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
        ];
        for (count, expected) in sizes {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        let times = [
            (999, "999 ms"),
            (59_900, "59.9 s"),
            (61_000, "1 min 1 s"),
            (7_500_000, "2 h 5 min"),
        ];
        for (millis, expected) in times {
            assert_eq!(time(Duration::from_millis(millis)), expected);
        }
    }
}
