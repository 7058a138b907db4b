//! The packets that `/packets` sends and `/sink` checks, and the texts that ask for them.
//!
//! A packet is a binary message: its index (u64, big-endian, from 0), the XXH3-64 of everything
//! after these 16 bytes (u64, big-endian), and a payload derived from the index: the little-endian
//! words of SplitMix64 seeded with it.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use checker::{Checker, Report};
pub(crate) use sequence::Sequence;

mod checker;
mod sequence;

/// Index and hash: the smallest packet.
pub(crate) const HEADER_BYTES: usize = 16;

/// The largest packet: the library's default limit of a message.
pub(crate) const MAX_PACKET_BYTES: usize = 16 << 20;

/// The most packets of one request. It takes more than a day at full speed, so more must be a
/// mistake.
pub(crate) const MAX_COUNT: u64 = 1_000_000_000_000;

/// The longest request text that is parsed. A real one is under 60 bytes.
const MAX_REQUEST_BYTES: usize = 1024;

/// Builds the packet `index` of `size` bytes. `size` below [`HEADER_BYTES`] gives a bare header.
pub(crate) fn packet(index: u64, size: usize) -> Bytes {
    let payload = size.saturating_sub(HEADER_BYTES);
    let mut packet = BytesMut::with_capacity(HEADER_BYTES + payload);
    packet.put_u64(index);
    packet.put_u64(0);
    let mut words = SplitMix64(index);
    for _ in 0..payload / 8 {
        packet.put_u64_le(words.next());
    }
    packet.put_slice(&words.next().to_le_bytes()[..payload % 8]);
    let hash = xxh3_64(&packet[HEADER_BYTES..]);
    packet[8..HEADER_BYTES].copy_from_slice(&hash.to_be_bytes());
    packet.freeze()
}

/// The index of an intact packet. `None` if it is too short or its hash does not match.
pub(crate) fn intact_index(packet: &[u8]) -> Option<u64> {
    let (index, rest) = packet.split_first_chunk()?;
    let (hash, payload) = rest.split_first_chunk()?;
    (u64::from_be_bytes(*hash) == xxh3_64(payload)).then(|| u64::from_be_bytes(*index))
}

/// Steele, Lea and Flood's generator: one multiply-and-shift round for eight bytes.
#[derive(Debug)]
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    /// The next of 2^64 numbers.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// A request to `/packets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// How many packets, from index 0.
    pub(crate) count: u64,
    /// Bytes of each.
    pub(crate) size: usize,
}

/// Why a request is refused. It is small, because a peer may send many such requests ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRequest {
    /// Not the JSON that is expected, or too long.
    NotAPacketsRequest,
    /// Not the JSON that is expected, or too long.
    NotAReportRequest,
    /// A binary message on a path that takes requests.
    Binary,
    /// More than [`MAX_COUNT`].
    Count(u64),
    /// Outside [`HEADER_BYTES`] to [`MAX_PACKET_BYTES`].
    Size(usize),
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPacketsRequest => {
                f.write_str(r#"not understood: send {"count":N,"size":B} and nothing else"#)
            }
            Self::NotAReportRequest => {
                f.write_str(r#"not understood: send packets, and {"report":true} for their counts"#)
            }
            Self::Binary => f.write_str(r#"a binary message: send the text {"count":N,"size":B}"#),
            Self::Count(count) => write!(f, "count {count} is over {MAX_COUNT}"),
            Self::Size(size) => {
                write!(
                    f,
                    "size {size} is not in {HEADER_BYTES} to {MAX_PACKET_BYTES}"
                )
            }
        }
    }
}

impl Request {
    /// Reads `{"count":N,"size":B}`. The error is told to the peer.
    pub(crate) fn parse(text: &str) -> Result<Self, BadRequest> {
        let request: Self = parse(text).ok_or(BadRequest::NotAPacketsRequest)?;
        if request.count > MAX_COUNT {
            return Err(BadRequest::Count(request.count));
        }
        if !(HEADER_BYTES..=MAX_PACKET_BYTES).contains(&request.size) {
            return Err(BadRequest::Size(request.size));
        }
        Ok(request)
    }

