//! PING, and the time until it is answered.

use std::time::Duration;

use crate::time::Time;

/// The last PING of this side.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Ping {
    number: u64,
    owed: bool,
    sent: Option<Time>,
}

impl Ping {
    /// A new PING is to be sent. The last one is forgotten.
    pub(crate) fn ask(&mut self) {
        self.owed = true;
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.owed
    }

    /// PING is sent, with this number.
    pub(crate) fn send(&mut self, now: Time) -> u64 {
        self.owed = false;
        self.sent = Some(now);
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// The peer has answered the PING with that number. Returns how long it took, if it was the
    /// last one.
    pub(crate) fn answer(&mut self, now: Time, number: u64) -> Option<Duration> {
        if number != self.number {
            return None;
        }
        self.sent.take().map(|sent| now.since(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_last_ping_counts_and_only_once() {
        let mut ping = Ping::default();
        ping.ask();
        let first = ping.send(Time::from_millis(1));
        let second = ping.send(Time::from_millis(5));
        assert_eq!(ping.answer(Time::from_millis(7), first), None);
        assert_eq!(
            ping.answer(Time::from_millis(8), second),
            Some(Duration::from_millis(3))
        );
        assert_eq!(ping.answer(Time::from_millis(9), second), None);
    }
}
