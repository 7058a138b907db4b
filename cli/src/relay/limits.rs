//! The limits of a relay, each with its reason. Those of its connections are the library's.

use std::time::Duration;

/// What a slow client does not take is held in memory up to this. A hundred slow clients then hold
/// 400 MiB, which is within the default of `--memory`.
pub(super) const BUFFER_BYTES: &str = "4MiB";

/// What all connections may hold together, as in a server of the library.
pub(super) const MEMORY_BYTES: &str = "768MiB";

/// The largest message, as in the library.
pub(super) const MESSAGE_BYTES: &str = "16MiB";

/// What a client has sent and upstream does not take. Then the client is read no more, and TCP slows it
/// down, so more would only add delay.
pub(super) const CLIENT_INBOX_BYTES: usize = 256 << 10;

/// What the handshake with a client may take beyond the time to connect upstream: TLS and the request.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the relay's end waits for connections upstream whose clients never came in. Each may take
/// the first half for its close.
pub(super) const UNCLAIMED_TIMEOUT: Duration = unstall::defaults::CLOSE_TIMEOUT.saturating_mul(2);

/// The most that a file or a command for headers may have. All headers of a request must fit into 16
/// KiB with most servers.
pub(super) const FRESH_HEADERS_BYTES: u64 = 64 << 10;

/// How many commands for headers run at once, when many clients connect again together.
pub(super) const FRESH_HEADERS_COMMANDS: usize = 8;

/// The most clients, as in a server of the library.
pub(super) const CONNECTIONS: usize = 10_000;

/// How long a client is asked to wait when upstream cannot be reached, as when a limit is reached.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a log of recordings keeps, as in `unstall hub --store DIR`.
pub(super) const RECORD_BYTES: &str = "1GiB";

/// How many batches of one connection wait for the log. Then its stream waits too.
pub(super) const RECORD_BATCHES: usize = 4;

/// How much of a stream is a batch. With the batches that wait, a connection holds 1 MiB for its
/// recording, beside its largest message.
pub(super) const RECORD_BATCH_BYTES: usize = 256 << 10;

/// The most that is remembered of one client, and the longest message that rules look at. An OpenAI
/// session with its instructions and tools takes a tenth of it.
pub(super) const REMEMBERED_BYTES: usize = 1 << 20;

/// The most keys of one client. Binance, which allows the most, lets a connection have 1,024 streams.
pub(super) const REMEMBERED_KEYS: usize = 4096;

/// What a key costs in memory beyond its text, in two maps.
pub(super) const REMEMBERED_KEY_BYTES: usize = 200;

/// What is remembered of all clients together, so that it stays small beside `--memory`. 10,000 clients
/// may have 6 KiB each.
pub(super) const REMEMBERED_TOTAL_BYTES: usize = 64 << 20;

/// How long upstream may take to answer a message that was sent again, as a login that asks elsewhere.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What upstream may send before such answers, all together. It is held until the client gets it in its
/// place.
pub(super) const HELD_BYTES: usize = 1 << 20;

/// What is held so for all clients together, so that it stays small beside `--memory` if upstream ends all
/// connections at once.
pub(super) const HELD_TOTAL_BYTES: usize = 64 << 20;

/// How long no message has to pass, so that the moment is a quiet one: longer than the pauses within
/// an answer that is made while it is sent.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// A younger connection is not worth another one.
pub(super) const SHORTEST_AGE: Duration = Duration::from_secs(1);
