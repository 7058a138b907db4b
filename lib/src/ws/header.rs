//! Frame headers (RFC 6455 section 5.2): what a header alone can say, and what it must not.

/// What a frame carries. Other opcodes are reserved for extensions that are never agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    /// The opcode of a message's first frame.
    pub(super) fn data(text: bool) -> Opcode {
        match text {
            true => Opcode::Text,
            false => Opcode::Binary,
        }
    }

    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The last frame of its message.
    pub(super) is_final: bool,
    /// The first frame of a compressed message (RFC 7692 section 6).
    pub(super) is_compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: Option<[u8; 4]>,
    /// The length of the payload, as the peer announces it.
    pub(super) length: u64,
}

/// The longest payload of a control frame (section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const COMPRESSED: u8 = 0x40;
const MASKED: u8 = 0x80;
/// In place of a length: the length follows in two bytes, or in eight.
const IN_TWO: u8 = 126;
const IN_EIGHT: u8 = 127;

impl Header {
    /// Reads a header, and how many bytes it takes; `None` if it is not whole. `masked` says whether
    /// the peer is a client, whose frames are masked. A broken rule is an error as soon as its byte
    /// has arrived.
    // Out of line, its fields would go through memory: half of the time of reading short frames.
    #[inline(always)]
    pub(super) fn parse(
        bytes: &[u8],
        masked: bool,
    ) -> Result<Option<(Header, usize)>, &'static str> {
        if bytes.first().is_some_and(|first| first & RESERVED != 0) {
            return Err("a frame has reserved bits set, but no extension was agreed");
        }
        Header::parse_extended(bytes, masked)
    }

    /// The same where compression was agreed.
    #[inline(always)]
    pub(super) fn parse_extended(
        bytes: &[u8],
        masked: bool,
    ) -> Result<Option<(Header, usize)>, &'static str> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & RESERVED & !COMPRESSED != 0 {
            return Err("a frame has reserved bits set that no extension uses");
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or("a frame has a reserved opcode")?;
        let is_compressed = first & COMPRESSED != 0;
        if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err("a frame that begins no message is marked as compressed");
        }
        let is_final = first & FINAL != 0;
        if opcode.is_control() && !is_final {
            return Err("a control frame is fragmented");
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if (second & MASKED != 0) != masked {
            return Err(match masked {
                true => "a frame of the client is not masked",
                false => "a frame of the server is masked",
            });
        }
        let short = second & !MASKED;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err("a control frame is longer than 125 bytes");
        }
        let Some((length, end)) = parse_length(short, &bytes[2..])? else {
            return Ok(None);
        };
        let mut size = 2 + end;
        let mask = match masked {
            false => None,
            true => {
                let Some(key) = bytes[size..].first_chunk() else {
                    return Ok(None);
                };
                size += key.len();
                Some(*key)
            }
        };
        let header = Header {
            is_final,
            is_compressed,
            opcode,
            mask,
            length,
        };
        Ok(Some((header, size)))
    }

    /// Writes the header of an unmasked frame that is a whole message. `to` has 2 bytes if the message
    /// has up to 125, else 4.
    #[inline]
    pub(super) fn write_whole(text: bool, length: usize, to: &mut [u8]) {
        let first = FINAL | Opcode::data(text) as u8;
        match to {
            [a, b] => (*a, *b) = (first, length as u8),
            [a, b, digits @ ..] => {
                (*a, *b) = (first, IN_TWO);
                digits.copy_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {}
        }
    }

    /// Appends the header.
    #[inline]
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let first = match self.is_final {
            true => FINAL,
            false => 0,
        } | match self.is_compressed {
            true => COMPRESSED,
            false => 0,
        } | self.opcode as u8;
        let masked = match self.mask {
            Some(_) => MASKED,
            None => 0,
        };
        match self.length {
            length @ ..126 => to.extend_from_slice(&[first, masked | length as u8]),
            length @ ..0x1_0000 => {
                to.extend_from_slice(&[first, masked | IN_TWO]);
                to.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                to.extend_from_slice(&[first, masked | IN_EIGHT]);
                to.extend_from_slice(&length.to_be_bytes());
            }
        }
        if let Some(key) = &self.mask {
            to.extend_from_slice(key);
        }
    }
}

