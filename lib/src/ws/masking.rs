//! Masking (RFC 6455 sections 5.3 and 10.3).

use std::io;

use crate::defaults::MASKING_KEYS;

/// A client's masking keys: fresh and unpredictable. Many are drawn from the system at once.
#[derive(Default)]
pub(super) struct Keys {
    drawn: Vec<[u8; 4]>,
}

impl Keys {
    pub(super) fn next(&mut self) -> io::Result<[u8; 4]> {
        if let Some(key) = self.drawn.pop() {
            return Ok(key);
        }
        let mut fresh = [[0; 4]; MASKING_KEYS];
        getrandom::fill(fresh.as_flattened_mut()).map_err(io::Error::other)?;
        self.drawn.extend_from_slice(&fresh[1..]);
        Ok(fresh[0])
    }
}

/// Masks or unmasks.
pub(super) fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    rest.iter_mut()
        .zip(key)
        .for_each(|(byte, key)| *byte ^= key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_masked_with_its_own_part_of_the_key() {
        let key = [1, 2, 4, 8];
        for length in 0..40 {
            let mut payload = vec![0; length];
            apply_mask(&mut payload, key);
            let expected: Vec<u8> = key.into_iter().cycle().take(length).collect();
            assert_eq!(payload, expected);
        }
    }

    #[test]
    fn keys_differ_from_draw_to_draw() {
        let mut keys = Keys::default();
        let drawn: std::collections::HashSet<_> = (0..4 * MASKING_KEYS)
            .map(|_| keys.next().unwrap())
            .collect();
        assert!(drawn.len() > 3 * MASKING_KEYS);
    }
}
