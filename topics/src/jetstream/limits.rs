//! Every limit of this store, with its reason.

use std::time::Duration;

/// How long a connection attempt may take. A server that is stopped accepts connections and says
/// nothing, and the next one is waiting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How often the client asks the server for a sign of life. Three without an answer end the connection,
/// so a server that hangs is left after three seconds, which is less than an election takes.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The first and the longest wait between two rounds of connection attempts.
pub(super) const RECONNECT_DELAY: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_millis(500));

/// How long one question to JetStream may take. A stream without a leader does not answer at all.
pub(super) const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a store's verb tries again before it says that the store is unavailable. An election takes
/// 4 to 9 seconds.
pub(super) const VERB_TIMEOUT: Duration = Duration::from_secs(15);

/// The waits between these tries.
pub(super) const VERB_RETRY: Duration = Duration::from_millis(100);

/// How long a message may be without an answer before it is told as unknown: an election, with what
/// comes before and after it. Until then it is sent again.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// If no answer at all comes for this long, the stream has no leader. JetStream answers in
/// milliseconds, and also under load the answers keep coming.
pub(super) const SILENCE: Duration = Duration::from_millis(1_500);

/// If one message waits this long while others are answered, it is lost.
pub(super) const OVERDUE: Duration = Duration::from_secs(5);

/// While the stream has no leader, one message is tried this often.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// Messages that are under way at a time. The server's own queue for a stream takes 10,000, and
/// publishers at other nodes share it.
pub(super) const WINDOW_MESSAGES: usize = 4_096;

/// Their bytes. The server's own queue takes 128 MiB.
pub(super) const WINDOW_BYTES: usize = 16 << 20;

/// Commands that wait in the client. More than the window, so that publishing never waits for a place
/// while the connection is being lost.
pub(super) const CLIENT_CAPACITY: usize = 2 * WINDOW_MESSAGES;

/// The shortest duplicate window of a stream. Whatever is sent again is sent within
/// [`ANSWER_TIMEOUT`], and a client needs time of its own.
pub(super) const MIN_DUPLICATE_WINDOW: Duration = Duration::from_secs(60);

/// The duplicate window of a new stream, which is NATS' own default. A server remembers every message
/// of it in memory.
pub(super) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A client's message may be sent until [`ANSWER_TIMEOUT`] after it came, and clocks differ a little.
/// The duplicate window, less this, is how long a client may send a message again.
pub(super) const ONCE_MARGIN: Duration = Duration::from_secs(30);

/// Bytes of a message besides its payload that count against the server's largest message: the
/// headers with the message id and the kind.
pub(super) const HEADER_BYTES: usize = 256;

/// How often the server says that a consumer lives. Two missing ones, and it is made anew.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);

/// Messages that the reader of the whole log asks for at a time. It asks again when half have come.
/// It takes them as they come, so their bytes need no bound here.
pub(super) const FOLLOW_MESSAGES: u64 = 8_192;

/// How long such a request lasts at the server. Long, because requests are made anew anyway.
pub(super) const FOLLOW_EXPIRES: Duration = Duration::from_secs(30);

/// While a consumer is being made the leader is asked this often for what is new. Longer than making
/// one takes usually.
pub(super) const BRIDGE_INTERVAL: Duration = Duration::from_millis(100);

/// Messages that are got from it at a time, one by one. It is some 10,000 a second.
pub(super) const BRIDGE_MESSAGES: u64 = 1_024;

/// How many of these requests are under way.
pub(super) const BRIDGE_REQUESTS: usize = 64;

/// The newest messages that are kept here, so that readers who keep up need not ask the server.
pub(super) const TAIL_BYTES: u64 = 16 << 20;

/// Of them, how many one read looks at. A rare filter then takes several reads, and none of them
/// holds up the reader of the log for long.
pub(super) const TAIL_LOOK: usize = 4_096;

/// How often the leader is asked for the first message, and whether the stream is as it has to be.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// If the leader has had fewer messages than were read for this long, the stream has lost its end. A
/// leader that was just elected may take a moment to know all that it has.
pub(super) const LOST_END_AFTER: Duration = Duration::from_secs(4);

/// Messages that one request of a read asks the server for.
pub(super) const READ_MESSAGES: u64 = 8_192;

/// Bytes of one read, if it asks for more.
pub(super) const READ_BYTES: usize = 4 << 20;

/// How many times what a read needs is asked for. What comes and is not read stays for the next read
/// of the same filter, so that the server and the reader work at the same time.
pub(super) const READ_AHEAD: u64 = 4;

/// The bytes that such a request may bring, as the server counts. A read of larger chunks may bring
/// twice its own.
pub(super) const READ_AHEAD_BYTES: u64 = 1 << 20;

/// What a request for the latest messages may bring if each is as long as the server accepts. It has no
/// other bound in bytes, see [`Consumer`](super::consumer::Consumer).
pub(super) const LATEST_BYTES: u64 = 16 << 20;

/// If nothing comes for this long within a read, its consumer is given up.
pub(super) const READ_SILENCE: Duration = Duration::from_millis(1_500);

/// Consumers that are kept for the next read of the same filter. Each is a consumer at the server, and
/// holds up to about [`READ_AHEAD_BYTES`] here. One of the latest messages holds up to
/// [`LATEST_BYTES`] if they become long all at once.
pub(super) const KEPT_CONSUMERS: usize = 32;

/// How long a new consumer may take before another one is asked for. Servers agree within
/// milliseconds; one that is dead is still given consumers for some seconds.
pub(super) const CREATE_PATIENCE: Duration = Duration::from_millis(200);

/// How many are asked for at a time. Of a cluster of three with one dead, one in three goes to it.
pub(super) const CREATE_ATTEMPTS: u32 = 4;

/// The server removes a consumer that nobody used for this long.
pub(super) const CONSUMER_IDLE: Duration = Duration::from_secs(10);
