//! What is published and has no answer yet: what is sent next, what is sent again, and what is given
//! up. It knows no socket and no clock; the caller brings the time.
//!
//! Messages are sent in order, many at a time. When it shows that the stream has no leader (an answer
//! says so, no answer comes, the connection is lost), nothing more is sent but a *probe*: the oldest
//! message without an answer, again and again. Once it is stored, all others without an answer are
//! sent again, in order, and then new ones. So what was lost is stored before what comes later, unless
//! a new leader took later messages that were already on their way.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use unstall_proto::topics::{Offset, Refusal};

use super::limits::{OVERDUE, PROBE_INTERVAL, SILENCE, WINDOW_BYTES, WINDOW_MESSAGES};

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is stored.
    Stored(Offset),
    /// A message of this id was stored already.
    Before(Option<Offset>),
    /// It is not stored, or nobody knows.
    Refused(Refusal),
}

/// What was said about one sending of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The server's final word.
    Answer(Answer),
    /// Nobody took it: it is not stored, and can be sent again.
    NotTaken,
    /// It may be stored or not, and can be sent again.
    Unclear,
}

/// Names one sending of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// Counts from 0, over all messages.
    pub(super) number: u64,
    /// Grows whenever sending began anew. What is said about an older round says nothing about the
    /// leader of now.
    pub(super) round: u32,
}

#[derive(Debug)]
struct Flight<T> {
    message: T,
    bytes: usize,
    /// When it is given up.
    deadline: Instant,
    sent_at: Option<Instant>,
    sendings: u32,
    /// Sendings that nothing was said about, any of which may be stored.
    unsettled: u32,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Flowing,
    /// The time of the next probe.
    Probing(Instant),
}

/// Messages without an answer, in order.
#[derive(Debug)]
pub(super) struct Window<T> {
    flights: VecDeque<Flight<T>>,
    /// The number of the first of them.
    first: u64,
    /// How many of them were sent in this round.
    cursor: usize,
    /// Of those behind nothing else: sent in this round and without an answer.
    under_way: usize,
    under_way_bytes: usize,
    phase: Phase,
    round: u32,
    /// When something was stored last, or sending began.
    progress: Instant,
    give_up: Duration,
}

impl<T> Window<T> {
    pub(super) fn new(give_up: Duration, now: Instant) -> Window<T> {
        Window {
            flights: VecDeque::new(),
            first: 0,
            cursor: 0,
            under_way: 0,
            under_way_bytes: 0,
            phase: Phase::Flowing,
            round: 0,
            progress: now,
            give_up,
        }
    }

    /// A message is to be published, unless its answer is known already.
    pub(super) fn push(&mut self, message: T, bytes: usize, answer: Option<Answer>, now: Instant) {
        self.flights.push_back(Flight {
            message,
            bytes,
            deadline: now + self.give_up,
            sent_at: None,
            sendings: 0,
            unsettled: 0,
            answer,
        });
    }

