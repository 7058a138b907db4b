//! Findings as text, for people.

use std::fmt::Write;
use std::time::Duration;

use unstall::doctor::{Finding, TcpTimer, Verdict};
use unstall::printable;

use super::library::Said;
use crate::status::Connection;
use crate::table;

/// The report: first the stuck connections, in detail, then the rest.
pub(super) fn text(findings: &[Finding], said: &Said) -> String {
    if findings.is_empty() {
        return "No TCP connection to examine.\n".to_owned();
    }
    let mut text = String::new();
    let (stuck, fine): (Vec<_>, Vec<_>) = findings
        .iter()
        .partition(|finding| finding.verdict.is_stuck());
    for finding in stuck.iter().chain(&fine) {
        let label = label(finding.verdict);
        let label = if finding.verdict.is_stuck() {
            label.to_uppercase()
        } else {
            label
        };
        let _ = writeln!(text, "{label}  {}", connection(finding));
        let _ = writeln!(text, "  {}", finding.sentence);
        if let Some(said) = said.get(&finding.account.cookie) {
            let _ = writeln!(text, "  unstall says: {}", library(said));
        }
        if !matches!(finding.verdict, Verdict::Moving | Verdict::Idle) {
            let _ = writeln!(text, "  evidence: {}", evidence(finding));
        }
        if finding.verdict != Verdict::Moving {
            let _ = writeln!(text, "  advice: {}", finding.advice);
        }
        text.push('\n');
    }
    let _ = match (stuck.len(), findings.len()) {
        (0, 1) => writeln!(text, "The connection is not stuck."),
        (0, all) => writeln!(text, "None of {all} connections is stuck."),
        (stuck, all) => writeln!(text, "{stuck} of {all} connections stuck."),
    };
    text
}

/// A note about connections whose programs could not be seen.
pub(super) fn rights(findings: &[Finding]) -> Option<String> {
    let unseen = findings
        .iter()
        .filter(|finding| finding.owner.is_none() && finding.account.inode != 0)
        .count();
    (unseen > 0).then(|| {
        format!(
            "The program of {unseen} of the connections cannot be seen: it belongs to another user or container. Run as root to see it."
        )
    })
}

/// The process that owns the connection.
pub(super) fn owner(finding: &Finding) -> String {
    match &finding.owner {
        Some(process) => format!("{} (pid {})", process.program, process.pid),
        None if finding.account.is_unaccepted() => "not accepted yet".to_owned(),
        None if finding.account.inode == 0 => "closed by its program".to_owned(),
        None => format!("of user {}, not visible", finding.account.uid),
    }
}

/// The verdict as the table shows it.
pub(super) fn label(verdict: Verdict) -> String {
    verdict.code().replace('_', " ")
}

/// Bytes per second in the table's narrow column.
pub(super) fn rate(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes => format!("{}/s", table::bytes(bytes)),
    }
}

/// What a program says that its own connection waits for.
pub(super) fn waits(said: &Connection) -> String {
    let waits = said.stalls.iter().map(|it| {
        let waited = table::time(Duration::from_millis(it.for_ms));
        format!("waits for {waited}: {}", printable(&it.words))
    });
    let waits: Vec<String> = waits.collect();
    match waits.is_empty() {
        true => "waits for nothing".to_owned(),
        false => waits.join("; "),
    }
}

/// What a program says of its own connection.
fn library(said: &Connection) -> String {
    format!(
        "connection {} {}; {} wait to be sent, {} to be read by the application",
        said.id,
        waits(said),
        table::bytes(said.outbox.bytes),
        table::bytes(said.inbox.bytes)
    )
}

fn connection(finding: &Finding) -> String {
    format!(
        "{}  {} -> {}",
        owner(finding),
        finding.account.local,
        finding.account.peer
    )
}

fn evidence(finding: &Finding) -> String {
    let account = &finding.account;
    let mut facts = vec![
        format!("unread {} B", account.unread()),
        format!(
            "to send {} B (not sent {})",
            account.send_queue, account.not_sent
        ),
        format!("heard {} ms ago", account.last_heard().as_millis()),
        format!("rtt {:.1} ms", account.rtt.as_secs_f64() * 1000.0),
    ];
    if let Some(window) = account.peer_window {
        facts.insert(2, format!("peer's window {window} B"));
    }
    let next = |expires: Duration| format!("next in {} ms", expires.as_millis());
    match account.timer {
        TcpTimer::Retransmit { expires } => facts.push(format!(
            "retransmitted {} times, backoff {}, {}",
            account.retransmits,
            account.backoff,
            next(expires)
        )),
        TcpTimer::Persist { expires } => facts.push(format!(
            "window probes (unanswered {}), backoff {}, {}",
            account.probes,
            account.backoff,
            next(expires)
        )),
        TcpTimer::KeepAlive { expires } => {
            facts.push(format!(
                "keepalive (unanswered {}), {}",
                account.probes,
                next(expires)
            ));
        }
        _ => {}
    }
    if account.busy > Duration::ZERO {
        let share = account.limited_by_peer_window.as_secs_f64() / account.busy.as_secs_f64();
        facts.push(format!(
            "limited by peer's window {:.0} % of busy time",
            share * 100.0
        ));
    }
    facts.join(", ")
}