/// A length, and how many of the following bytes it takes. "In all cases, the minimal number of
/// bytes MUST be used to encode the length" (section 5.2).
#[inline(always)]
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, &'static str> {
    const NOT_MINIMAL: &str = "the length of a frame takes more bytes than it needs";
    match short {
        IN_TWO => match rest.first_chunk() {
            None => Ok(None),
            Some(bytes) => match u16::from_be_bytes(*bytes) {
                ..126 => Err(NOT_MINIMAL),
                length => Ok(Some((length.into(), 2))),
            },
        },
        IN_EIGHT => match rest.first_chunk() {
            None => Ok(None),
            Some(bytes) => match u64::from_be_bytes(*bytes) {
                ..0x1_0000 => Err(NOT_MINIMAL),
                length if length >> 63 != 0 => {
                    Err("the most significant bit of a frame's length is set")
                }
                length => Ok(Some((length, 8))),
            },
        },
        length => Ok(Some((length.into(), 0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Section 5.2 in other words: for each length there is one form.
    fn form_of(length: u64) -> Vec<u8> {
        let bytes = length.to_be_bytes();
        let digits = bytes.iter().skip_while(|byte| **byte == 0).count();
        match (length, digits) {
            (0..=125, _) => vec![length as u8],
            (_, 0..=2) => [&[126], &bytes[6..]].concat(),
            _ => [&[127], &bytes[..]].concat(),
        }
    }

    fn lengths() -> impl Strategy<Value = u64> {
        let about = |edge: u64| edge.saturating_sub(3)..=edge.saturating_add(3);
        prop_oneof![
            0..300u64,
            about(125),
            about(1 << 16),
            any::<u16>().prop_map(u64::from),
            any::<u32>().prop_map(u64::from),
            (0..=u64::MAX >> 1),
        ]
    }

    const OPCODES: [Opcode; 3] = [Opcode::Continuation, Opcode::Text, Opcode::Binary];

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_before_its_last_byte(
            length in lengths(),
            opcode in prop::sample::select(&OPCODES),
            is_final: bool,
            compressed: bool,
            mask in prop::option::of(any::<[u8; 4]>()),
        ) {
            let is_compressed = compressed && opcode != Opcode::Continuation;
            let header = Header { is_final, is_compressed, opcode, mask, length };
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            for end in 0..bytes.len() {
                prop_assert_eq!(Header::parse_extended(&bytes[..end], mask.is_some()), Ok(None));
            }
            let read = Ok(Some((header, bytes.len())));
            prop_assert_eq!(Header::parse_extended(&bytes, mask.is_some()), read);
            prop_assert!(Header::parse_extended(&bytes, mask.is_none()).is_err());
            let known = Header::parse(&bytes, mask.is_some());
            prop_assert_eq!(known.is_err(), is_compressed);
        }

        /// Once lengths were taken in any form that has room for them.
        #[test]
        fn length_is_taken_in_its_shortest_form_only(length in lengths()) {
            let minimal = form_of(length);
            let two = u16::try_from(length).map(|it| [&[126], &it.to_be_bytes()[..]].concat());
            let eight = [&[127], &length.to_be_bytes()[..]].concat();
            let one = (length < 126).then(|| vec![length as u8]);
            for form in [one, two.ok(), Some(eight)].into_iter().flatten() {
                let bytes = [&[0x82], &form[..]].concat();
                let read = Header::parse(&bytes, false);
                match form == minimal {
                    true => prop_assert_eq!(read.unwrap().unwrap().0.length, length),
                    false => prop_assert!(read.is_err(), "{:?}", form),
                }
            }
        }

        #[test]
        fn length_with_its_most_significant_bit_set_is_refused(rest in any::<u64>()) {
            let length = rest | 1 << 63;
            let bytes = [&[0x82, 127], &length.to_be_bytes()[..]].concat();
            prop_assert!(Header::parse(&bytes, false).is_err());
        }

        #[test]
        fn any_bytes_are_a_header_or_part_of_one_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            masked: bool,
        ) {
            if let Ok(Some((header, size))) = Header::parse(&bytes, masked) {
                let mut written = Vec::new();
                header.write(&mut written);
                prop_assert_eq!(&written, &bytes[..size], "there is one form of each header");
            }
        }
    }
}