    /// The next message to be sent, if one is. It counts as sent.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Sending, &T)> {
        let at = match self.phase {
            Phase::Flowing => self.next_in_order(now)?,
            Phase::Probing(at) if at <= now => {
                self.phase = Phase::Probing(now + PROBE_INTERVAL);
                self.flights
                    .iter()
                    .position(|flight| flight.answer.is_none())?
            }
            Phase::Probing(_) => return None,
        };
        let sending = Sending {
            number: self.first + at as u64,
            round: self.round,
        };
        let flight = &mut self.flights[at];
        flight.sent_at = Some(now);
        flight.sendings += 1;
        flight.unsettled += 1;
        Some((sending, &flight.message))
    }

    fn next_in_order(&mut self, now: Instant) -> Option<usize> {
        while self.flights.get(self.cursor)?.answer.is_some() {
            self.cursor += 1;
        }
        let bytes = self.flights[self.cursor].bytes;
        let full = self.under_way >= WINDOW_MESSAGES || self.under_way_bytes + bytes > WINDOW_BYTES;
        // A message that is larger than the window goes alone.
        if full && self.under_way > 0 {
            return None;
        }
        if self.under_way == 0 {
            self.progress = now;
        }
        self.under_way += 1;
        self.under_way_bytes += bytes;
        self.cursor += 1;
        Some(self.cursor - 1)
    }

    /// Something was said about a sending.
    pub(super) fn heard(&mut self, sending: Sending, said: Said, now: Instant) {
        let Some(at) = sending.number.checked_sub(self.first).map(|at| at as usize) else {
            return;
        };
        let Some(flight) = self.flights.get_mut(at) else {
            return;
        };
        match said {
            Said::Answer(_) | Said::NotTaken => {
                flight.unsettled = flight.unsettled.saturating_sub(1)
            }
            // It is settled when the message is.
            Said::Unclear => {}
        }
        if flight.answer.is_some() {
            return;
        }
        match said {
            Said::Answer(answer) => {
                flight.answer = Some(match answer {
                    // It was this window's own earlier sending.
                    Answer::Before(Some(offset)) if flight.sendings > 1 => Answer::Stored(offset),
                    answer => answer,
                });
                self.settled(at);
                self.progress = now;
                let is_probe = self
                    .flights
                    .iter()
                    .take(at)
                    .all(|flight| flight.answer.is_some());
                if is_probe && self.phase != Phase::Flowing {
                    self.begin_anew();
                }
            }
            Said::NotTaken | Said::Unclear if sending.round == self.round => self.probe(now),
            Said::NotTaken | Said::Unclear => {}
        }
    }

    /// A message that was under way in this round is so no longer.
    fn settled(&mut self, at: usize) {
        if at < self.cursor && self.phase == Phase::Flowing {
            self.under_way -= 1;
            self.under_way_bytes -= self.flights[at].bytes;
        }
    }

    /// The leader took the probe, so everything without an answer is sent again.
    fn begin_anew(&mut self) {
        self.phase = Phase::Flowing;
        self.round += 1;
        self.cursor = 0;
    }

    fn probe(&mut self, now: Instant) {
        if self.phase == Phase::Flowing {
            self.phase = Phase::Probing(now + PROBE_INTERVAL);
            self.round += 1;
            self.cursor = 0;
            self.under_way = 0;
            self.under_way_bytes = 0;
        }
    }

    /// The connection is lost, and with it all that was under way.
    pub(super) fn connection_lost(&mut self, now: Instant) {
        self.probe(now);
    }

    /// There is a new connection, so a probe can go at once.
    pub(super) fn connected(&mut self, now: Instant) {
        if self.phase != Phase::Flowing {
            self.phase = Phase::Probing(now);
        }
    }

    /// Time has passed: what is late makes it probe, and what is too late is given up.
    pub(super) fn tick(&mut self, now: Instant) {
        for at in 0..self.flights.len() {
            let flight = &mut self.flights[at];
            if flight.answer.is_some() {
                continue;
            }
            // Deadlines grow from the first to the last.
            if flight.deadline > now {
                break;
            }
            let refusal = match flight.unsettled {
                0 => Refusal::Unavailable,
                _ => Refusal::Unknown,
            };
            flight.answer = Some(Answer::Refused(refusal));
            self.settled(at);
        }
        if self.phase == Phase::Flowing && self.late().is_some_and(|late| late <= now) {
            self.probe(now);
        }
    }

    /// When a message that is under way is late.
    fn late(&self) -> Option<Instant> {
        if self.under_way == 0 {
            return None;
        }
        let oldest = self.flights.iter().find(|flight| flight.answer.is_none())?;
        let overdue = oldest.sent_at? + OVERDUE;
        Some(overdue.min(self.progress + SILENCE))
    }

    /// When [`tick`](Self::tick) or [`next`](Self::next) has something to do, if nothing is heard.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let oldest = self.flights.iter().find(|flight| flight.answer.is_none())?;
        let mut at = oldest.deadline;
        match self.phase {
            Phase::Flowing => at = self.late().map_or(at, |late| late.min(at)),
            Phase::Probing(probe) => at = at.min(probe),
        }
        Some(at)
    }

    /// Takes the first message, if it has its answer. So answers come in order.
    pub(super) fn pop(&mut self) -> Option<(T, Answer)> {
        let answer = self.flights.front()?.answer?;
        let flight = self.flights.pop_front()?;
        self.first += 1;
        self.cursor = self.cursor.saturating_sub(1);
        Some((flight.message, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVE_UP: Duration = Duration::from_secs(20);

    fn window(count: u32) -> (Window<u32>, Instant) {
        let now = Instant::now();
        let mut window = Window::new(GIVE_UP, now);
        (0..count).for_each(|message| window.push(message, 100, None, now));
        (window, now)
    }

    /// All that is to be sent now.
    fn send(window: &mut Window<u32>, now: Instant) -> Vec<(Sending, u32)> {
        std::iter::from_fn(|| {
            window
                .next(now)
                .map(|(sending, &message)| (sending, message))
        })
        .collect()
    }

    fn messages(sent: &[(Sending, u32)]) -> Vec<u32> {
        sent.iter().map(|&(_, message)| message).collect()
    }

    fn stored(number: u64) -> Said {
        Said::Answer(Answer::Stored(Offset::new(number + 1).unwrap()))
    }

    #[test]
    fn answers_come_in_order_whatever_order_they_arrive_in() {
        let (mut window, now) = window(3);
        let sent = send(&mut window, now);
        assert_eq!(messages(&sent), [0, 1, 2]);
        window.heard(sent[2].0, stored(2), now);
        window.heard(sent[1].0, stored(1), now);
        assert_eq!(window.pop(), None);
        window.heard(sent[0].0, stored(0), now);
        let popped: Vec<u32> = std::iter::from_fn(|| window.pop())
            .map(|(m, _)| m)
            .collect();
        assert_eq!(popped, [0, 1, 2]);
    }

    #[test]
    fn no_more_than_a_window_is_under_way() {
        let count = WINDOW_MESSAGES as u32 + 10;
        let (mut window, now) = window(count);
        let sent = send(&mut window, now);
        assert_eq!(sent.len(), WINDOW_MESSAGES);
        window.heard(sent[0].0, stored(0), now);
        assert_eq!(messages(&send(&mut window, now)), [WINDOW_MESSAGES as u32]);
    }

    #[test]
    fn a_message_larger_than_the_window_goes_alone() {
        let now = Instant::now();
        let mut window = Window::new(GIVE_UP, now);
        window.push(0, 2 * WINDOW_BYTES, None, now);
        window.push(1, 1, None, now);
        let sent = send(&mut window, now);
        assert_eq!(messages(&sent), [0]);
        window.heard(sent[0].0, stored(0), now);
        assert_eq!(messages(&send(&mut window, now)), [1]);
    }

    #[test]
    fn without_a_leader_only_the_oldest_is_tried_and_the_rest_follows_in_order() {
        let (mut window, now) = window(4);
        let sent = send(&mut window, now);
        window.heard(sent[1].0, stored(1), now);
        window.heard(sent[0].0, Said::NotTaken, now);
        assert_eq!(messages(&send(&mut window, now)), [] as [u32; 0]);
        let later = now + PROBE_INTERVAL;
        let probe = send(&mut window, later);
        assert_eq!(messages(&probe), [0]);
        window.push(4, 100, None, later);
        window.heard(probe[0].0, stored(5), later);
        // 1 is stored; what is new comes behind what was lost.
        assert_eq!(messages(&send(&mut window, later)), [2, 3, 4]);
    }

    #[test]
    fn silence_and_a_lost_connection_are_probed_as_a_refusal_is() {
        let (mut window, now) = window(2);
        send(&mut window, now);
        let late = window.wake_at().unwrap();
        assert_eq!(late, now + SILENCE);
        window.tick(late);
        assert_eq!(messages(&send(&mut window, late + PROBE_INTERVAL)), [0]);

        let (mut window, now) = self::window(2);
        send(&mut window, now);
        window.connection_lost(now);
        window.connected(now);
        assert_eq!(messages(&send(&mut window, now)), [0]);
    }

    #[test]
    fn one_lost_message_among_answered_ones_is_overdue() {
        let (mut window, now) = window(100);
        let sent = send(&mut window, now);
        let mut at = now;
        for (sending, _) in &sent[1..] {
            at += Duration::from_millis(100);
            window.tick(at);
            window.heard(*sending, stored(sending.number), at);
        }
        let probe = send(&mut window, at + PROBE_INTERVAL);
        assert_eq!(messages(&probe), [0]);
    }

    #[test]
    fn a_duplicate_of_an_own_sending_is_stored_and_that_of_another_was_there_before() {
        let before = Said::Answer(Answer::Before(Offset::new(9)));
        let (mut window, now) = window(1);
        let sent = send(&mut window, now);
        window.heard(sent[0].0, before, now);
        assert_eq!(window.pop(), Some((0, Answer::Before(Offset::new(9)))));

        let (mut window, now) = self::window(1);
        send(&mut window, now);
        window.connection_lost(now);
        window.connected(now);
        let again = send(&mut window, now);
        window.heard(again[0].0, before, now);
        assert_eq!(
            window.pop(),
            Some((0, Answer::Stored(Offset::new(9).unwrap())))
        );
    }

    #[test]
    fn what_is_given_up_is_unknown_only_if_a_sending_may_have_been_stored() {
        let (mut window, now) = window(2);
        let first = window.next(now).map(|(sending, _)| sending).unwrap();
        window.heard(first, Said::NotTaken, now);
        let late = now + GIVE_UP;
        window.tick(late);
        let unavailable = Answer::Refused(Refusal::Unavailable);
        assert_eq!(window.pop(), Some((0, unavailable)));
        assert_eq!(window.pop(), Some((1, unavailable)));

        let (mut window, now) = self::window(1);
        let sent = send(&mut window, now);
        window.heard(sent[0].0, Said::Unclear, now);
        window.tick(now + GIVE_UP);
        assert_eq!(window.pop(), Some((0, Answer::Refused(Refusal::Unknown))));
    }

    #[test]
    fn what_is_said_about_an_older_round_does_not_stop_the_new_one() {
        let (mut window, now) = window(3);
        let sent = send(&mut window, now);
        window.connection_lost(now);
        window.connected(now);
        let probe = send(&mut window, now);
        window.heard(probe[0].0, stored(0), now);
        let again = send(&mut window, now);
        assert_eq!(messages(&again), [1, 2]);
        window.heard(sent[1].0, Said::NotTaken, now);
        window.push(3, 100, None, now);
        assert_eq!(messages(&send(&mut window, now)), [3]);
        // An answer counts whichever sending it is about.
        window.heard(sent[2].0, stored(2), now);
        window.heard(again[0].0, stored(1), now);
        assert_eq!(window.pop().map(|(message, _)| message), Some(0));
        assert_eq!(window.pop().map(|(message, _)| message), Some(1));
        assert_eq!(window.pop().map(|(message, _)| message), Some(2));
        assert_eq!(window.pop(), None);
    }

    /// Whatever is lost, refused or late, each message has one answer, in order, and the count of what
    /// is under way comes out even.
    #[test]
    fn every_message_is_answered_once_in_order_over_random_failures() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut window = Window::new(GIVE_UP, now);
            let (mut pushed, mut popped) = (0, 0);
            let mut on_the_wire = Vec::new();
            while popped < 500 {
                if pushed < 500 {
                    window.push(pushed, 100, None, now);
                    pushed += 1;
                }
                on_the_wire.extend(
                    send(&mut window, now)
                        .into_iter()
                        .map(|(sending, _)| sending),
                );
                match random.u32(..20) {
                    0 => {
                        on_the_wire.clear();
                        window.connection_lost(now);
                        window.connected(now);
                    }
                    1..5 if !on_the_wire.is_empty() => {
                        on_the_wire.swap_remove(random.usize(..on_the_wire.len()));
                    }
                    5 if !on_the_wire.is_empty() => {
                        let sending = on_the_wire.swap_remove(random.usize(..on_the_wire.len()));
                        window.heard(sending, Said::NotTaken, now);
                    }
                    6..16 if !on_the_wire.is_empty() => {
                        let sending = on_the_wire.remove(0);
                        window.heard(sending, stored(sending.number), now);
                    }
                    _ => {
                        now = window.wake_at().map_or(now, |at| at.max(now));
                        window.tick(now);
                    }
                }
                while let Some((message, _)) = window.pop() {
                    assert_eq!(message, popped, "seed {seed}");
                    popped += 1;
                }
            }
            assert_eq!(window.under_way, 0, "seed {seed}");
            assert_eq!(window.under_way_bytes, 0, "seed {seed}");
        }
    }
}
