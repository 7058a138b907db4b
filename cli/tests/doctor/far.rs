//! Peers on another machine: the doctor sees only this end.

use std::time::{Duration, Instant};

use serde_json::Value;
use unstall::doctor::{Doctor, Finding, TcpTimer};

use super::conversation::{PATIENCE, STUCK};
use super::network::Network;

#[test]
fn a_far_peer_is_judged_by_this_side_alone() {
    let Some(network) = Network::enter("far::a_far_peer_is_judged_by_this_side_alone") else {
        return;
    };
    let full = network.conversation("stop_reading", "flood");
    let deadlock = network.conversation("flood", "flood");
    let slow = network.conversation("read_slowly", "flood");
    let healthy = network.conversation("chat", "chat");

    let never = ["not_reading", "network", "peer_gone", "both_not_reading"];
    let report = full.until(&never, |report| {
        report.verdict(&report.client) == "peer_not_reading"
    });
    assert_eq!(report.server, Value::Null, "the far end cannot be seen");
    assert!(report.client["since_ms"].as_u64().unwrap() >= 5000);
    assert_eq!(report.client["evidence"]["peer_window_bytes"], 0);
    assert_eq!(report.client["evidence"]["timer"], "persist");

    deadlock.until(&["network", "peer_gone"], |report| {
        report.verdict(&report.client) == "both_not_reading"
    });
    for _ in 0..2 {
        let report = slow.until(&STUCK, |report| {
            report.verdict(&report.client) == "slow_reader"
        });
        assert_eq!(report.code, Some(0));
        let report = healthy.until(&STUCK, |report| report.verdict(&report.client) == "moving");
        assert_eq!(report.code, Some(0));
    }
}

#[test]
fn a_slow_link_that_loses_packets_is_not_accused() {
    let Some(network) = Network::enter("far::a_slow_link_that_loses_packets_is_not_accused") else {
        return;
    };
    if !network.slow_down() {
        println!("skipped: no token bucket filter (tc, sch_tbf) to slow the link down with");
        return;
    }
    let talk = network.conversation("read_all", "flood");
    for _ in 0..3 {
        let report = talk.until(&STUCK, |report| report.verdict(&report.client) == "moving");
        assert_eq!(report.code, Some(0));
    }
    let report = talk.until(&STUCK, |report| {
        let again = &report.client["evidence"]["retransmitted_packets_total"];
        again.as_u64().is_some_and(|again| again > 0)
    });
    assert!(
        report.client["evidence"]["send_queue_bytes"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[test]
fn a_peer_that_dies_without_closing_is_the_network_s_fault_while_data_waits() {
    let name = "far::a_peer_that_dies_without_closing_is_the_network_s_fault_while_data_waits";
    let Some(network) = Network::enter(name) else {
        return;
    };
    let mut talk = network.conversation("chat", "chat");
    talk.until(&STUCK, |report| report.verdict(&report.client) == "moving");
    network.cut();
    talk.server.child.kill().unwrap();
    let accused = [
        "not_reading",
        "peer_not_reading",
        "peer_gone",
        "both_not_reading",
    ];
    let report = talk.until(&accused, |report| {
        report.verdict(&report.client) == "network"
    });
    assert_eq!(report.code, Some(1));
    assert_eq!(report.client["evidence"]["timer"], "retransmit");
    assert!(
        report.client["evidence"]["consecutive_retransmissions"]
            .as_u64()
            .unwrap()
            >= 2
    );
}

#[test]
fn a_peer_that_dies_without_closing_is_gone_once_probes_stay_unanswered() {
    let name = "far::a_peer_that_dies_without_closing_is_gone_once_probes_stay_unanswered";
    let Some(network) = Network::enter(name) else {
        return;
    };
    // One connection is quiet, with keepalive. The other waits for a window that never opens.
    let mut quiet = network.conversation("hold", "keepalive");
    quiet.until(&STUCK, |report| report.verdict(&report.client) == "idle");
    let mut full = network.conversation("stop_reading", "flood");
    full.until(&["network", "peer_gone"], |report| {
        report.client["evidence"]["timer"] == "persist"
    });
    network.cut();
    quiet.server.child.kill().unwrap();
    full.server.child.kill().unwrap();
    for (talk, timer) in [(&quiet, "keepalive"), (&full, "persist")] {
        let report = talk.until(&["network", "not_reading"], |report| {
            report.verdict(&report.client) == "peer_gone"
        });
        assert_eq!(report.client["evidence"]["timer"], timer);
        assert!(
            report.client["evidence"]["unanswered_probes"]
                .as_u64()
                .unwrap()
                >= 2
        );
    }
}

/// The library must not treat a live peer that does not read as dead. TCP_USER_TIMEOUT does so; the
/// kernel's account tells them apart.
#[test]
fn a_live_peer_that_never_reads_is_not_a_dead_one() {
    let name = "far::a_live_peer_that_never_reads_is_not_a_dead_one";
    let Some(network) = Network::enter(name) else {
        return;
    };
    let mut talk = network.conversation("stop_reading", "flood");
    let look = || -> Option<Finding> {
        let mut doctor = Doctor::new();
        doctor.look().unwrap();
        // The time between two looks, over which the doctor compares.
        std::thread::sleep(Duration::from_millis(100));
        doctor.look().unwrap();
        doctor
            .findings()
            .into_iter()
            .find(|finding| finding.account.peer.port() == talk.port)
    };
    let mut probed = 0;
    let began = Instant::now();
    // Four doublings of the persist timer are more than three seconds.
    while probed < 4 {
        let account = look().expect("the connection is there").account;
        assert_eq!(account.peer_is_dead_since(), None, "alive: {account:?}");
        if matches!(account.timer, TcpTimer::Persist { .. }) {
            probed = account.backoff;
        }
        assert!(began.elapsed() < PATIENCE, "{account:?}");
    }

    network.cut();
    talk.server.child.kill().unwrap();
    let cut = Instant::now();
    loop {
        let account = look().expect("the connection is there").account;
        if let Some(since) = account.peer_is_dead_since() {
            assert!(account.probes >= 2, "{account:?}");
            // Never longer than the time since the last sign of life.
            assert!(since <= account.last_heard(), "{account:?}");
            break;
        }
        assert!(cut.elapsed() < PATIENCE, "{account:?}");
    }
}
