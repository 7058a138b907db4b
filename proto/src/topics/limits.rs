//! Every limit of topics, with the reason for its value (SPEC-TOPICS.md, "Constants").

use std::time::Duration;

use crate::limits::{MAX_MILLIS, MAX_PACKET_COST, MAX_RECORD};

/// The WebSocket subprotocol with which two endpoints agree on this protocol (RFC 6455, section
/// 1.9).
pub const SUBPROTOCOL: &str = "unstall.topics.v1";

/// The largest packet, in bytes: one record of [`MAX_RECORD`] with its headers and
/// its topic, and room for packet kinds that are not known yet.
pub const MAX_PACKET: usize = 66_560;

/// What a record costs besides payload and topic, in bytes of credit. It stands for the places in
/// queues that a message takes, so that a flood of empty messages is bounded as well.
pub const RECORD_OVERHEAD: u64 = 64;

/// The smallest first credit of a subscription, in bytes: more than the costliest record.
pub const MIN_CREDIT: u64 = MAX_PACKET_COST;

/// The smallest window of a subscription, in bytes.
///
/// A client raises the credit once half of its window is free. So half of the smallest window has
/// to be more than the costliest record.
pub const MIN_WINDOW: u64 = 2 * MAX_PACKET_COST;

/// The smallest publish window of a server, in bytes. A client may count on it before the server's
/// WELCOME.
pub const MIN_PUBLISH_WINDOW: u64 = 2 * MAX_PACKET_COST;

/// The longest token, in bytes: what fits into one header of common HTTP servers.
pub const MAX_TOKEN: usize = 8_192;

/// The size up to which a MESSAGES or PUBLISH packet is filled, in bytes. At 32 KiB the fixed cost
/// of a frame no longer shows, and the packet still fits into the cache of a core.
pub const PACKET_FILL: usize = crate::limits::PACKET_FILL;

/// The most bytes of a block: the largest message as records, and as much again. The sums in a
/// block's entries are 32 bits wide.
pub const MAX_BLOCK: usize = (1 << 31) + MAX_RECORD;

/// Records that follow each other in a block are sent without a copy from this size on, in bytes.
/// Shorter runs, between messages that a filter leaves out, are copied into one packet.
pub(crate) const MIN_SLICE: usize = 4 * 1024;

/// The size up to which a PUBLISHED packet is filled, in bytes: runs for some hundred messages that
/// are not neighbours in the log.
pub(crate) const ANSWERS_FILL: usize = 4 * 1024;

/// After how many offsets that a filter leaves out the server tells the place again. A client that
/// connects again makes the server read that much once more.
pub(crate) const PROGRESS_OFFSETS: u64 = 4_096;

/// The most events and answers that wait before a server wants no more input. Each takes some
/// hundred bytes.
pub(crate) const MAX_WAITING: usize = 64;

/// The size of the blocks into which control packets are encoded, in bytes. An idle client
/// keeps one block.
pub(crate) const CONTROL_BLOCK: usize = 128;

/// What a record costs in credit.
pub(crate) const fn record_cost(topic: usize, payload: usize) -> u64 {
    topic as u64 + payload as u64 + RECORD_OVERHEAD
}

/// What a message costs: its payload, its topic, and [`RECORD_OVERHEAD`] for each record.
pub const fn message_cost(topic: usize, payload: usize) -> u64 {
    let records = payload.div_ceil(MAX_RECORD);
    let records = if records == 0 { 1 } else { records as u64 };
    topic as u64 + payload as u64 + records * RECORD_OVERHEAD
}

/// A duration on the wire.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(MAX_MILLIS, |millis| millis.min(MAX_MILLIS))
}
