//! The limits of a hub's HTTP side, each with its reason. Those of its connections are the server's.

use std::time::Duration;

/// The largest message of a WebSocket: a packet of SPEC-TOPICS.md.
pub(super) const PACKET_BYTES: usize = 66_560;

/// What the bodies of requests may hold together while they arrive. It is four of the largest
/// messages, and a small part of what a server's WebSockets may hold.
pub(super) const BODY_BYTES: usize = 64 << 20;

/// How many answers read from the log at a time. Each may hold a window of 1 MiB if its client does
/// not read, which is 1 GiB for all.
pub(super) const READERS: usize = 1_024;

/// How long a body may take to arrive. 16 MiB take as long at 2.2 Mbit/s.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest `Idempotency-Key`. A UUID has 36 characters.
pub(super) const KEY_BYTES: usize = 255;

/// How many messages a read returns, unless it says. It is a page of some hundred KiB.
pub(super) const READ_MESSAGES: u64 = 1_000;

/// How much of a stream is gathered for one write.
pub(super) const CHUNK_BYTES: usize = 32 << 10;

/// How often a stream of events says that it lives, also to proxies, which cut what is silent for a
/// minute. HTML's specification proposes 15 seconds.
pub(super) const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// How long a page waits before it connects again. Browsers wait three seconds or more by default.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// When a client may try again that was refused because a limit is reached.
pub(super) const RETRY_AFTER_SECONDS: &str = "5";
