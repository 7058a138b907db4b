//! Every timer of a session, in one place.

use std::time::Duration;

use crate::time::Time;

/// The timers of a session. Each wakes it for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Messages that were taken are to be acknowledged.
    AckDelay,
    /// HELLO was not answered: the connection is given up.
    Handshake,
    /// The session was without a connection for too long.
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

/// The moment at which each timer fires, if it runs.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Timers([Option<Time>; Timer::ALL.len()]);

impl Timers {
    /// Starts the timer. One that runs already starts anew.
    pub(crate) fn set(&mut self, timer: Timer, now: Time, after: Duration) {
        self.0[timer as usize] = Some(now.after(after));
    }

    /// Starts the timer unless it runs already.
    pub(crate) fn start(&mut self, timer: Timer, now: Time, after: Duration) {
        self.0[timer as usize].get_or_insert(now.after(after));
    }

    /// Starts the timer, or lets it fire earlier.
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

    /// The moment at which the next timer fires.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops and returns the first timer that has fired by `now`.
    pub(crate) fn expired(&mut self, now: Time) -> Option<Timer> {
        let set = Timer::ALL.into_iter().filter_map(|timer| {
            let at = self.0[timer as usize]?;
            Some((at, timer))
        });
        let (_, timer) = set.filter(|(at, _)| *at <= now).min_by_key(|(at, _)| *at)?;
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

    #[test]
    fn timers_that_are_looked_at_late_fire_in_their_order() {
        // Once a close that timed out long before the session expired was reported as expired.
        let mut timers = Timers::default();
        timers.set(Timer::Expiry, Time::ORIGIN, Duration::from_secs(120));
        timers.set(Timer::Close, Time::ORIGIN, Duration::from_secs(5));
        let late = Time::from_millis(999_999);
        assert_eq!(timers.expired(late), Some(Timer::Close));
        assert_eq!(timers.expired(late), Some(Timer::Expiry));
        assert_eq!(timers.expired(late), None);
    }
}
