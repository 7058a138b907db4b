//! Faults of the network: their kinds, and at which byte of a run each one strikes.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::packets::SplitMix64;

pub(crate) mod proxy;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cut,
    Freeze,
    Delay,
    Refuse,
    Restart,
    Slow,
    Kill,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Cut,
        Self::Freeze,
        Self::Delay,
        Self::Refuse,
        Self::Restart,
        Self::Slow,
        Self::Kill,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Freeze => "freeze",
            Self::Delay => "delay",
            Self::Refuse => "refuse",
            Self::Restart => "restart",
            Self::Slow => "slow",
            Self::Kill => "kill",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| {
            "the faults are cut, freeze, delay, refuse, restart, slow, kill".to_owned()
        })
    }
}

/// The direction of bytes and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// Its place in an array of two.
    pub(crate) fn index(self) -> usize {
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

/// A fault that strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Every connection ends: by a reset, which destroys bytes under way, or by a FIN.
    Cut { reset: bool },
    /// Bytes on existing connections are held back, and pass late.
    Freeze(Duration),
    /// Like a freeze, but the proxy accepts bytes as if they were delivered, and passes them on
    /// late.
    Swallow(Duration),
    /// Bytes are held back by `by`, for this long.
    Delay { lasts: Duration, by: Duration },
    /// Every connection is reset, and so are new ones for this long.
    Refuse(Duration),
    /// The server process is killed, and started again after this.
    Restart(Duration),
    /// The client process is killed, and started again after this.
    Kill(Duration),
    /// The application at the end of this direction receives nothing.
    Slow(Direction, Duration),
}

impl Action {
    fn draw(kind: Kind, direction: Direction, silence: Duration, random: &mut Random) -> Self {
        match kind {
            Kind::Cut => Self::Cut {
                reset: random.below(2) == 0,
            },
            // One in four outlasts the silence timeout: the connection is given up, another is
            // made, and then late bytes come out of the old one.
            Kind::Freeze if random.below(4) == 0 => {
                Self::Swallow(silence.saturating_add(random.millis(200, 1_000)))
            }
            Kind::Freeze => Self::Freeze(random.millis(50, 400)),
            Kind::Delay => Self::Delay {
                lasts: random.millis(200, 800),
                by: random.millis(5, 40),
            },
            Kind::Refuse => Self::Refuse(random.millis(50, 400)),
            Kind::Restart => Self::Restart(random.millis(0, 300)),
            Kind::Kill => Self::Kill(random.millis(0, 300)),
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
            Self::Swallow(lasts) => write!(f, "swallowed for {lasts:?}"),
            Self::Delay { lasts, by } => write!(f, "delayed by {by:?} for {lasts:?}"),
            Self::Refuse(lasts) => write!(f, "cut, and refused for {lasts:?}"),
            Self::Restart(after) => write!(f, "server killed, started again after {after:?}"),
            Self::Kill(after) => write!(f, "client killed, started again after {after:?}"),
            Self::Slow(Direction::Up, lasts) => {
                write!(f, "the server's application receives nothing for {lasts:?}")
            }
            Self::Slow(Direction::Down, lasts) => {
                write!(f, "the client's application receives nothing for {lasts:?}")
            }
        }
    }
}

/// A fault and its place: after this many bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) direction: Direction,
    pub(crate) offset: u64,
    pub(crate) action: Action,
}

/// The remaining faults, and the progress of each direction.
///
/// Places are byte offsets, not times, so that all faults strike, however fast the run is.
#[derive(Debug)]
pub(crate) struct Schedule {
    moved: [u64; 2],
    /// By direction, in the order of their offsets.
    coming: [VecDeque<Fault>; 2],
}

/// After this share of a direction's bytes no fault strikes, so that the run sees the end of the
/// last one.
const LAST_FAULT_PERCENT: u64 = 95;

impl Schedule {
    /// Draws `count` faults of these kinds over this many bytes in each direction. `silence` is the
    /// silence timeout of the peers. The same arguments always give the same faults.
    pub(crate) fn draw(
        kinds: &[Kind],
        count: usize,
        bytes: [u64; 2],
        silence: Duration,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let mut coming = [VecDeque::new(), VecDeque::new()];
        let mut kinds_left = Vec::new();
        let both = bytes[0].saturating_add(bytes[1]).max(1);
        for number in 0..count as u64 {
            if kinds_left.is_empty() {
                kinds_left = kinds.to_vec();
            }
            if kinds_left.is_empty() {
                break;
            }
            let kind = kinds_left.swap_remove(random.below(kinds_left.len() as u64) as usize);
            // A direction with more bytes gets more of the faults.
            let down = random.below(both) >= bytes[0];
            let direction = Direction::BOTH[usize::from(down)];
            // Each fault has a stretch of its own, so that they are spread out but can strike
            // anywhere.
            let span = bytes[direction.index()] / 100 * LAST_FAULT_PERCENT;
            let stretch = span / count as u64;
            let offset = number * stretch + random.below(stretch.max(1));
            let action = Action::draw(kind, direction, silence, &mut random);
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

    /// How many of the next `len` bytes pass before a fault strikes, and the fault.
    pub(crate) fn pass(&mut self, direction: Direction, len: usize) -> (usize, Option<Fault>) {
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

/// Random numbers from a seed.
#[derive(Debug)]
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
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

    const SILENCE: Duration = Duration::from_secs(1);

    #[test]
    fn a_seed_gives_the_same_faults_and_another_seed_others() {
        let drawn = |seed| Schedule::draw(&Kind::ALL, 60, [1 << 20; 2], SILENCE, seed).coming;
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        for kind in Kind::ALL {
            let one = Schedule::draw(&[kind], 5, [1 << 20; 2], SILENCE, 1).coming;
            assert_eq!(one[0].len() + one[1].len(), 5);
        }
    }

    #[test]
    fn each_fault_strikes_at_its_byte_whatever_the_pieces_are() {
        for piece in [1, 7, 1000, 1 << 20] {
            let mut schedule = Schedule::draw(&[Kind::Cut], 40, [100_000; 2], SILENCE, 3);
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
    fn a_direction_without_bytes_gets_no_faults() {
        let drawn = Schedule::draw(&[Kind::Cut], 12, [0, 1 << 20], SILENCE, 9).coming;
        assert_eq!((drawn[0].len(), drawn[1].len()), (0, 12));
    }

    #[test]
    fn a_run_without_faults_or_of_few_bytes_is_no_panic() {
        let mut none = Schedule::draw(&[], 20, [1000; 2], SILENCE, 1);
        assert_eq!(none.pass(Direction::Up, 9), (9, None));
        let mut tiny = Schedule::draw(&Kind::ALL, 20, [3, 0], SILENCE, 1);
        for direction in Direction::BOTH {
            while tiny.pass(direction, 3).1.is_some() {}
        }
    }
}
