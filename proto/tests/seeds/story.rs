//! The story of a world: faults and applications at random, then the link heals, and the end.

use std::time::Duration;

use unstall_proto::{CloseFrame, EndReason, Time};

use crate::world::{CLIENT, Tally, World, log};

/// How long after the healing everything is delivered at the latest: 3 s until a dead connection
/// is noticed, 2.2 s for a handshake that is given up, and the data over a slow link.
const HEALED: Duration = Duration::from_secs(20);

/// How long a close takes at most when nothing is in its way.
const CLOSED: Duration = Duration::from_secs(10);

/// The longest deadline that a close can name: all must end long before.
const TEN_YEARS: Duration = Duration::from_millis(315_360_000_000);

impl World {
    /// Lives through the whole story.
    pub fn live(mut self) -> Tally {
        for _ in 0..self.plan.acts {
            self.act();
            let most = match self.plan.cruel && self.random.chance(10) {
                true => 5_000,
                false => 60,
            };
            let until = self.soon(most);
            self.run_until(until);
        }
        self.heal();
        self.settle();
        self.finish();
        self.check_end();
        self.tally
    }

    /// What happens by itself until then.
    fn run_until(&mut self, until: Time) {
        while let Some(at) = self.next_time().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// What happens by itself until `done`, which must be by `deadline`.
    fn run_until_done(&mut self, what: &str, done: fn(&World) -> bool, deadline: Time) {
        while !done(self) {
            let Some(at) = self.next_time() else {
                panic!("{what}: nothing will ever happen again");
            };
            assert!(at <= deadline, "{what}: not by {deadline:?}");
            self.now = self.now.max(at);
            self.step();
        }
    }

    /// One side, if it is there.
    fn anyone(&mut self) -> usize {
        match (self.random.chance(50), self.held) {
            (true, Some(server)) => server,
            _ => CLIENT,
        }
    }

    fn act(&mut self) {
        let who = self.anyone();
        if self.random.chance(self.plan.cuts) {
            return self.break_something();
        }
        match self.random.below(100) {
            0..40 => self.burst(who),
            40..55 => {
                let runs = self.random.chance(60);
                log!(self, "the application of {who} runs: {runs}");
                self.ends[who].application.runs = runs;
                self.after(who);
            }
            55..58 if self.plan.closes => self.close(who, 5_000),
            58..66 if self.plan.cruel => self.be_cruel(who),
            58..92 => self.burst(who),
            _ => self.tease(who),
        }
    }

    /// Something goes wrong with the link.
    fn break_something(&mut self) {
        let count = self.wires.len() as u64;
        let pick = (count > 0).then(|| self.random.below(count.max(1)) as usize);
        match (self.random.below(10), pick) {
            (0..4, Some(index)) => {
                log!(self, "connection {} breaks", self.wires[index].client);
                self.wires[index].break_down(self.now, &mut self.random);
            }
            (4, Some(index)) => self.wires[index].fuse = Some(1 + self.random.below(8)),
            (5, Some(index)) => self.lose(index, true),
            (6, Some(index)) => self.lose(index, false),
            (7, _) => self.offline_until = self.soon(400),
            // The client connects again while the old connection lives.
            _ => self.reconnect_at = Some(self.soon(20)),
        }
    }

    /// Something goes wrong with the session.
    fn be_cruel(&mut self, who: usize) {
        match self.random.below(8) {
            0..3 => self.restart(),
            3 => self.full_until = self.soon(300),
            4 | 5 => self.offline_until = self.soon(6_000),
            _ => {
                log!(self, "{who} is aborted");
                self.ends[who].closes = true;
                self.ends[who].session.abort("evicted");
                self.after(who);
            }
        }
    }

    /// Calls that must do no harm.
    fn tease(&mut self, who: usize) {
        match self.random.below(4) {
            0 => self.ends[who].session.ping(),
            1 => self.ends[who].session.handle_timeout(self.now),
            2 => {
                let taken = self.ends[who].application.taken;
                assert!(self.ends[who].session.taken(self.now, taken));
            }
            _ => {
                let window = Duration::from_millis(50);
                self.ends[who].session.go_away(window, "elsewhere");
            }
        }
        self.after(who);
    }

    fn close(&mut self, who: usize, most: u64) {
        let within = match self.random.chance(20) {
            true => TEN_YEARS,
            false => Duration::from_millis(self.random.below(most)),
        };
        log!(self, "{who} closes within {within:?}");
        let end = &mut self.ends[who];
        end.closes = true;
        end.application.waits = None;
        let frame = CloseFrame::new(1000, "done");
        end.session.close(self.now, frame, within);
        self.after(who);
    }

    /// No more faults, and both applications run. A connection that works goes on: it must not
    /// need a resume to come to its senses.
    fn heal(&mut self) {
        log!(self, "the link heals");
        self.healed = true;
        self.offline_until = self.now;
        self.full_until = self.now;
        for wire in &mut self.wires {
            wire.fuse = None;
            if wire.lost {
                wire.break_down(self.now, &mut self.random);
            }
        }
        for who in 0..self.ends.len() {
            self.ends[who].application.runs = true;
            if !self.ends[who].vanished {
                self.after(who);
            }
        }
    }

    /// Everything is delivered within bounded time, or the session ends on all sides.
    fn settle(&mut self) {
        let healed = self.now;
        let first = |world: &World| world.is_well() || world.ends[CLIENT].ended.is_some();
        self.run_until_done("delivering", first, self.now.after(HEALED));
        if self.is_well() {
            self.tally.slowest_millis = self.now.since(healed).as_millis() as u64;
        }
        // A server learns by its own timers that a client will not come back.
        let life = self.plan.server_life() + HEALED;
        self.run_until_done("ending", World::is_quiet, self.now.after(life));
    }

    /// The session lives, is connected, and has delivered everything.
    fn is_well(&self) -> bool {
        let ending = |who: usize| {
            let end = &self.ends[who];
            end.vanished || end.closes || end.ended.is_some()
        };
        let sound = |who: usize| !ending(who) && self.ends[who].session.is_attached();
        let connected = !self.wires.iter().any(|wire| wire.cut && !wire.is_gone());
        connected && sound(CLIENT) && self.peer.is_some_and(sound) && self.all_delivered()
    }

    /// Each session that is not well has ended on all its sides.
    fn is_quiet(&self) -> bool {
        let well = self.is_well();
        let live = |who: usize| {
            let end = &self.ends[who];
            let kept = well && (who == CLIENT || Some(who) == self.peer);
            !kept && !end.vanished && end.ended.is_none()
        };
        let mut all = 0..self.ends.len();
        !all.any(live) && (well || self.is_drained())
    }

    /// The applications have all that there is for them.
    fn is_drained(&self) -> bool {
        self.ends
            .iter()
            .filter(|end| !end.vanished)
            .all(|end| end.application.held.is_empty() && end.application.end.is_some())
    }

    /// A live session closes; all get the last word.
    fn finish(&mut self) {
        if self.ends[CLIENT].ended.is_none() {
            let who = self.anyone();
            let frame = CloseFrame::new(1000, "the end");
            let within = Duration::from_secs(60);
            log!(self, "{who} closes at last");
            self.ends[who].session.close(self.now, frame, within);
            self.after(who);
            let over = |world: &World| {
                let over = |who: usize| world.ends[who].session.is_over();
                over(CLIENT) && world.peer.is_none_or(over) && world.is_drained()
            };
            self.run_until_done("closing", over, self.now.after(CLOSED));
            for who in [Some(CLIENT), self.peer].into_iter().flatten() {
                let reason = &self.ends[who].ended;
                let clean = matches!(reason, Some(EndReason::Closed(_)));
                assert!(clean, "{who}: nothing was in the way: {reason:?}");
            }
        }
        let over = |world: &World| {
            let there = world.ends.iter().filter(|end| !end.vanished);
            there.into_iter().all(|end| end.session.is_over())
        };
        let life = self.plan.server_life() + HEALED;
        self.run_until_done("leaving", over, self.now.after(life));
    }
}
