//! Random bits.

use std::time::{SystemTime, UNIX_EPOCH};

use unstall_proto::topics::Publisher;

/// 128 bits from the generator of the operating system.
///
/// # Panics
/// If the operating system has no random numbers to give.
pub(crate) fn bits() -> [u8; 16] {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the operating system has random numbers");
    bits
}

/// A publisher that nobody else is.
pub(crate) fn publisher() -> Publisher {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Publisher {
        id: bits(),
        epoch: u64::try_from(micros).unwrap_or(u64::MAX).max(1),
    }
}
