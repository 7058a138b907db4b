//! Whether a peer is dead or alive, by figures that Linux 6.18 showed in each situation.

use super::*;

fn account() -> TcpAccount {
    TcpAccount::quiet(
        "10.77.0.1:40000".parse().unwrap(),
        "10.77.0.2:9000".parse().unwrap(),
    )
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The bytes in flight were sent into a link that had been cut.
fn cut_in_flight() -> TcpAccount {
    TcpAccount {
        timer: TcpTimer::Retransmit {
            expires: millis(96),
        },
        retransmits: 3,
        backoff: 3,
        send_queue: 85_192,
        unacked: 14,
        lost: 14,
        rto: millis(1632),
        last_data_sent: millis(1536),
        last_ack_received: millis(3056),
        last_data_received: millis(3056),
        ..account()
    }
}

/// The peer does not read; its kernel answers each probe.
fn closed_window() -> TcpAccount {
    TcpAccount {
        timer: TcpTimer::Persist {
            expires: millis(3352),
        },
        backoff: 5,
        send_queue: 847_080,
        not_sent: 847_080,
        peer_window: Some(0),
        rto: millis(208),
        last_data_sent: millis(10_036),
        last_ack_received: millis(3304),
        ..account()
    }
}

#[test]
fn a_quiet_connection_is_not_dead() {
    assert_eq!(account().peer_is_dead_since(), None);
}

#[test]
fn unanswered_retransmissions_are_death() {
    // 204 + 408 + 816 ms came before. The fourth interval is 1632 ms, and 1536 ms of it have
    // passed.
    assert_eq!(
        cut_in_flight().peer_is_dead_since(),
        Some(millis(204 + 408 + 816 + 1536))
    );
}

#[test]
fn death_does_not_begin_with_the_silence_before_the_question() {
    let idle_for_long = Duration::from_secs(3600);
    let account = TcpAccount {
        last_ack_received: idle_for_long,
        last_data_received: idle_for_long,
        ..cut_in_flight()
    };
    assert_eq!(account.peer_is_dead_since(), Some(millis(2964)));
}

#[test]
fn one_lost_packet_is_not_death() {
    let account = TcpAccount {
        timer: TcpTimer::Retransmit {
            expires: millis(300),
        },
        retransmits: 1,
        rto: millis(408),
        last_ack_received: millis(320),
        last_data_received: millis(320),
        ..cut_in_flight()
    };
    assert_eq!(account.peer_is_dead_since(), None);
}

#[test]
fn a_peer_that_acknowledges_without_progress_is_alive() {
    // Its receive queue has no room: it acknowledges retransmissions but drops their data.
    let account = TcpAccount {
        last_ack_received: millis(1536),
        ..cut_in_flight()
    };
    assert_eq!(account.peer_is_dead_since(), None);
}

#[test]
fn data_from_the_peer_is_life() {
    let account = TcpAccount {
        last_data_received: millis(10),
        ..cut_in_flight()
    };
    assert_eq!(account.peer_is_dead_since(), None);
}

#[test]
fn a_closed_window_whose_probes_are_answered_is_alive_however_long() {
    for backoff in 0..=15 {
        for probes in [0, 1] {
            let account = TcpAccount {
                backoff,
                probes,
                ..closed_window()
            };
            assert_eq!(account.peer_is_dead_since(), None);
        }
    }
}

#[test]
fn unanswered_window_probes_are_death() {
    let account = TcpAccount {
        timer: TcpTimer::Persist {
            expires: millis(384),
        },
        backoff: 3,
        probes: 3,
        rto: millis(228),
        last_data_sent: millis(3084),
        last_ack_received: millis(3080),
        last_data_received: millis(11_872),
        ..closed_window()
    };
    // 1440 of the interval's 1824 ms have passed. 912 and 456 ms lie between the three probes.
    assert_eq!(account.peer_is_dead_since(), Some(millis(1440 + 912 + 456)));
}

#[test]
fn unanswered_keepalives_are_death() {
    let account = TcpAccount {
        timer: TcpTimer::KeepAlive {
            expires: millis(776),
        },
        probes: 3,
        last_ack_received: millis(3296),
        last_data_received: millis(12_492),
        ..account()
    };
    assert_eq!(account.peer_is_dead_since(), Some(millis(2000)));
}

#[test]
fn no_figures_are_too_large_to_judge() {
    let account = TcpAccount {
        timer: TcpTimer::Persist {
            expires: Duration::ZERO,
        },
        backoff: u8::MAX,
        probes: u8::MAX,
        retransmits: u8::MAX,
        rto: Duration::MAX,
        last_ack_received: Duration::MAX,
        last_data_received: Duration::MAX,
        ..account()
    };
    for timer in [
        account.timer,
        TcpTimer::Retransmit {
            expires: Duration::ZERO,
        },
    ] {
        let _ = TcpAccount {
            timer,
            ..account.clone()
        }
        .peer_is_dead_since();
    }
}
