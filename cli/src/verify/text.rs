//! Packets as text, so that an echo has to keep the kind of a message and every character.
//!
//! Each byte is a character. They are in turn of the two planes that programs treat differently: of two
//! bytes in UTF-8, and of four, which are two units in UTF-16.

const PLANES: [u32; 2] = [0x100, 0x1f400];

/// How many bytes of text stand for a byte, on average.
pub(super) const BYTES_PER_BYTE: usize = 3;

/// The text of a packet.
pub(super) fn of(packet: &[u8]) -> String {
    let bytes = packet.iter().zip(PLANES.into_iter().cycle());
    bytes
        .filter_map(|(byte, plane)| char::from_u32(plane + u32::from(*byte)))
        .collect()
}

/// The packet of a text, if it is the text of one.
pub(super) fn packet(text: &str) -> Option<Vec<u8>> {
    let characters = text.chars().zip(PLANES.into_iter().cycle());
    characters
        .map(|(character, plane)| {
            let byte = u32::from(character).checked_sub(plane)?;
            u8::try_from(byte).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_a_character_and_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = of(&bytes);
        assert_eq!(text.chars().count(), 256);
        assert_eq!(text.len(), 256 * BYTES_PER_BYTE);
        assert_eq!(packet(&text), Some(bytes));
        assert_eq!(packet("a"), None);
    }
}
