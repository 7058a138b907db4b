//! Where frames end in the bytes that pass by (RFC 6455 §5.2), so that the engine's buffers can be
//! exchanged between two of them.

/// The longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;
const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;

#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The beginning of a header that was cut in two.
    head: Vec<u8>,
    /// What is left of the present frame's payload.
    left: u64,
    /// A message goes on in the next frame.
    unfinished: bool,
}

impl Frames {
    /// These bytes were read.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        if !self.head.is_empty() {
            bytes = self.complete_head(bytes);
        }
        loop {
            let payload = usize::try_from(self.left).unwrap_or(usize::MAX);
            if payload > bytes.len() {
                self.left -= bytes.len() as u64;
                return;
            }
            bytes = &bytes[payload..];
            self.left = 0;
            match header(bytes) {
                Some(length) => {
                    self.begin(bytes);
                    bytes = &bytes[length..];
                }
                None => {
                    self.head.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    fn complete_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let before = self.head.len();
        let more = bytes.len().min(MAX_HEADER - before);
        self.head.extend_from_slice(&bytes[..more]);
        let mut head = std::mem::take(&mut self.head);
        match header(&head) {
            Some(length) => {
                self.begin(&head);
                &bytes[length - before..]
            }
            None => {
                head.truncate(before + more);
                self.head = head;
                &bytes[more..]
            }
        }
    }

    /// A whole header stands at the front.
    fn begin(&mut self, bytes: &[u8]) {
        self.left = match bytes[1] & !MASKED {
            126 => u16::from_be_bytes([bytes[2], bytes[3]]).into(),
            127 => bytes[2..10]
                .iter()
                .fold(0, |n, byte| n << 8 | u64::from(*byte)),
            short => short.into(),
        };
        if bytes[0] & CONTROL == 0 {
            self.unfinished = bytes[0] & FIN == 0;
        }
    }

    /// How many bytes may be read at the most without passing the end of a message; zero between
    /// two messages.
    pub(super) fn to_end(&self) -> usize {
        match self.left {
            0 if self.head.is_empty() && !self.unfinished => 0,
            // Of a header byte for byte: the next frame may be empty.
            0 => 1,
            left => usize::try_from(left).unwrap_or(usize::MAX),
        }
    }
}

/// The length of the header at the front, if it is whole.
fn header(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let extended = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & MASKED == 0 { 0 } else { 4 };
    let length = 2 + extended + mask;
    (bytes.len() >= length).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame, and whether a message ends with it or before it.
    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        let mask = if masked { MASKED } else { 0 };
        match payload {
            ..126 => frame.push(mask | payload as u8),
            126..=0xFFFF => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0x85; payload + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn ends_of_messages_are_found_whatever_the_bytes_are_cut_into() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for masked in [false, true] {
            for payload in [0, 1, 125, 126, 300, 70_000] {
                bytes.extend(frame(0x82, masked, payload));
                ends.push(bytes.len());
            }
            // In two parts, with a ping in between.
            bytes.extend(frame(0x01, masked, 5));
            bytes.extend(frame(0x89, masked, 3));
            bytes.extend(frame(0x80, masked, 0));
            ends.push(bytes.len());
        }
        for step in [1, 2, 3, 7, 100, 4096, bytes.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for chunk in bytes.chunks(step) {
                frames.pass(chunk);
                at += chunk.len();
                assert_eq!(frames.to_end() == 0, ends.contains(&at), "{at} by {step}");
                let next = ends.iter().find(|end| **end >= at);
                assert!(frames.to_end() <= next.unwrap() - at, "{at} by {step}");
            }
        }
    }
}
