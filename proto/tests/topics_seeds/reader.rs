//! The application's side of a subscription, which checks what it gets against everything that was
//! ever stored.

use std::collections::HashMap;

use unstall_proto::topics::{
    Delivery, Filter, Gap, GapReason, Offset, Position, Start, StoredAt, SubscriptionId,
    TopicMessage,
};

use crate::ledger::{Entry, Incarnation, Ledger};
use crate::node::Begun;

/// A subscription, as the application sees it.
pub struct Reader {
    pub id: SubscriptionId,
    pub filter: Filter,
    pub start: Start,
    pub max_message: u64,
    pub max_lag: bool,
    /// What nodes answered to the first start, and in which life of the log.
    answers: Vec<(Position, usize)>,
    /// Everything up to here was delivered, or is in a gap.
    cursor: Option<Cursor>,
    /// The messages of a snapshot that is not over, by topic.
    snapshot: Option<HashMap<String, Offset>>,
    pub readable: bool,
    /// The cost of what was received, and is not taken yet.
    pub untaken: u64,
    pub ended: bool,
    pub over: bool,
    pub received: u64,
    pub gaps: u64,
    pub caught_up: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Of `Ledger::lives`. It may be of a later one too, if that has kept the place.
    life: usize,
    offset: Offset,
    time: StoredAt,
}

impl Reader {
    pub fn new(id: SubscriptionId, filter: Filter, start: Start, max_message: u64) -> Reader {
        Reader {
            id,
            filter,
            start,
            max_message,
            max_lag: false,
            answers: Vec::new(),
            cursor: None,
            snapshot: matches!(start, Start::Latest(_)).then(HashMap::new),
            readable: false,
            untaken: 0,
            ended: false,
            over: false,
            received: 0,
            gaps: 0,
            caught_up: 0,
        }
    }

    /// A node has answered SUBSCRIBE.
    pub fn answered(&mut self, begun: &Begun, ledger: &Ledger) {
        if begun.start != self.start || self.cursor.is_some() {
            return;
        }
        self.check_opening(begun, ledger);
        let position = Position {
            log: ledger.log().id,
            offset: begun.opening.after,
            time: begun.opening.time,
        };
        self.answers.push((position, ledger.lives.len() - 1));
    }

    /// Where a start has to begin, by another reckoning.
    fn check_opening(&self, begun: &Begun, ledger: &Ledger) {
        let (log, after) = (ledger.log(), begun.opening.after);
        let wanted = |entry: &&Entry| self.filter.matches(&entry.topic);
        let behind = ledger.left().iter().filter(|entry| entry.offset > after);
        match self.start {
            Start::Beginning => assert_eq!(behind.count(), ledger.left().len()),
            Start::Now => assert_eq!(after, log.last),
            Start::Last(count) => {
                let all = ledger.left().iter().filter(wanted).count();
                assert_eq!(behind.filter(wanted).count(), all.min(count as usize));
            }
            Start::Since(time) => {
                let all = ledger.left().iter().filter(|entry| entry.time >= time);
                assert_eq!(behind.count(), all.count());
            }
            _ => {}
        }
    }

    /// The client has a position: delivery begins there.
    pub fn begin(&mut self, position: Option<Position>, ledger: &Ledger) {
        let (None, Some(position)) = (self.cursor, position) else {
            return;
        };
        let place = |position: Position| (position.log, position.offset);
        let life = match self.start {
            Start::After(named) => {
                assert_eq!(place(named), place(position));
                ledger.life_of(named)
            }
            _ => {
                let mut answers = self.answers.iter().rev();
                let answer = answers.find(|(answer, _)| place(*answer) == place(position));
                answer
                    .unwrap_or_else(|| panic!("begins at {position}: {:?}", self.answers))
                    .1
            }
        };
        self.cursor = Some(Cursor {
            life,
            offset: position.offset,
            time: position.time,
        });
    }

    /// Something was delivered.
    pub fn check(&mut self, delivery: Delivery, ledger: &Ledger) {
        match delivery {
            Delivery::Messages(batch) => {
                let (cost, end) = (batch.cost(), batch.position());
                let mut sum = 0;
                for message in batch {
                    sum += message.cost;
                    self.check_message(&message, end, ledger);
                }
                assert_eq!(sum, cost);
                self.untaken += cost;
            }
            Delivery::Gap { gap, position } => self.check_gap(gap, position, ledger),
            Delivery::CaughtUp { position } => {
                self.caught_up += 1;
                self.check_place(position, ledger);
            }
            Delivery::Progress { position } => self.check_place(position, ledger),
            Delivery::Ended { .. } => self.ended = true,
            other => panic!("{other:?}"),
        }
    }

    fn cursor(&self) -> Cursor {
        self.cursor.expect("a position comes first")
    }

