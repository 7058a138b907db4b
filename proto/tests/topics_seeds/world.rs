//! The world: a log, nodes, and clients with their applications.
//!
//! The drivers are as good as real ones and no better: they call a value when a packet, an
//! application or an answer of the store gives the reason, and then do what its polls say. Nobody
//! looks again without a reason, so a wake-up that is lost stays lost, and shows.

use std::cell::RefCell;
use std::sync::Arc;

use unstall_proto::Time;
use unstall_proto::topics::{
    AccessToken, Client, ClientConfig, ClientEvent, Publisher, ServerConfig, StoredAt,
};

use crate::ledger::Ledger;
use crate::node::{Faults, Link, NO_FAULTS};
use crate::random::Random;
use crate::reader::Reader;
use crate::seeded;
use crate::writer::Writer;

thread_local! {
    /// What happened, if somebody wants to read it. It outlives the panic that ends a world.
    pub static TRANSCRIPT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// How many packets a wire takes.
pub const WIRE: usize = 6;

/// A client with its applications.
pub struct End {
    pub client: Client,
    /// Of `World::links`.
    pub link: Option<usize>,
    pub readers: Vec<Reader>,
    pub writer: Writer,
    pub max_message: u64,
    pub window: u64,
}

/// What happened how often, over many worlds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub worlds: u64,
    pub connections: u64,
    pub received: u64,
    pub gaps: u64,
    pub caught_up: u64,
    pub published: u64,
    pub stored_before: u64,
    pub not_stored: u64,
    pub unknown: u64,
    pub restarts: u64,
    pub removals: u64,
    pub replaced: u64,
    pub ends_lost: u64,
    pub rejected: u64,
    pub resubscribed: u64,
    pub finals: u64,
    pub expired: u64,
    pub long: u64,
    pub moved_ahead: u64,
    pub too_large: u64,
    pub another_log: u64,
    pub diverged: u64,
    pub removed: u64,
    pub given_up: u64,
    pub tokens: u64,
}

impl seeded::Tally for Tally {
    fn add(&mut self, other: &Tally) {
        macro_rules! sum { ($($field:ident)*) => { $( self.$field += other.$field; )* } }
        sum!(worlds connections received gaps caught_up published stored_before not_stored unknown
             restarts removals replaced ends_lost rejected resubscribed finals expired long
             moved_ahead too_large another_log diverged removed given_up tokens);
    }
}

