//! Messages that tell their number and when they were made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) fn stamped(number: u32, size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(size);
    message.put_u32(number);
    message.put_u64(now().as_nanos() as u64);
    message.resize(size, 7);
    message.freeze()
}

pub(crate) fn look_at(mut message: &[u8]) -> (u32, Duration) {
    let number = message.get_u32();
    (number, Duration::from_nanos(message.get_u64()))
}

/// Now, on a clock that both processes read.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
