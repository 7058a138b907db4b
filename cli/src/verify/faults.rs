//! Which faults there are, and at which byte of the run each one strikes.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::peer::SILENCE;
use crate::packets::SplitMix64;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Cut,
    Freeze,
    Delay,
    Refuse,
    Restart,
    Slow,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Cut,
        Self::Freeze,
        Self::Delay,
        Self::Refuse,
        Self::Restart,
        Self::Slow,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Freeze => "freeze",
            Self::Delay => "delay",
            Self::Refuse => "refuse",
            Self::Restart => "restart",
            Self::Slow => "slow",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| "the faults are cut, freeze, delay, refuse, restart, slow".to_owned())
    }
}

/// Which way bytes and messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// Its place in an array of two.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "to the server",
            Self::Down => "to the client",
        })
    }
}

/// What one fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Every connection ends: with a reset, which destroys what is under way, or with a FIN.
    Cut { reset: bool },
    /// Nothing passes on the connections that there are; then it passes late.
    Freeze(Duration),
    /// Everything is held back for `by`, for so long.
    Delay { lasts: Duration, by: Duration },
    /// Every connection is reset, and new ones are too for so long.
    Refuse(Duration),
    /// The server process is killed, and started again after this.
    Restart(Duration),
    /// The application at the end of this direction takes nothing.
    Slow(Direction, Duration),
}

impl Action {
    fn draw(kind: Kind, direction: Direction, random: &mut Random) -> Self {
        match kind {
            Kind::Cut => Self::Cut {
                reset: random.below(2) == 0,
            },
            // One in four outlives the silence time: the connection is given up as dead, another
            // is made, and then late bytes come out of the old one.
            Kind::Freeze if random.below(4) == 0 => {
                Self::Freeze(SILENCE + random.millis(200, 1_000))
            }
            Kind::Freeze => Self::Freeze(random.millis(50, 400)),
            Kind::Delay => Self::Delay {
                lasts: random.millis(200, 800),
                by: random.millis(5, 40),
            },
            Kind::Refuse => Self::Refuse(random.millis(50, 400)),
            Kind::Restart => Self::Restart(random.millis(0, 300)),
            Kind::Slow => Self::Slow(direction, random.millis(100, 600)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { reset: true } => write!(f, "cut with a reset"),
            Self::Cut { reset: false } => write!(f, "cut with a FIN"),
            Self::Freeze(lasts) => write!(f, "frozen for {lasts:?}"),
            Self::Delay { lasts, by } => write!(f, "delayed by {by:?} for {lasts:?}"),
            Self::Refuse(lasts) => write!(f, "cut, and refused for {lasts:?}"),
            Self::Restart(after) => write!(f, "server killed, started again after {after:?}"),
            Self::Slow(Direction::Up, lasts) => {
                write!(f, "the server's application takes nothing for {lasts:?}")
            }
            Self::Slow(Direction::Down, lasts) => {
                write!(f, "the client's application takes nothing for {lasts:?}")
            }
        }
    }
}

/// A fault and its place: behind so many bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) direction: Direction,
    pub(super) offset: u64,
    pub(super) action: Action,
}

/// The faults still to come and how far each direction has got.
///
/// Places are byte offsets, not times, so that a run meets all its faults however fast it is.
#[derive(Debug)]
pub(super) struct Schedule {
    moved: [u64; 2],
    /// By direction, each in the order of its offsets.
    coming: [VecDeque<Fault>; 2],
}

/// Behind this share of a direction's bytes come no faults, so that the last one's end is seen.
const LAST_FAULT_PERCENT: u64 = 95;

impl Schedule {
    /// Draws `count` faults of these kinds over `bytes` in each direction. The same arguments
    /// always give the same faults.
    pub(super) fn draw(kinds: &[Kind], count: usize, bytes: u64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut coming = [VecDeque::new(), VecDeque::new()];
        let mut kinds_left = Vec::new();
        let span = bytes / 100 * LAST_FAULT_PERCENT;
        for number in 0..count as u64 {
            if kinds_left.is_empty() {
                kinds_left = kinds.to_vec();
            }
            if kinds_left.is_empty() {
                break;
            }
            let kind = kinds_left.swap_remove(random.below(kinds_left.len() as u64) as usize);
            let direction = Direction::BOTH[random.below(2) as usize];
            // Each in a stretch of its own: spread out, and yet anywhere.
            let stretch = span / count as u64;
            let offset = number * stretch + random.below(stretch.max(1));
            let action = Action::draw(kind, direction, &mut random);
            coming[direction.index()].push_back(Fault {
                direction,
                offset: offset.max(1),
                action,
            });
        }
        Self {
            moved: [0; 2],
            coming,
        }
    }

    /// `len` bytes want to pass: how many may before a fault strikes, and the fault.
    pub(super) fn pass(&mut self, direction: Direction, len: usize) -> (usize, Option<Fault>) {
        let moved = &mut self.moved[direction.index()];
        let coming = &mut self.coming[direction.index()];
        let left = coming
            .front()
            .map_or(u64::MAX, |fault| fault.offset.saturating_sub(*moved));
        if left > len as u64 {
            *moved += len as u64;
            return (len, None);
        }
        *moved += left;
        (left as usize, coming.pop_front())
    }
}

/// Seeded numbers.
#[derive(Debug)]
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// Less than `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // The bias is below 2^-40 for every `end` used here.
        self.0.next() % end
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_another_seed_others() {
        let drawn = |seed| Schedule::draw(&Kind::ALL, 60, 1 << 20, seed).coming;
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        for kind in Kind::ALL {
            let one = Schedule::draw(&[kind], 5, 1 << 20, 1).coming;
            assert_eq!(one[0].len() + one[1].len(), 5);
        }
    }

    #[test]
    fn each_fault_strikes_at_its_byte_whatever_the_pieces_are() {
        for piece in [1, 7, 1000, 1 << 20] {
            let mut schedule = Schedule::draw(&[Kind::Cut], 40, 100_000, 3);
            let expected = schedule.coming.clone();
            for direction in Direction::BOTH {
                let (mut moved, mut struck) = (0, VecDeque::new());
                while moved < 100_000 {
                    let mut left = piece.min(100_000 - moved);
                    loop {
                        let (passed, fault) = schedule.pass(direction, left);
                        moved += passed;
                        left -= passed;
                        let Some(fault) = fault else { break };
                        assert_eq!(fault.offset, moved as u64);
                        struck.push_back(fault);
                    }
                }
                assert_eq!(struck, expected[direction.index()]);
            }
        }
    }

    #[test]
    fn a_run_without_faults_or_of_few_bytes_is_no_panic() {
        assert_eq!(
            Schedule::draw(&[], 20, 1000, 1).pass(Direction::Up, 9).0,
            9
        );
        let mut tiny = Schedule::draw(&Kind::ALL, 20, 3, 1);
        for direction in Direction::BOTH {
            while tiny.pass(direction, 3).1.is_some() {}
        }
    }
}