pub struct World {
    pub random: Random,
    pub ledger: Ledger,
    pub ends: Vec<End>,
    pub links: Vec<Link>,
    pub nodes: usize,
    pub config: Arc<ServerConfig>,
    pub faults: Faults,
    pub record: bool,
    pub tally: Tally,
    /// Time that passed besides the log's.
    pub begin: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let once = random.chance(40).then_some(30_000);
        let ledger = Ledger::new(random.chance(50), once);
        let config = ServerConfig::new()
            .name("a node")
            .subscriptions(if random.chance(20) { 1 } else { 100 })
            .max_message(65_536 << random.below(3))
            .publish_window(262_144)
            .read_bytes(1024 << random.below(9))
            .hand_bytes(1024 << random.below(12))
            .reads(1 + random.below(3) as u32);
        let ends = 1 + random.below(3);
        let mut world = World {
            begin: ledger.clock,
            ledger,
            ends: Vec::new(),
            links: Vec::new(),
            nodes: 1 + random.below(3) as usize,
            config: Arc::new(config),
            faults: Faults {
                refused: random.below(15),
                removed: random.below(15),
                damaged: random.below(3),
                ended: random.below(5),
                rejected: random.below(20),
            },
            record: TRANSCRIPT.with_borrow(|lines| lines.is_some()),
            tally: Tally::default(),
            random,
        };
        for number in 0..ends {
            world.add_end(number as u8);
        }
        world
    }

    fn add_end(&mut self, number: u8) {
        let random = &mut self.random;
        let publisher = random.chance(85).then_some(Publisher {
            id: [number + 1; 16],
            epoch: 1 + random.below(3),
        });
        let max_message = 65_536 << random.below(3);
        let window = 262_144 << random.below(2);
        let mut config = ClientConfig::new()
            .window(window)
            .max_message(max_message)
            .unanswered(4096 << random.below(9));
        if let Some(publisher) = publisher {
            config = config.publisher(publisher);
        }
        self.ends.push(End {
            client: Client::new(config),
            link: None,
            readers: Vec::new(),
            writer: Writer::new(publisher.is_some()),
            max_message,
            window,
        });
    }

    pub fn line(&self, text: String) {
        TRANSCRIPT.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push(format!("{:>8} {text}", self.ledger.clock - self.begin));
            }
        });
    }

    /// By the clock of clients.
    pub fn now(&self) -> Time {
        Time::from_millis(self.ledger.clock - self.begin)
    }

    /// By the clock of the store.
    pub fn wall(&self) -> StoredAt {
        StoredAt::new(self.ledger.clock).unwrap()
    }

    /// A client connects to a node.
    pub fn connect(&mut self, who: usize) {
        let now = self.now();
        let node = self.random.below(self.nodes as u64) as usize;
        self.disconnect(who);
        log!(self, "{who} connects to node {node}");
        self.tally.connections += 1;
        self.ends[who].client.attach(now, AccessToken::NONE);
        self.ends[who].link = Some(self.links.len());
        self.links.push(Link::new(who, node, self.config.clone()));
        self.look(who);
    }

    /// The client sees its connection lost. The node may see it later.
    pub fn disconnect(&mut self, who: usize) {
        let Some(link) = self.ends[who].link.take() else {
            return;
        };
        log!(self, "{who} loses its connection");
        self.links[link].client_open = false;
        self.links[link].down.clear();
        let now = self.now();
        self.ends[who].client.detach(now);
        self.look(who);
    }

    /// A node's process ends, and is there again.
    pub fn restart(&mut self, node: usize) {
        log!(self, "node {node} restarts");
        self.tally.restarts += 1;
        for link in self.links.iter_mut().filter(|link| link.node == node) {
            link.kill();
        }
    }

    /// The log has grown: all nodes hear of it, in time.
    pub fn spread_news(&mut self) {
        for link in &mut self.links {
            link.news = link.server.is_some();
        }
    }

    /// What happened to a client.
    pub fn look(&mut self, who: usize) {
        let end = &mut self.ends[who];
        for reader in &mut end.readers {
            reader.begin(end.client.position(reader.id), &self.ledger);
        }
        while let Some(event) = end.client.poll_event() {
            end.writer.learn(&event);
            match event {
                ClientEvent::Readable(id) => {
                    for reader in end.readers.iter_mut().filter(|reader| reader.id == id) {
                        reader.readable = true;
                    }
                }
                ClientEvent::Rejected(_) => self.tally.rejected += 1,
                ClientEvent::Aborted { reason, .. } => panic!("aborted: {reason}"),
                _ => {}
            }
        }
        self.check_bounds(who);
    }

    /// What a client holds stays within its limits.
    fn check_bounds(&self, who: usize) {
        let end = &self.ends[who];
        for reader in &end.readers {
            let (held, partial) = end.client.held(reader.id);
            let message = end.max_message + 64 * (end.max_message / 65_536 + 1) + 255;
            assert!(held <= end.window + message, "{held} bytes are held");
            assert!(
                partial <= end.max_message + 65_536,
                "{partial} bytes of a message"
            );
        }
        let (count, cost) = end.client.unanswered();
        assert!(
            count == 1 || cost <= 4096 << 8,
            "{count} messages cost {cost}"
        );
    }

    /// What a node holds for a connection stays within its limits.
    pub fn check_link(&self, link: usize) {
        let Some(server) = &self.links[link].server else {
            return;
        };
        let blocks = 4 * ((512 << 10) + (300 << 10));
        assert!(
            server.in_hand() <= (4 << 20) + blocks,
            "{} in hand",
            server.in_hand()
        );
        assert!(server.memory() < 1 << 20, "{} bytes", server.memory());
    }

    /// Nothing fails any more.
    pub fn heal(&mut self) {
        log!(self, "from now on all is well");
        self.faults = NO_FAULTS;
    }

    pub fn finish(mut self) -> Tally {
        self.tally.worlds = 1;
        for end in &self.ends {
            end.writer.check(&self.ledger);
            for reader in &end.readers {
                if !reader.over {
                    reader.check_complete(&self.ledger);
                }
                self.tally.received += reader.received;
                self.tally.gaps += reader.gaps;
                self.tally.caught_up += reader.caught_up;
            }
        }
        self.count_fates();
        self.tally
    }

    fn count_fates(&mut self) {
        use crate::writer::Fate;
        for end in &self.ends {
            let tally = &mut self.tally;
            tally.published += end
                .writer
                .count(|fate| matches!(fate, Fate::Stored(Some(_))));
            tally.stored_before += end.writer.count(|fate| fate == Fate::Stored(None));
            tally.not_stored += end.writer.count(|fate| fate == Fate::NotStored);
            tally.unknown += end.writer.count(|fate| fate == Fate::Unknown);
        }
    }
}
