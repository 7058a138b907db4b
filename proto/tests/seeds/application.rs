//! An application: it takes and acknowledges messages when it runs, and waits when it is told to.

use std::collections::VecDeque;
use std::sync::OnceLock;

use bytes::Bytes;
use unstall_proto::{Batch, Incoming, Kind, Position, SendError, Seq, Session, Time};

use crate::random::Random;

/// A message that was accepted for sending. Its bytes are a part of a fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub kind: Kind,
    wide: bool,
    offset: usize,
    pub length: usize,
    /// What `send` gave for it.
    pub seq: Seq,
}

const LONGEST: usize = 800_000;
const SPREAD: usize = 30_000;

/// ASCII letters, and characters of three bytes: a record that ends within one is nothing special.
fn letters(wide: bool) -> &'static str {
    static LETTERS: OnceLock<[String; 2]> = OnceLock::new();
    &LETTERS.get_or_init(|| {
        let mut random = Random(7);
        let narrow = (0..LONGEST + SPREAD).map(|_| char::from(b'a' + random.below(26) as u8));
        let narrow = narrow.collect();
        let mut wide = || char::from_u32(0x4e00 + random.below(5_000) as u32).unwrap_or('?');
        let wide = (0..(LONGEST + SPREAD) / 3).map(|_| wide()).collect();
        [narrow, wide]
    })[usize::from(wide)]
}

impl Sent {
    pub fn new(random: &mut Random, length: usize) -> Sent {
        let wide = random.chance(20);
        let whole = |bytes: usize| if wide { bytes / 3 * 3 } else { bytes };
        Sent {
            kind: match random.chance(50) {
                true => Kind::Text,
                false => Kind::Binary,
            },
            wide,
            offset: whole(random.below(SPREAD as u64) as usize),
            length: whole(length.min(LONGEST)),
            seq: Seq::ZERO,
        }
    }

    fn text(&self) -> &'static str {
        &letters(self.wide)[self.offset..self.offset + self.length]
    }

    /// Sends it, one way or the other.
    pub fn give_to(&self, session: &mut Session) -> Result<Seq, SendError> {
        let text = self.text();
        match (self.offset % 2, self.kind) {
            (0, Kind::Text) => session.send(text),
            (0, Kind::Binary) => session.send(text.as_bytes()),
            (_, kind) => session.send_shared(kind, &Bytes::from_static(text.as_bytes())),
        }
    }

    pub fn is(&self, kind: Kind, payload: &[u8]) -> bool {
        self.kind == kind && self.text().as_bytes() == payload
    }
}

/// The application of one side.
pub struct Application {
    pub runs: bool,
    /// Handed over, and not taken yet.
    pub held: VecDeque<Batch>,
    /// How many messages it has taken.
    pub received: usize,
    pub taken: Position,
    /// How far it has acknowledged: by hand, or by taking.
    pub processed: Position,
    /// The end of the stream, once it came.
    pub end: Option<Incoming>,
    /// What did not fit, and waits for the word that it may fit now.
    pub waits: Option<Sent>,
    /// When it takes some more.
    pub takes_at: Option<Time>,
    /// When it acknowledges by hand, and up to where.
    pub acknowledges_at: Option<(Time, Position)>,
    /// When it answers the peer's close by hand.
    pub answers_at: Option<Time>,
}

impl Application {
    pub fn new(runs: bool) -> Application {
        Application {
            runs,
            held: VecDeque::new(),
            received: 0,
            taken: Position::START,
            processed: Position::START,
            end: None,
            waits: None,
            takes_at: None,
            acknowledges_at: None,
            answers_at: None,
        }
    }

    /// When it does something by itself.
    pub fn next(&self) -> Option<Time> {
        let acknowledges = self.acknowledges_at.map(|(at, _)| at);
        self.takes_at
            .into_iter()
            .chain(acknowledges)
            .chain(self.answers_at)
            .min()
            .filter(|_| self.runs)
    }
}
