//! What a seed decides before the world begins: limits, sizes, and how bad the times are.

use std::time::Duration;

use unstall_proto::limits::{MAX_PACKET_COST, MIN_MAX_MESSAGE, MIN_WINDOW, message_cost};
use unstall_proto::{Acknowledge, AnswerClose, Config};

use crate::random::Random;

/// One side's configuration, and what must hold because of it.
#[derive(Clone)]
pub struct Limits {
    pub config: Config,
    /// The most that accepted and unacknowledged messages may cost.
    pub replay: u64,
    /// The most that received and untaken records may cost.
    pub untaken: u64,
    pub max_message: u64,
    pub by_hand: bool,
    /// A close of the peer is answered some time later, and messages are accepted until then.
    pub answers_by_hand: bool,
    life: Duration,
}

/// What the applications send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A few short messages: most worlds, as they are quick.
    Talk,
    /// Thousands of tiny ones: the overhead of records is what fills windows.
    Flood,
    /// Messages of several packets, empty ones in between.
    Bulk,
}

/// The plan of one world.
pub struct Plan {
    pub client: Limits,
    pub server: Limits,
    pub traffic: Traffic,
    /// How many acts there are before the link heals.
    pub acts: u64,
    /// The most that a packet takes to arrive.
    pub delay: Duration,
    /// How many packets a connection takes before it is full.
    pub socket: usize,
    /// How many percent of the acts are faults of the link.
    pub cuts: u64,
    /// The server restarts, evicts and is full; sessions are aborted.
    pub cruel: bool,
    /// Sometimes a packet is missing in the middle of a connection.
    pub lossy: bool,
    /// One side may close before all is delivered.
    pub closes: bool,
    /// The server forgets a session when it is over.
    pub forgets: bool,
    /// How late timers are looked at.
    pub timer_slack: Duration,
}

impl Plan {
    pub fn new(random: &mut Random) -> Plan {
        let traffic = match random.below(100) {
            0..70 => Traffic::Talk,
            70..85 => Traffic::Flood,
            _ => Traffic::Bulk,
        };
        let cruel = random.chance(30);
        let life = match cruel {
            true => Duration::from_millis(500 + random.below(3_000)),
            false => Duration::from_secs(3_600),
        };
        Plan {
            client: limits(random, traffic, life),
            server: limits(random, traffic, life),
            traffic,
            acts: 5 + random.below(25),
            delay: Duration::from_millis(1 + random.below(60)),
            socket: match random.chance(50) {
                true => usize::MAX,
                false => 1 + random.below(6) as usize,
            },
            cuts: [0, 10, 25, 50][random.below(4) as usize],
            cruel,
            lossy: random.chance(15),
            closes: random.chance(40),
            forgets: random.chance(50),
            timer_slack: Duration::from_millis(random.below(2) * random.below(30)),
        }
    }
}

impl Plan {
    /// How long the server keeps a session without a connection.
    pub fn server_life(&self) -> Duration {
        self.server.life
    }
}

fn limits(random: &mut Random, traffic: Traffic, life: Duration) -> Limits {
    let window = MIN_WINDOW + random.below(3) * 50_000;
    let max_window = window * (1 + random.below(3));
    let max_message = match traffic {
        Traffic::Bulk => [MIN_MAX_MESSAGE, 150_000, 700_000][random.below(3) as usize],
        _ => MIN_MAX_MESSAGE,
    };
    let replay = message_cost(max_message) + MAX_PACKET_COST + random.below(2) * 400_000;
    let by_hand = random.chance(30);
    let mut config = Config::new()
        .window(window)
        .max_window(max_window)
        .max_message(max_message)
        .handshake_timeout(Duration::from_millis(200 + random.below(2_000)))
        .session_life(life)
        .ack_delay(Duration::from_millis(random.below(40)));
    if by_hand {
        config = config.acknowledge(Acknowledge::ByHand);
    }
    let answers_by_hand = random.chance(30);
    if answers_by_hand {
        config = config.answer_close(AnswerClose::ByHand);
    }
    if random.chance(30) {
        config = config.ack_records(1 + random.below(50)).ack_bytes(10_000);
    }
    // The default replay is larger than these; the setter is what bounds it.
    Limits {
        config: config.replay(replay),
        replay,
        untaken: max_window + message_cost(max_message),
        max_message,
        by_hand,
        answers_by_hand,
        life,
    }
}
