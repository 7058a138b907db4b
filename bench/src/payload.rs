//! What is sent, and the proof that it arrived.

use bytes::Bytes;

use crate::{Result, contestants::tick};

/// A message of this length is a word between the workers. Payloads are longer.
const WORD_BYTES: usize = 4;

/// How many ticks there are. When there were 61, a processor knew each by heart, down to the last branch of the
/// compressor: it compressed them faster than new ones, if each was compressed by itself. The Python worker has
/// the same number.
const DISTINCT_TICKS: usize = 1_009;

/// Distinct payloads of one size, which are sent again and again. They are made before the measured part.
pub(crate) struct Payloads {
    ring: Vec<Bytes>,
    next: usize,
}

impl Payloads {
    pub(crate) fn new(size: usize) -> Payloads {
        assert!(size > WORD_BYTES, "payloads of {size} bytes");
        // They are few, so that they stay in the cache, and more than one, so that a wrong order shows.
        let places = ((256 << 10) / size).clamp(2, 61);
        let payload = |place: usize| (0..size).map(|at| (place * 7 + at * 31) as u8).collect();
        Payloads {
            ring: (0..places).map(payload).collect(),
            next: 0,
        }
    }

    /// Ticks of JSON, each of this size.
    pub(crate) fn ticks(size: usize) -> Payloads {
        Payloads {
            ring: (0..DISTINCT_TICKS).map(|place| tick(place, size)).collect(),
            next: 0,
        }
    }

    pub(crate) fn next(&mut self) -> &Bytes {
        let payload = &self.ring[self.next];
        self.next += 1;
        if self.next == self.ring.len() {
            self.next = 0;
        }
        payload
    }

    /// The length of each.
    pub(crate) fn size(&self) -> usize {
        self.ring[0].len()
    }

    pub(crate) fn next_many(&mut self, count: u64) -> impl Iterator<Item = &Bytes> {
        let first = self.next;
        self.next = ((first as u64 + count) % self.ring.len() as u64) as usize;
        self.ring.iter().cycle().skip(first).take(count as usize)
    }
}

/// Whether this is a word between the workers.
pub(crate) fn is_word(message: &[u8]) -> bool {
    message.len() == WORD_BYTES
}

/// A word between the workers.
pub(crate) fn word() -> Bytes {
    Bytes::from_static(&[0; WORD_BYTES])
}

/// What arrived: counted, touched, summed up in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) words: u64,
    bytes: u64,
    sum: u64,
}

impl Tally {
    /// What the application does with each message: it reads both ends and the length.
    #[inline]
    pub(crate) fn take(&mut self, payload: &[u8]) {
        if is_word(payload) {
            self.words += 1;
            return;
        }
        let ends = match payload {
            [first, .., last] => u64::from(*first) << 8 | u64::from(*last),
            _ => 0,
        };
        self.messages += 1;
        self.bytes += payload.len() as u64;
        self.sum = self.sum.rotate_left(5) ^ ends;
    }

    /// Fails unless exactly the first `count` payloads of `size` bytes arrived, in order.
    pub(crate) fn verify(&self, size: usize, count: u64) -> Result<()> {
        self.verify_as(Payloads::new(size), count)
    }

    /// The same, of these payloads.
    pub(crate) fn verify_as(&self, mut payloads: Payloads, count: u64) -> Result<()> {
        self.verify_messages((0..count).map(|_| payloads.next().clone()))
    }

    /// The same, of these messages.
    pub(crate) fn verify_messages(
        &self,
        messages: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<()> {
        let mut sent = Tally::default();
        for message in messages {
            sent.take(message.as_ref());
        }
        sent.words = self.words;
        if *self == sent {
            return Ok(());
        }
        Err(format!("received {self:?}, sent was {sent:?}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(payloads: impl IntoIterator<Item = Bytes>) -> Tally {
        let mut tally = Tally::default();
        payloads
            .into_iter()
            .for_each(|payload| tally.take(&payload));
        tally
    }

    #[test]
    fn loss_doubling_and_disorder_are_found() {
        let mut payloads = Payloads::new(64);
        let sent: Vec<_> = (0..1000).map(|_| payloads.next().clone()).collect();
        assert!(tally(sent.clone()).verify(64, 1000).is_ok());
        let mut lost = sent.clone();
        lost.remove(500);
        assert!(tally(lost).verify(64, 1000).is_err());
        let mut doubled = sent.clone();
        doubled[500] = doubled[499].clone();
        assert!(tally(doubled).verify(64, 1000).is_err());
        let mut swapped = sent;
        swapped.swap(500, 501);
        assert!(tally(swapped).verify(64, 1000).is_err());
    }
}