    fn check_message(&mut self, message: &TopicMessage, end: Position, ledger: &Ledger) {
        let cursor = self.cursor();
        assert!(
            message.offset > cursor.offset,
            "{:?} at {} after {cursor:?}: twice or out of order",
            message.topic,
            message.offset
        );
        assert!(self.filter.matches(message.topic.as_str()));
        assert!(message.payload.len() as u64 <= self.max_message);
        self.received += 1;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.insert(message.topic.as_str().to_owned(), message.offset);
        }
        let same = |entry: &Entry| {
            (entry.offset, entry.time) == (message.offset, message.time)
                && entry.topic == message.topic.as_str()
                && (entry.kind, entry.is_final) == (message.kind, message.is_final)
                && entry.payload == message.payload
        };
        let life = self.life(ledger, "before a message", |life| {
            assert_eq!(life.id, end.log);
            if !life.all.iter().any(same) {
                return Err("it was never stored".to_owned());
            }
            self.nothing(cursor, message.offset.before(), life)
        });
        self.cursor = Some(Cursor {
            life,
            offset: message.offset,
            time: message.time,
        });
    }

    /// The life of the log in which the check passes: the cursor's, or a later one that has kept
    /// its place.
    fn life(
        &self,
        ledger: &Ledger,
        what: &str,
        check: impl Fn(&Incarnation) -> Result<(), String>,
    ) -> usize {
        let cursor = self.cursor();
        let id = ledger.lives[cursor.life].id;
        let mut failures = Vec::new();
        for (index, life) in ledger.lives.iter().enumerate().skip(cursor.life) {
            if life.id != id {
                break;
            }
            // Where the message at the place is gone, or its time is not known, nobody can tell that
            // the log has lost its end.
            let unknowable = cursor.time == StoredAt::UNKNOWN || life.first > cursor.offset;
            if index > cursor.life && life.kept < cursor.offset && !unknowable {
                failures.push(format!("life {index} has lost the place"));
                break;
            }
            match check(life) {
                Ok(()) => return index,
                Err(failure) => failures.push(failure),
            }
        }
        panic!(
            "{} from {:?}, {what}, behind {cursor:?}: {failures:?}",
            self.filter, self.start
        );
    }

    /// No message of the filter was stored behind the cursor and up to this offset.
    fn nothing(&self, cursor: Cursor, through: Offset, life: &Incarnation) -> Result<(), String> {
        let begin = life
            .all
            .partition_point(|entry| entry.offset <= cursor.offset);
        let within = life.all[begin..].iter();
        let missing = within
            .take_while(|entry| entry.offset <= through)
            .find(|entry| self.filter.matches(&entry.topic));
        match missing {
            Some(entry) if self.snapshot.is_none() => {
                Err(format!("{} at {} is missing", entry.topic, entry.offset))
            }
            _ => Ok(()),
        }
    }

    fn check_gap(&mut self, gap: Gap, position: Position, ledger: &Ledger) {
        self.gaps += 1;
        let cursor = self.cursor();
        let life = if matches!(gap.reason, GapReason::AnotherLog | GapReason::Diverged) {
            if let Some(snapshot) = &mut self.snapshot {
                snapshot.clear();
            }
            ledger.life_of(position)
        } else {
            assert!(position.offset >= cursor.offset, "{gap:?} at {cursor:?}");
            self.life(ledger, "before a gap", |life| {
                self.check_reason(gap, life)?;
                self.nothing(cursor, gap.after, life)
            })
        };
        self.cursor = Some(Cursor {
            life,
            offset: position.offset,
            time: position.time,
        });
    }

    fn check_reason(&self, gap: Gap, life: &Incarnation) -> Result<(), String> {
        let mut within = life.all.iter().filter(|entry| {
            let offset = entry.offset;
            offset > gap.after && offset <= gap.through && self.filter.matches(&entry.topic)
        });
        let honest = match gap.reason {
            GapReason::MovedAhead => self.max_lag,
            GapReason::TooLarge => {
                let too_large = |entry: &Entry| entry.payload.len() as u64 > self.max_message;
                within.clone().any(too_large)
            }
            GapReason::Removed => life.first > gap.through,
            _ => true,
        };
        match honest && (!gap.certain || within.next().is_some()) {
            true => Ok(()),
            false => Err(format!("{gap:?} is not so")),
        }
    }

    /// CAUGHT_UP, the first one or a later one.
    fn check_place(&mut self, position: Position, ledger: &Ledger) {
        let cursor = self.cursor();
        assert!(position.offset >= cursor.offset);
        let life = self.life(ledger, "when caught up", |life| {
            assert_eq!(position.log, life.id);
            let at = life
                .all
                .iter()
                .find(|entry| entry.offset == position.offset);
            if position.offset > life.last
                || at.is_some_and(|entry| entry.time.contradicts(position.time))
            {
                return Err(format!("{position} is not in the log"));
            }
            match &self.snapshot {
                Some(snapshot) => self.check_snapshot(snapshot, life, position.offset),
                None => self.nothing(cursor, position.offset, life),
            }
        });
        self.snapshot = None;
        self.cursor = Some(Cursor {
            life,
            offset: position.offset,
            time: position.time,
        });
    }

    /// The latest message of each topic came, if it is still there and not in a gap.
    fn check_snapshot(
        &self,
        snapshot: &HashMap<String, Offset>,
        life: &Incarnation,
        through: Offset,
    ) -> Result<(), String> {
        let mut latest: HashMap<&str, &Entry> = HashMap::new();
        for entry in &life.all {
            if entry.offset <= through && self.filter.matches(&entry.topic) {
                latest.insert(&entry.topic, entry);
            }
        }
        for (topic, entry) in latest {
            let came = snapshot.get(topic) == Some(&entry.offset);
            if entry.offset >= life.first && !came && self.gaps == 0 {
                return Err(format!("the latest of {topic} is missing"));
            }
        }
        Ok(())
    }

    /// Everything was delivered that the log has.
    pub fn check_complete(&self, ledger: &Ledger) {
        assert!(self.snapshot.is_none(), "the snapshot is not over");
        let (cursor, log) = (self.cursor(), ledger.log());
        let life = self.life(ledger, "at the end", |life| match life.last == log.last {
            true => self.nothing(cursor, log.last, life),
            false => Err("an old log".to_owned()),
        });
        assert_eq!(ledger.lives[life].id, log.id, "of an old log");
    }
}
