//! Variable-length integers as in RFC 9000, section 16: the two top bits of the first byte give
//! the length, 1, 2, 4 or 8 bytes, big-endian.

use bytes::{BufMut, BytesMut};

/// The largest number that can be written.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// Appends `value` in its shortest form. It is never above [`MAX`]: lengths are checked against the
/// limits before.
#[inline]
pub(crate) fn write(buf: &mut BytesMut, value: u64) {
    debug_assert!(value <= MAX);
    if value < 1 << 6 {
        buf.put_u8(value as u8);
    } else if value < 1 << 14 {
        write_2(buf, value);
    } else if value < 1 << 30 {
        write_4(buf, value);
    } else {
        buf.put_u64(value | 0xC000_0000_0000_0000);
    }
}

/// Appends `value`, which is below 2^14, in the form of 2 bytes.
#[inline]
pub(crate) fn write_2(buf: &mut BytesMut, value: u64) {
    debug_assert!(value < 1 << 14);
    buf.put_u16(value as u16 | 0x4000);
}

/// Appends `value`, which is below 2^30, in the form of 4 bytes.
#[inline]
pub(crate) fn write_4(buf: &mut BytesMut, value: u64) {
    debug_assert!(value < 1 << 30);
    buf.put_u32(value as u32 | 0x8000_0000);
}

/// Reads a number from the beginning of `buf`. Returns its value and its length in bytes, or `None`
/// when it is cut short. A form that is longer than needed is accepted.
#[inline]
pub(crate) fn read(buf: &[u8]) -> Option<(u64, usize)> {
    // Comparisons, the usual lengths first. A jump table took a third of the time of decoding small
    // records.
    let first = *buf.first()?;
    if first < 0x40 {
        return Some((u64::from(first), 1));
    }
    if first < 0x80 {
        let bytes = buf.first_chunk::<2>()?;
        return Some((u64::from(u16::from_be_bytes(*bytes) & 0x3FFF), 2));
    }
    read_long(buf)
}

/// The forms of 4 and 8 bytes.
#[inline(never)]
fn read_long(buf: &[u8]) -> Option<(u64, usize)> {
    if *buf.first()? < 0xC0 {
        let bytes = buf.first_chunk::<4>()?;
        return Some((u64::from(u32::from_be_bytes(*bytes) & 0x3FFF_FFFF), 4));
    }
    let bytes = buf.first_chunk::<8>()?;
    Some((u64::from_be_bytes(*bytes) & MAX, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a_1_hold() {
        let cases: [(&[u8], u64); 4] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(read(bytes), Some((value, bytes.len())));
            let mut buf = BytesMut::new();
            write(&mut buf, value);
            assert_eq!(&buf[..], bytes);
        }
        assert_eq!(read(&[0x40, 0x25]), Some((37, 2)));
    }

    #[test]
    fn every_cut_of_a_number_is_none() {
        for value in [64, 16_384, 1 << 30, MAX] {
            let mut buf = BytesMut::new();
            write(&mut buf, value);
            for end in 0..buf.len() {
                assert_eq!(read(&buf[..end]), None);
            }
        }
    }
}
