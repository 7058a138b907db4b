//! Verdicts on figures that Linux 6.18 showed in each situation.

use super::*;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn here() -> TcpAccount {
    TcpAccount::quiet(
        "127.0.0.1:9000".parse().unwrap(),
        "127.0.0.1:40000".parse().unwrap(),
    )
}

fn there() -> TcpAccount {
    TcpAccount::quiet(
        "127.0.0.1:40000".parse().unwrap(),
        "127.0.0.1:9000".parse().unwrap(),
    )
}

/// Judges by two looks, `after` milliseconds apart.
fn judge_two(
    after: u64,
    first: (TcpAccount, Option<TcpAccount>),
    last: (TcpAccount, Option<TcpAccount>),
) -> (Verdict, u64) {
    let sample = |at, (account, other_end)| Sample {
        at: millis(at),
        account,
        other_end,
    };
    let judgement = judge(&[sample(5000, first), sample(5000 + after, last)]).expect("two looks");
    (
        judgement.verdict,
        u64::try_from(judgement.since.as_millis()).unwrap(),
    )
}

/// Like [`judge_two`], but the far end cannot be seen, and nothing changes.
fn judge_still(after: u64, account: TcpAccount) -> (Verdict, u64) {
    judge_two(after, (account.clone(), None), (account, None))
}

/// Its program leaves so many bytes unread that the window is closed.
fn full(account: TcpAccount) -> TcpAccount {
    TcpAccount {
        receive_queue: 125_432,
        bytes_received: 166_404,
        own_window: Some(0),
        last_data_received: millis(4832),
        ..account
    }
}

/// Its program writes and the peer's window is closed.
fn waiting(account: TcpAccount) -> TcpAccount {
    TcpAccount {
        timer: TcpTimer::Persist {
            expires: millis(1568),
        },
        backoff: 4,
        send_queue: 3_774_976,
        not_sent: 3_774_976,
        peer_window: Some(0),
        last_ack_received: millis(1696),
        last_data_sent: millis(10_036),
        busy: millis(10_044),
        limited_by_peer_window: millis(10_044),
        ..account
    }
}

#[test]
fn one_look_is_no_verdict() {
    let sample = Sample {
        at: Duration::ZERO,
        account: full(here()),
        other_end: None,
    };
    assert_eq!(judge(&[sample]), None);
    assert_eq!(judge(&[]), None);
}

#[test]
fn a_full_receive_queue_that_nobody_takes_from_is_not_reading() {
    assert_eq!(judge_still(2000, full(here())), (Verdict::NotReading, 4832));
}

#[test]
fn a_little_unread_counts_from_the_first_look_only() {
    // An open window says nothing about reads before the first look.
    let account = TcpAccount {
        receive_queue: 10,
        own_window: Some(65_000),
        ..here()
    };
    assert_eq!(
        judge_still(2000, account.clone()),
        (Verdict::NotReading, 2000)
    );
    assert_eq!(judge_still(999, account).0, Verdict::Moving);
}

#[test]
fn a_queue_that_grows_while_nothing_is_taken_is_not_reading() {
    let first = TcpAccount {
        receive_queue: 1000,
        bytes_received: 2000,
        ..here()
    };
    let last = TcpAccount {
        receive_queue: 9000,
        bytes_received: 10_000,
        ..here()
    };
    let verdict = judge_two(2000, (first, None), (last, None));
    assert_eq!(verdict, (Verdict::NotReading, 2000));
}

#[test]
fn a_full_queue_whose_bytes_are_others_each_time_is_read() {
    let first = TcpAccount {
        receive_queue: 9000,
        bytes_received: 10_000,
        ..here()
    };
    let last = TcpAccount {
        receive_queue: 9000,
        bytes_received: 90_000,
        ..here()
    };
    assert_eq!(
        judge_two(2000, (first, None), (last, None)).0,
        Verdict::Moving
    );
}

#[test]
fn an_empty_queue_in_one_look_acquits() {
    let sample = |at, receive_queue, bytes_received| Sample {
        at: millis(at),
        account: TcpAccount {
            receive_queue,
            bytes_received,
            ..here()
        },
        other_end: None,
    };
    let looks = [
        sample(0, 10, 1000),
        sample(1000, 0, 1000),
        sample(2000, 10, 1010),
    ];
    assert_eq!(judge(&looks).unwrap().verdict, Verdict::Moving);
}

#[test]
fn the_end_of_the_connection_alone_is_not_unread_data() {
    let account = TcpAccount {
        state: crate::kernel::TcpState::CloseWait,
        ..here()
    };
    let closed = TcpAccount {
        receive_queue: 1,
        ..account.clone()
    };
    assert_eq!(judge_still(2000, closed).0, Verdict::Idle);
    let more = TcpAccount {
        receive_queue: 2,
        ..account
    };
    assert_eq!(judge_still(2000, more).0, Verdict::NotReading);
}

#[test]
fn a_far_peer_with_a_closed_window_is_not_reading_once_it_lasted() {
    assert_eq!(
        judge_still(2000, waiting(here())),
        (Verdict::PeerNotReading, 10_036)
    );
    let just_now = TcpAccount {
        last_data_sent: millis(1200),
        ..waiting(here())
    };
    assert_eq!(judge_still(2000, just_now).0, Verdict::SlowReader);
}