    /// The request as text.
    pub(crate) fn to_text(self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// Reads `{"report":true}`, the one request that `/sink` knows.
pub(crate) fn parse_report_request(text: &str) -> Result<(), BadRequest> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ReportRequest {
        report: bool,
    }
    match parse(text) {
        Some(ReportRequest { report: true }) => Ok(()),
        _ => Err(BadRequest::NotAReportRequest),
    }
}

/// The answer after a request's last packet.
pub(crate) fn done_text(count: u64) -> String {
    serde_json::json!({ "done": count }).to_string()
}

/// Reads `{"done":N}`.
pub(crate) fn parse_done(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Done {
        done: u64,
    }
    parse(text).map(|Done { done }| done)
}

/// The answer to a request that cannot be understood.
pub(crate) fn error_text(reason: BadRequest) -> String {
    serde_json::json!({ "error": reason.to_string() }).to_string()
}

/// Parses a text that a peer sent. Checks its length first.
fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.len() > MAX_REQUEST_BYTES {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_packet_has_these_bytes() {
        // Computed with Python's xxhash.
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, // index
            0x81, 0xfe, 0x44, 0x89, 0x4e, 0x73, 0x31, 0x35, // XXH3-64 of the payload
            0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2, // SplitMix64 of seed 0
            0xf4, 0x65, 0xb9,
        ];
        assert_eq!(packet(0, 27)[..], expected);
    }

    proptest! {
        #[test]
        fn a_packet_has_its_size_and_is_intact(index: u64, size in HEADER_BYTES..5000) {
            let packet = packet(index, size);
            prop_assert_eq!(packet.len(), size);
            prop_assert_eq!(intact_index(&packet), Some(index));
        }

        #[test]
        fn one_flipped_bit_behind_the_index_is_seen(
            index: u64, size in 17usize..300, at: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut packet = packet(index, size).to_vec();
            let at = 8 + at.index(size - 8);
            packet[at] ^= 1 << bit;
            prop_assert_eq!(intact_index(&packet), None);
        }

        #[test]
        fn any_bytes_are_a_packet_or_not_but_never_a_panic(bytes: Vec<u8>, text: String) {
            let _ = intact_index(&bytes);
            let _ = Request::parse(&text);
            let _ = parse_report_request(&text);
            let _ = parse_done(&text);
        }
    }

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let request = Request {
            count: 100_000,
            size: 4096,
        };
        assert_eq!(request.to_text(), r#"{"count":100000,"size":4096}"#);
        assert_eq!(Request::parse(&request.to_text()), Ok(request));
        assert_eq!(
            Request::parse(r#" { "size":16, "count":0 } "#)
                .unwrap()
                .size,
            16
        );
    }

    #[test]
    fn a_request_beyond_the_limits_is_refused_with_the_reason() {
        let long = format!(
            r#"{{"count":1,"size":16{}}}"#,
            " ".repeat(MAX_REQUEST_BYTES)
        );
        let not_understood = BadRequest::NotAPacketsRequest;
        for (text, reason) in [
            (r#"{"count":1,"size":15}"#, BadRequest::Size(15)),
            (
                r#"{"count":1,"size":16777217}"#,
                BadRequest::Size(16_777_217),
            ),
            (
                r#"{"count":1000000000001,"size":16}"#,
                BadRequest::Count(1_000_000_000_001),
            ),
            (r#"{"count":-1,"size":16}"#, not_understood),
            (r#"{"count":1e3,"size":16}"#, not_understood),
            (r#"{"count":1}"#, not_understood),
            (r#"{"count":1,"size":16,"from":5}"#, not_understood),
            ("", not_understood),
            ("packets, please", not_understood),
            (&long, not_understood),
        ] {
            assert_eq!(Request::parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn the_other_texts_read_back() {
        assert_eq!(done_text(7), r#"{"done":7}"#);
        assert_eq!(parse_done(&done_text(7)), Some(7));
        assert_eq!(parse_done(r#"{"error":"no"}"#), None);
        assert_eq!(
            error_text(BadRequest::Size(15)),
            r#"{"error":"size 15 is not in 16 to 16777216"}"#
        );
        assert_eq!(parse_report_request(r#"{"report":true}"#), Ok(()));
        assert!(parse_report_request(r#"{"report":false}"#).is_err());
        assert!(parse_report_request("{}").is_err());
    }
}
