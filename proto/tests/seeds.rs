//! Many small worlds, each from a seed: cuts, half-open wires, applications that stop and go.
//! Whatever happens, each message arrives once and in order, and when the wire heals all arrive.

mod world;

use std::time::Duration;

use unstall_proto::limits::MIN_WINDOW;
use unstall_proto::{Config, EndReason, HandleError, Kind, SendError, Side};
use world::{Random, World};

/// What one side has had accepted, in order.
type Sent = Vec<(Kind, Vec<u8>)>;

/// How many worlds each test runs; `UNSTALL_SEEDS` asks for more.
fn seeds() -> u64 {
    std::env::var("UNSTALL_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(200)
}

struct Run {
    world: World,
    seed: u64,
    random: Random,
    sent_by_client: Sent,
    sent_by_server: Sent,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random(seed ^ 0x5eed);
        let config = Config::new()
            .window(MIN_WINDOW + random.below(3) * 100_000)
            .max_message(2_000_000)
            .replay(2_500_000)
            .session_life(Duration::from_secs(3_600));
        let mut world = World::new(seed, config.clone(), config);
        world.delay = Duration::from_millis(random.below(60));
        Run {
            world,
            seed,
            random,
            sent_by_client: Vec::new(),
            sent_by_server: Vec::new(),
        }
    }

    fn send(&mut self, side: Side) {
        let length = match self.random.below(20) {
            0 => self.random.below(1_500_000),
            1..=3 => self.random.below(100_000),
            4..=6 => 0,
            _ => self.random.below(200),
        };
        let letter = b'a' + self.random.below(26) as u8;
        let payload = vec![letter; length as usize];
        let text = self.random.chance(50);
        let Some(end) = self.world.end(side) else {
            return;
        };
        let result = if text {
            end.session.send(std::str::from_utf8(&payload).unwrap())
        } else {
            end.session.send(&payload[..])
        };
        match result {
            Ok(_) => {
                let kind = if text { Kind::Text } else { Kind::Binary };
                match side {
                    Side::Client => self.sent_by_client.push((kind, payload)),
                    Side::Server => self.sent_by_server.push((kind, payload)),
                }
            }
            Err(error) => assert_eq!(error, SendError::Full, "seed {}", self.seed),
        }
    }

    fn act(&mut self) {
        let side = if self.random.chance(50) {
            Side::Client
        } else {
            Side::Server
        };
        match self.random.below(100) {
            0..60 => {
                for _ in 0..self.random.below(40) {
                    self.send(side);
                }
            }
            60..70 => {
                let takes = self.random.chance(60);
                if let Some(end) = self.world.end(side) {
                    end.takes = takes;
                }
            }
            70..80 => {
                let (client, server) = (self.random.chance(70), self.random.chance(50));
                self.world.cut(client, server);
            }
            // A reconnect that races with the old connection, which may still carry packets.
            80..85 => self.world.connect(),
            _ if !self.world.is_connected() => self.world.connect(),
            _ => {}
        }
        let millis = self.random.below(80);
        self.world.run_for(millis);
    }

    fn check_bounds(&mut self) {
        for side in [Side::Client, Side::Server] {
            let seed = self.seed;
            let Some(end) = self.world.end(side) else {
                continue;
            };
            let stats = end.session.stats();
            assert!(stats.unacknowledged <= 2_500_000, "seed {seed}");
            assert!(
                stats.untaken <= stats.window + 2_010_000,
                "seed {seed}: {stats:?}"
            );
        }
    }

    /// The wire heals and both applications run.
    fn heal(&mut self) {
        self.world.cut(true, true);
        self.world.client.takes = true;
        if let Some(server) = &mut self.world.server {
            server.takes = true;
        }
        self.world.connect();
        self.world.run_for(30_000);
    }

    fn check_all_delivered(&self) {
        let seed = self.seed;
        let server = self
            .world
            .server
            .as_ref()
            .expect("the server has the session");
        // A connection that a newer one has replaced learns it; nothing else may go wrong.
        let wrong = self
            .world
            .errors
            .iter()
            .find(|error| **error != HandleError::Superseded);
        assert_eq!(wrong, None, "seed {seed}");
        assert_eq!(
            server.received.len(),
            self.sent_by_client.len(),
            "seed {seed}: to the server"
        );
        assert!(
            server.received == self.sent_by_client,
            "seed {seed}: to the server"
        );
        assert_eq!(
            self.world.client.received.len(),
            self.sent_by_server.len(),
            "seed {seed}: to the client"
        );
        assert!(
            self.world.client.received == self.sent_by_server,
            "seed {seed}: to the client"
        );
    }
}

#[test]
fn each_message_arrives_once_and_in_order_over_any_wire() {
    for seed in 0..seeds() {
        let mut run = Run::new(seed);
        for _ in 0..30 {
            run.act();
            run.check_bounds();
        }
        run.heal();
        run.check_all_delivered();
    }
}

#[test]
fn a_close_over_any_wire_ends_cleanly_or_gives_back_the_exact_complement() {
    let (mut clean, mut forced) = (0, 0);
    for seed in 0..seeds() {
        let mut run = Run::new(seed);
        for _ in 0..10 {
            run.act();
        }
        let side = if run.random.chance(50) {
            Side::Client
        } else {
            Side::Server
        };
        let now = run.world.now;
        let within = Duration::from_millis(run.random.below(5_000));
        let frame = unstall_proto::CloseFrame::new(1000, "done");
        let Some(end) = run.world.end(side) else {
            continue;
        };
        end.session.close(now, frame, within);
        for _ in 0..10 {
            run.world.run_for(200);
            if !run.world.is_connected() {
                run.world.connect();
            }
        }
        run.heal();
        run.world.run_for(3_600_000);
        let Run {
            mut world,
            sent_by_client,
            sent_by_server,
            ..
        } = run;
        // The server may have given up a session that the client never knew to be open.
        if world.sessions > 1 {
            continue;
        }
        let Some(mut server) = world.server.take() else {
            continue;
        };
        match world.client.ended() {
            Some(EndReason::Closed(_)) => clean += 1,
            Some(_) => forced += 1,
            None => panic!("seed {seed}: the session did not end"),
        }
        check_complement(seed, &mut world.client, &server.received, &sent_by_client);
        check_complement(seed, &mut server, &world.client.received, &sent_by_server);
    }
    assert!(clean > 10 && forced > 10, "{clean} clean, {forced} forced");
}

/// What was received and what came back make up what was sent, overlapping only in messages that
/// are marked as maybe delivered.
fn check_complement(seed: u64, sender: &mut world::End, received: &Sent, sent: &Sent) {
    let clean = matches!(sender.ended(), Some(EndReason::Closed(_)));
    let back: Vec<_> = sender.session.undelivered().collect();
    assert!(!clean || back.is_empty(), "seed {seed}");
    assert!(
        sent.starts_with(received),
        "seed {seed}: received is not a beginning of sent"
    );
    let from = sent
        .len()
        .checked_sub(back.len())
        .expect("no more comes back than was sent");
    assert!(
        from <= received.len(),
        "seed {seed}: a message is lost in silence"
    );
    for (index, message) in back.iter().enumerate() {
        assert_eq!(message.payload, sent[from + index].1, "seed {seed}");
        let seen = from + index < received.len();
        let maybe = message.fate == unstall_proto::Fate::MaybeDelivered;
        assert!(
            maybe || !seen,
            "seed {seed}: delivered, and marked as not sent"
        );
    }
}
