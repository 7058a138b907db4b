//! Every timer of a session, in one place.

use std::time::Duration;

use crate::time::Time;

/// What a timer wakes the session for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Taken messages have waited long enough for their acknowledgement.
    AckDelay,
    /// HELLO was not answered: the connection is of no use.
    Handshake,
    /// The session was without a connection for its whole life.
    Expiry,
    /// The close was not completed in time.
    Close,
}

impl Timer {
    const ALL: [Timer; 4] = [
        Timer::AckDelay,
        Timer::Handshake,
        Timer::Expiry,
        Timer::Close,
    ];
}

/// The moments at which the timers fire.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Timers([Option<Time>; Timer::ALL.len()]);

impl Timers {
    /// Sets the timer to `after` from now, also when it was set already.
    pub(crate) fn set(&mut self, timer: Timer, now: Time, after: Duration) {
        self.0[timer as usize] = Some(now.after(after));
    }

    /// Sets the timer unless it runs already.
    pub(crate) fn start(&mut self, timer: Timer, now: Time, after: Duration) {
        self.0[timer as usize].get_or_insert(now.after(after));
    }

    /// Sets the timer to `after` from now if that is earlier.
    pub(crate) fn shorten(&mut self, timer: Timer, now: Time, after: Duration) {
        let at = now.after(after);
        let slot = &mut self.0[timer as usize];
        *slot = Some(slot.map_or(at, |set| set.min(at)));
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn stop_all(&mut self) {
        self.0 = Default::default();
    }

    /// The earliest moment at which a timer fires.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that has fired by `now`.
    pub(crate) fn expired(&mut self, now: Time) -> Option<Timer> {
        let timer = Timer::ALL
            .into_iter()
            .find(|t| self.0[*t as usize].is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_its_moment() {
        let mut timers = Timers::default();
        let now = Time::from_millis(5);
        timers.set(Timer::Expiry, now, Duration::from_millis(10));
        timers.start(Timer::AckDelay, now, Duration::from_millis(3));
        timers.start(Timer::AckDelay, now, Duration::from_millis(1));
        assert_eq!(timers.next(), Some(Time::from_millis(8)));
        assert_eq!(timers.expired(Time::from_millis(7)), None);
        assert_eq!(timers.expired(Time::from_millis(8)), Some(Timer::AckDelay));
        assert_eq!(timers.expired(Time::from_millis(8)), None);
        assert_eq!(timers.expired(Time::from_millis(99)), Some(Timer::Expiry));
        assert_eq!(timers.next(), None);
    }
}
