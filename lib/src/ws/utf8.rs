//! Text that comes in pieces.

use crate::reports::ConnectionError;

/// Checks a text piece by piece: a piece may end within a character.
#[derive(Default)]
pub(super) struct Utf8 {
    /// The beginning of a character whose rest has not come.
    begun: [u8; 4],
    length: usize,
}

impl Utf8 {
    /// Fails with the first byte that cannot be part of any text.
    #[inline]
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), ConnectionError> {
        while self.length > 0
            && let Some((byte, rest)) = piece.split_first()
        {
            piece = rest;
            self.begun[self.length] = *byte;
            self.length += 1;
            match std::str::from_utf8(&self.begun[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(ConnectionError::InvalidText),
            }
        }
        let Err(error) = std::str::from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(ConnectionError::InvalidText);
        }
        let begun = &piece[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.length = begun.len();
        Ok(())
    }

    /// The text ends here, and the next begins: fails within a character.
    pub(super) fn end(&mut self) -> Result<(), ConnectionError> {
        match std::mem::take(&mut self.length) {
            0 => Ok(()),
            _ => Err(ConnectionError::InvalidText),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BROKEN: [&[u8]; 6] = [
        &[0xff],
        &[0xe2, 0x82],
        &[0xed, 0xa0, 0x80],
        &[0xc0, 0x80],
        &[0xf4, 0x90],
        &[0x80],
    ];

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let character = any::<char>().prop_map(|it| it.to_string().into_bytes());
        let broken = prop::sample::select(&BROKEN);
        let piece = prop_oneof![30 => character, 1 => broken.prop_map(<[u8]>::to_vec)];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn text_in_pieces_is_judged_as_it_is_whole_and_no_later(
            text in texts(),
            sizes in prop::collection::vec(1..9usize, 1..8),
        ) {
            let mut utf8 = Utf8::default();
            let mut sizes = sizes.into_iter().cycle();
            let (mut at, mut result) = (0, Ok(()));
            while at < text.len() && result.is_ok() {
                let end = text.len().min(at + sizes.next().unwrap());
                prop_assert!(utf8.push(&[]).is_ok());
                result = utf8.push(&text[at..end]);
                at = end;
                let hopeless = std::str::from_utf8(&text[..at])
                    .is_err_and(|error| error.error_len().is_some());
                prop_assert_eq!(result.is_err(), hopeless);
            }
            let whole = result.and_then(|()| utf8.end());
            prop_assert_eq!(whole.is_ok(), std::str::from_utf8(&text).is_ok());
        }
    }
}
