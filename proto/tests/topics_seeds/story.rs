//! What happens in a world: first anything, then nothing bad.

use std::time::Duration;

use bytes::Bytes;
use unstall_proto::Kind;
use unstall_proto::topics::{
    AccessToken, Delivery, Filter, GapReason, LogId, Offset, Position, PublishError, Start,
    StoredAt, SubscribeOptions, SubscriptionEnd, Topic,
};

use crate::ledger::ONCE_SLACK;
use crate::reader::Reader;
use crate::world::{Tally, WIRE, World};
use crate::writer::Fate;

const TOPICS: [&str; 5] = ["a.x", "a.y", "a.y.z", "b", "c.d.e"];
const FILTERS: [&str; 7] = [">", "a.*", "a.>", "b", "c.d.e", "*", "none.such"];

impl World {
    /// A whole world.
    pub fn live(mut self) -> Tally {
        for _ in 0..80 + self.random.below(400) {
            self.step();
        }
        self.heal();
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < 100_000, "the world does not come to rest");
            quiet = if self.round() { 0 } else { quiet + 1 };
            if quiet == 2 {
                break;
            }
        }
        self.finish()
    }

    /// Something happens.
    fn step(&mut self) {
        let who = self.random.below(self.ends.len() as u64) as usize;
        match self.random.below(100) {
            0..=9 => self.publish(who),
            10..=12 => self.subscribe(who),
            13 => self.unsubscribe(who),
            14..=15 => self.fault(),
            16 => self.pass_time(),
            17..=20 if self.ends[who].link.is_none() => self.connect(who),
            17..=34 => drop(self.client_transmits(who)),
            35..=59 => drop(self.any_link(Self::link_step)),
            60..=69 => drop(self.client_receives(who)),
            70..=84 => drop(self.any_link(Self::work)),
            85..=94 => drop(self.read(who)),
            _ => drop(self.take(who)),
        }
        if self.ends[who].link.is_none() && self.random.chance(20) {
            self.connect(who);
        }
    }

    fn any_link(&mut self, act: fn(&mut World, usize) -> bool) -> bool {
        self.links
            .retain(|link| !link.is_done() || link.client_open);
        self.renumber();
        match self.links.len() as u64 {
            0 => false,
            all => {
                let link = self.random.below(all) as usize;
                act(self, link)
            }
        }
    }

    /// Links were removed: those of clients have other places.
    fn renumber(&mut self) {
        for end in &mut self.ends {
            end.link = None;
        }
        for (place, link) in self.links.iter().enumerate() {
            if link.client_open {
                self.ends[link.client].link = Some(place);
            }
        }
    }

    /// Everything that wants to happen, happens once. Whether anything did.
    fn round(&mut self) -> bool {
        let mut busy = false;
        for who in 0..self.ends.len() {
            if self.ends[who].link.is_none() {
                self.connect(who);
                busy = true;
            }
            busy |= self.client_transmits(who);
            busy |= self.client_receives(who);
            busy |= self.read(who);
            busy |= self.take(who);
        }
        for link in 0..self.links.len() {
            busy |= self.link_step(link);
            busy |= self.work(link);
        }
        busy
    }

    fn client_transmits(&mut self, who: usize) -> bool {
        let Some(link) = self.ends[who].link else {
            return false;
        };
        let now = self.now();
        let (end, wire) = (&mut self.ends[who], &mut self.links[link].up);
        if wire.len() >= WIRE || !end.client.wants_transmit() {
            return false;
        }
        let packet = end.client.poll_transmit(now);
        let sent = packet.is_some();
        wire.extend(packet.map(|packet| packet.into_bytes()));
        if self.links[link].server.is_none() {
            self.links[link].up.clear();
        }
        self.look(who);
        sent
    }

    fn client_receives(&mut self, who: usize) -> bool {
        let Some(link) = self.ends[who].link else {
            return false;
        };
        let Some(packet) = self.links[link].down.pop_front() else {
            let closed = self.links[link].server.is_none();
            if closed {
                self.disconnect(who);
            }
            return closed;
        };
        log!(self, "{who} receives {}", name(&packet));
        let now = self.now();
        let result = self.ends[who].client.handle_packet(now, packet);
        self.look(who);
        if let Err(error) = result {
            panic!("{who}: the node keeps to the protocol: {error}");
        }
        true
    }

    /// A node reads, hears of the end of the log, and sends.
    fn link_step(&mut self, link: usize) -> bool {
        let (wall, end) = (self.wall(), self.ledger.log().last);
        let time = self.ledger.last_time();
        let it = &mut self.links[link];
        let mut busy = it.receive();
        if let Some(server) = it.server.as_mut().filter(|_| std::mem::take(&mut it.news)) {
            server.set_end(end, time);
            it.poll();
            busy = true;
        }
        busy |= it.transmit(wall, WIRE);
        let (lost, over) = (
            !it.client_open,
            it.server.as_ref().is_some_and(|it| it.is_over()),
        );
        if (lost && it.up.is_empty()) || (over && !it.server.as_ref().unwrap().wants_transmit()) {
            it.close_server();
        }
        if lost {
            it.down.clear();
        }
        self.check_link(link);
        busy
    }

    fn work(&mut self, link: usize) -> bool {
        if !self.links[link].has_task() {
            return false;
        }
        let before = (self.ledger.log().last, self.ledger.log().first);
        let it = &mut self.links[link];
        let begun = it.work(&mut self.ledger, &mut self.random, self.faults);
        if let Some(begun) = begun {
            log!(
                self,
                "node answers {} with {:?}",
                begun.number,
                begun.opening
            );
            let readers = self.ends[self.links[link].client].readers.iter_mut();
            for reader in readers.filter(|reader| number_of(reader) == begun.number) {
                reader.answered(&begun, &self.ledger);
            }
        }
        if self.ledger.log().last != before.0 {
            self.spread_news();
        }
        if self.ledger.log().first != before.1 {
            self.tally.removals += 1;
        }
        true
    }

    fn publish(&mut self, who: usize) {
        for _ in 0..1 + self.random.below(4) {
            let topic = TOPICS[self.random.below(TOPICS.len() as u64) as usize];
            let is_final = self.random.chance(2);
            let payload = self.payload(who);
            let kind = if self.random.chance(50) {
                Kind::Text
            } else {
                Kind::Binary
            };
            let end = &mut self.ends[who];
            let topic = Topic::new(topic).unwrap();
            self.tally.long += u64::from(payload.len() > 65_536);
            match end.client.publish(topic, kind, is_final, payload.clone()) {
                Ok(number) => {
                    end.writer.sent.push(payload);
                    assert_eq!(number, end.writer.sent.len() as u64);
                }
                Err(PublishError::Full | PublishError::TooLarge { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Each is another one.
    fn payload(&mut self, who: usize) -> Bytes {
        let length = match self.random.below(100) {
            0..=69 => self.random.below(200) as usize,
            70..=89 => self.random.below(20_000) as usize,
            90..=93 => 65_536,
            _ => 60_000 + self.random.below(150_000) as usize,
        };
        let number = self.ends[who].writer.sent.len() + 1;
        let mut payload = format!("{who}-{number}-").into_bytes();
        payload.resize(payload.len().max(length), b'.');
        payload.into()
    }

    fn subscribe(&mut self, who: usize) {
        if self.ends[who].readers.len() >= 4 {
            return;
        }
        let filter = FILTERS[self.random.below(FILTERS.len() as u64) as usize];
        let filter = Filter::new(filter).unwrap();
        let start = self.start();
        let max_lag = self.random.chance(15);
        let mut options = SubscribeOptions::new();
        if max_lag {
            options = options.max_lag(Duration::from_millis(1 + self.random.below(50)));
        }
        log!(self, "{who} subscribes to {filter} from {start:?}");
        let end = &mut self.ends[who];
        let id = end.client.subscribe(filter.clone(), start, options);
        let mut reader = Reader::new(id, filter, start, end.max_message);
        reader.max_lag = max_lag;
        end.readers.push(reader);
    }

    fn start(&mut self) -> Start {
        let entries = &self.ledger.log().all;
        let some = match entries.len() as u64 {
            0 => None,
            all => entries.get(self.random.below(all) as usize),
        };
        match self.random.below(8) {
            0 => Start::Now,
            1 => Start::Last(1 + self.random.below(10) as u32),
            2 => Start::Latest(None),
            3 => Start::Since(some.map_or(StoredAt::UNKNOWN, |entry| entry.time)),
            4 | 5 => match some {
                Some(entry) => Start::After(Position {
                    log: self.ledger.log().id,
                    offset: entry.offset,
                    time: entry.time,
                }),
                None => Start::After(Position {
                    log: LogId([99; 16]),
                    offset: Offset::new(7).unwrap(),
                    time: StoredAt::UNKNOWN,
                }),
            },
            _ => Start::Beginning,
        }
    }

    fn unsubscribe(&mut self, who: usize) {
        let end = &mut self.ends[who];
        if end.readers.is_empty() {
            return;
        }
        let one = self.random.below(end.readers.len() as u64) as usize;
        let reader = end.readers.swap_remove(one);
        end.client.unsubscribe(reader.id);
    }

    /// An application reads one thing of each of its subscriptions.
    fn read(&mut self, who: usize) -> bool {
        let mut busy = false;
        for index in 0..self.ends[who].readers.len() {
            let end = &mut self.ends[who];
            let reader = &mut end.readers[index];
            if !reader.readable {
                continue;
            }
            busy = true;
            let Some(delivery) = end.client.poll_delivery(reader.id) else {
                reader.readable = false;
                continue;
            };
            log!(self, "{who} is delivered {}", short(&delivery));
            if let Delivery::Gap { gap, .. } = &delivery {
                count_gap(&mut self.tally, gap.reason);
            }
            let reason = match &delivery {
                Delivery::Ended { reason, .. } => Some(*reason),
                _ => None,
            };
            self.ends[who].readers[index].check(delivery, &self.ledger);
            self.resubscribe(who, index, reason);
        }
        busy
    }

    /// A subscription has ended: the application asks again, unless it is over for good.
    fn resubscribe(&mut self, who: usize, index: usize, reason: Option<SubscriptionEnd>) {
        let end = &mut self.ends[who];
        let reader = &mut end.readers[index];
        match reason {
            None => {}
            Some(SubscriptionEnd::Final) => {
                self.tally.finals += 1;
                reader.over = true;
            }
            Some(SubscriptionEnd::TooMany) => {
                let reader = end.readers.swap_remove(index);
                end.client.unsubscribe(reader.id);
                // The loop over readers goes on with the one that is now in its place.
                self.ends[who].readers.push(reader_that_is_over(reader));
            }
            Some(reason) => {
                self.tally.resubscribed += 1;
                if reason == SubscriptionEnd::Expired {
                    self.tally.tokens += 1;
                    end.client.set_token(AccessToken::new("another").unwrap());
                }
                end.client.resubscribe(reader.id);
            }
        }
    }

    /// An application has taken what it received.
    fn take(&mut self, who: usize) -> bool {
        let end = &mut self.ends[who];
        let mut busy = false;
        for reader in &mut end.readers {
            busy |= reader.untaken > 0;
            end.client
                .taken(reader.id, std::mem::take(&mut reader.untaken));
        }
        busy
    }

    fn pass_time(&mut self) {
        if self.random.chance(15) {
            // So long that nothing is on its way any more.
            for who in 0..self.ends.len() {
                self.disconnect(who);
            }
            for node in 0..self.nodes {
                self.restart(node);
            }
            self.ledger.clock += self.random.below(2 * ONCE_SLACK);
        } else {
            self.ledger.clock += self.random.below(100);
        }
        let now = self.now();
        for who in 0..self.ends.len() {
            let client = &mut self.ends[who].client;
            if client.poll_timeout().is_some_and(|at| at <= now) {
                self.tally.expired += 1;
                client.handle_timeout(now);
                assert!(client.poll_timeout().is_none_or(|at| at > now));
                self.look(who);
            }
        }
    }

    fn fault(&mut self) {
        match self.random.below(20) {
            0..=8 => {
                let who = self.random.below(self.ends.len() as u64) as usize;
                self.disconnect(who);
            }
            9..=11 => {
                let node = self.random.below(self.nodes as u64) as usize;
                self.restart(node);
            }
            12..=15 => {
                let count = self.random.below(12) as usize;
                log!(self, "retention removes {count}");
                self.ledger.remove(count);
            }
            16 => self.lose_log(),
            17 => {
                let who = self.random.below(self.ends.len() as u64) as usize;
                self.give_up(who);
            }
            _ => {
                let all = self
                    .links
                    .iter_mut()
                    .filter_map(|link| link.server.as_mut());
                all.for_each(|server| server.release());
            }
        }
    }

    /// The log is another one, or loses its end. Every node notices.
    fn lose_log(&mut self) {
        for node in 0..self.nodes {
            self.restart(node);
        }
        if self.random.chance(50) {
            log!(self, "the log is another one");
            self.tally.replaced += 1;
            self.ledger.replace();
        } else if self.ledger.lose_end(1 + self.random.below(8) as usize) {
            log!(self, "the log has lost its end");
            self.tally.ends_lost += 1;
        }
    }

    /// A client gives up what has no answer.
    fn give_up(&mut self, who: usize) {
        self.disconnect(who);
        let now = self.now();
        let end = &mut self.ends[who];
        for left in end.client.give_up(now) {
            self.tally.given_up += 1;
            let fate = match left.may_be_stored {
                true => Fate::Unknown,
                false => Fate::NotStored,
            };
            end.writer.tell(left.number, fate);
        }
    }
}

fn number_of(reader: &Reader) -> u32 {
    reader.id.number()
}

fn reader_that_is_over(mut reader: Reader) -> Reader {
    reader.over = true;
    reader.readable = false;
    reader.untaken = 0;
    reader
}

fn count_gap(tally: &mut Tally, reason: GapReason) {
    match reason {
        GapReason::Removed => tally.removed += 1,
        GapReason::AnotherLog => tally.another_log += 1,
        GapReason::Diverged => tally.diverged += 1,
        GapReason::MovedAhead => tally.moved_ahead += 1,
        GapReason::TooLarge => tally.too_large += 1,
        _ => {}
    }
}

fn name(packet: &[u8]) -> String {
    format!("a packet {:#04x} of {} bytes", packet[0], packet.len())
}

fn short(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Messages(batch) => {
            format!("{} messages up to {}", batch.remaining(), batch.position())
        }
        other => format!("{other:?}"),
    }
}