#[test]
fn a_peer_on_this_machine_is_judged_by_its_own_queue() {
    // Nothing waits to be sent: all bytes are unread at the peer.
    let unread = TcpAccount {
        receive_queue: 10,
        own_window: Some(65_000),
        ..there()
    };
    let look = (here(), Some(unread));
    assert_eq!(
        judge_two(2000, look.clone(), look),
        (Verdict::PeerNotReading, 2000)
    );

    // Its window is closed at this moment, but it reads.
    let before = TcpAccount {
        bytes_received: 1_000_000,
        ..full(there())
    };
    let after = TcpAccount {
        bytes_received: 1_300_000,
        ..full(there())
    };
    let verdict = judge_two(
        2000,
        (waiting(here()), Some(before)),
        (waiting(here()), Some(after)),
    );
    assert_eq!(verdict.0, Verdict::SlowReader);
}

#[test]
fn a_peer_seen_in_some_looks_only_has_no_history() {
    let verdict = judge_two(
        2000,
        (waiting(here()), None),
        (waiting(here()), Some(there())),
    );
    assert_eq!(verdict.0, Verdict::PeerNotReading);
}

#[test]
fn two_closed_windows_are_a_deadlock() {
    // Seen from one end only.
    assert_eq!(
        judge_still(2000, waiting(full(here()))),
        (Verdict::BothNotReading, 4832)
    );
    // Seen from both ends.
    let look = (waiting(full(here())), Some(waiting(full(there()))));
    assert_eq!(
        judge_two(2000, look.clone(), look),
        (Verdict::BothNotReading, 4832)
    );
}

#[test]
fn a_black_hole_is_the_network() {
    let account = TcpAccount {
        timer: TcpTimer::Retransmit {
            expires: millis(96),
        },
        retransmits: 3,
        backoff: 3,
        send_queue: 85_192,
        unacked: 14,
        lost: 14,
        rto: millis(1632),
        last_ack_received: millis(3056),
        last_data_received: millis(3056),
        ..here()
    };
    assert_eq!(judge_still(2000, account), (Verdict::Network, 2964));
}

#[test]
fn packets_that_nobody_acknowledges_are_the_network_before_the_timer_says_so() {
    let account = TcpAccount {
        timer: TcpTimer::Retransmit {
            expires: millis(20),
        },
        send_queue: 100,
        unacked: 1,
        ..here()
    };
    assert_eq!(judge_still(2000, account.clone()), (Verdict::Network, 2000));
    // A slow link with a long round trip gets more time.
    let slow = TcpAccount {
        rto: Duration::from_secs(4),
        ..account
    };
    assert_eq!(judge_still(2000, slow).0, Verdict::Moving);
}

#[test]
fn unanswered_probes_are_a_peer_that_is_gone() {
    let probing = TcpAccount {
        probes: 3,
        backoff: 3,
        last_ack_received: millis(3080),
        ..waiting(here())
    };
    assert_eq!(judge_still(2000, probing), (Verdict::PeerGone, 3080));
    let kept_alive = TcpAccount {
        timer: TcpTimer::KeepAlive {
            expires: millis(776),
        },
        probes: 3,
        last_ack_received: millis(3296),
        ..here()
    };
    assert_eq!(judge_still(2000, kept_alive), (Verdict::PeerGone, 3296));
}

#[test]
fn bytes_that_move_at_the_pace_of_the_peer_s_window_are_a_slow_reader() {
    let (before, mut after) = (waiting(here()), waiting(here()));
    after.bytes_acked += 600_000;
    after.limited_by_peer_window += millis(1900);
    after.last_data_sent = millis(52);
    let verdict = judge_two(2000, (before.clone(), None), (after.clone(), None));
    assert_eq!(verdict, (Verdict::SlowReader, 2000));
    // The same, seen from the reader's end together with the sender's.
    let verdict = judge_two(
        2000,
        (there(), Some(before.clone())),
        (there(), Some(after.clone())),
    );
    assert_eq!(verdict.0, Verdict::SlowReader);
    // Limited for a moment only, as any connection is at times.
    after.limited_by_peer_window = before.limited_by_peer_window + millis(300);
    assert_eq!(
        judge_two(2000, (before, None), (after, None)).0,
        Verdict::Moving
    );
}

#[test]
fn a_lossy_link_that_acknowledges_is_moving() {
    let before = TcpAccount {
        timer: TcpTimer::Retransmit {
            expires: millis(200),
        },
        retransmits: 2,
        send_queue: 30_000,
        unacked: 10,
        last_ack_received: millis(30),
        ..here()
    };
    let mut after = before.clone();
    after.bytes_acked += 50_000;
    assert_eq!(
        judge_two(2000, (before, None), (after, None)).0,
        Verdict::Moving
    );
}

#[test]
fn nothing_anywhere_is_idle_since_the_last_data() {
    let account = TcpAccount {
        last_data_sent: millis(7000),
        ..here()
    };
    assert_eq!(judge_still(2000, account), (Verdict::Idle, 7000));
}

#[test]
fn bytes_either_way_are_moving() {
    let received = TcpAccount {
        bytes_received: 1001,
        ..here()
    };
    let acked = TcpAccount {
        bytes_acked: 1001,
        ..here()
    };
    for last in [received, acked] {
        assert_eq!(
            judge_two(2000, (here(), None), (last, None)).0,
            Verdict::Moving
        );
    }
}

#[test]
fn codes_are_unique_and_say_what_is_stuck() {
    let all = [
        (Verdict::NotReading, "not_reading", true),
        (Verdict::PeerNotReading, "peer_not_reading", true),
        (Verdict::BothNotReading, "both_not_reading", true),
        (Verdict::Network, "network", true),
        (Verdict::PeerGone, "peer_gone", true),
        (Verdict::SlowReader, "slow_reader", false),
        (Verdict::Idle, "idle", false),
        (Verdict::Moving, "moving", false),
    ];
    for (verdict, code, stuck) in all {
        assert_eq!((verdict.code(), verdict.is_stuck()), (code, stuck));
    }
}
