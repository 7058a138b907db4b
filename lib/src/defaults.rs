//! The library's defaults and fixed limits, each with its reason.
//!
//! Those that [`Options`](crate::Options), [`Reconnect`](crate::Reconnect) or a server's limits can
//! change are defaults. The others are fixed.

use std::time::Duration;

/// A longer wait counts as this one. tokio's own clock uses it for "never", and the clock of every
/// platform can express it.
pub(crate) const FOREVER: Duration = Duration::from_secs(86_400 * 365 * 30);

/// How many bytes of received messages wait for the application. 4 MiB is 4 ms of a stream of 1 GB/s.
/// That is enough to bridge a scheduling delay, and little enough for a thousand slow consumers.
pub const INBOX_BYTES: usize = 4 << 20;

/// How many bytes of sent messages wait for the socket. It is four times what the kernel is given
/// ahead, so that the socket never runs dry. With more, messages would only be older when they leave,
/// and no longer in the processor's cache.
pub const OUTBOX_BYTES: usize = 512 << 10;

/// The largest message, in bytes, received or sent. Feeds stay far below it, and one hostile message
/// cannot cost more.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The timeout for name resolution, TCP, proxy, TLS and upgrade together. Three lost SYNs (1 + 2 +
/// 4 s) still fit.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of the `on_connect` hook. It is long enough for a backfill, and a hook that hangs is
/// noticed within a minute.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// The time between two pings. Common proxies cut connections that are idle for 60 s.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The connection is lost if no byte is received for this long. By then three pings were not
/// answered. A broken connection waits as long for an application that does not receive.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The write timeout where the kernel cannot say whether a peer that takes no bytes is alive: see
/// [`Options::write_timeout`](crate::Options::write_timeout). Such
/// a peer may be alive, so it is twice the silence timeout.
pub const WRITE_TIMEOUT_BLIND: Duration = Duration::from_secs(60);

/// How long a live peer may take no byte while data waits for it. Garbage collection, a breakpoint and
/// a sleeping page take less. A peer that takes longer holds memory for nothing.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest time from `close` to the end of the connection, whatever the peer does. A full
/// outbox over 1 Mbit/s takes 4.2 s.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the peer's FIN is awaited after the closing handshake. If the socket were closed earlier, a
/// reset could destroy the last bytes on their way.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client tells a server that the set-up of a session failed. A server that reads
/// receives it within a round trip.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A wait becomes a `Stalled` event after this long. A second is longer than any scheduling delay, and
/// about as long as a person takes to notice.
pub const STALL_AFTER: Duration = Duration::from_secs(1);

/// The least time between two `Overflow` events. One event per message would flood the listener.
pub(crate) const OVERFLOW_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often queued messages are checked for expired ones while there is no connection. Until then
/// they only take up room.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// How soon the kernel is asked again about a silent peer while bytes wait for it. Each question costs
/// a netlink socket. While the kernel says that the peer is alive, the time doubles up to the longest.
pub const KERNEL_CHECK_INTERVAL: Duration = Duration::from_millis(500);
pub(crate) const KERNEL_CHECK_INTERVAL_MAX: Duration = Duration::from_secs(8);

/// How many bytes a connection that streams short messages reads at once.
pub(crate) const READ_BUFFER_BYTES: usize = 64 << 10;

/// How many bytes an idle connection reads at once. They go by way of the stack, so that it holds no
/// read window. A read of this size makes the connection a streaming one.
pub(crate) const IDLE_READ_BYTES: usize = 4 << 10;

/// A message longer than the read window is read in steps of this size, so that its connection does
/// not delay others. Smaller steps would spend noticeable time in system calls.
pub(crate) const LONG_READ_BYTES: usize = 256 << 10;

/// The length that a message's header announces is a claim: 14 bytes must not cost 16 MiB. A long
/// message gets so much memory once a whole read window of it has come, so that usual ones are not
/// copied again and again. From then on its memory doubles with what comes.
pub(crate) const TRUSTED_BYTES: usize = 1 << 20;

/// Shorter payloads are copied out of the read window. Many are read at once, and each would keep the
/// whole window in memory. Longer ones take the window with them.
pub(crate) const LENT_BYTES: usize = 8 << 10;

/// How many buffers of long messages are kept to be used again, and the size of the largest. That is
/// enough for the packets of two turns, and an allocator would keep them anyway.
pub(crate) const SPARE_BUFFERS: usize = 16;
pub(crate) const SPARE_BUFFER_BYTES: usize = 128 << 10;

/// Encoded bytes gathered before a write to the socket: one system call for many messages.
pub(crate) const WRITE_BATCH_BYTES: usize = 128 << 10;

/// From here on a payload that needs no mask is written from where it lies. Below, a copy costs less
/// than one more element in a vectored write.
pub(crate) const UNCOPIED_WRITE_BYTES: usize = 4 << 10;

/// Elements of one vectored write: two for each packet of a batch, and some.
pub(crate) const WRITE_SLICES: usize = 16;

/// A client's masking keys that are drawn from the system at once: one system call for a batch of
/// frames.
pub(crate) const MASKING_KEYS: usize = 64;

/// How many bytes of pongs wait, in addition to a batch, for a peer that does not read. They answer
/// about thirty pings.
pub(crate) const CONTROL_BACKLOG_BYTES: usize = 4 << 10;

/// Longer messages, in bytes, are sent as several frames. So a pong never waits for a whole long
/// message, and the write buffer stays small.
pub const FRAGMENT_BYTES: usize = 256 << 10;

/// How hard messages are compressed, from 1 to 9. The fastest level makes a fifth of JSON ticks of
/// 300 bytes at a third of the time of level 6, which makes a sixth.
pub const COMPRESSION_LEVEL: u32 = 1;

/// The window of compression, as a power of two: 4 KiB. It holds a dozen ticks of 300 bytes. A
/// window of 32 KiB makes them a tenth smaller, and costs eight times the memory.
pub const COMPRESSION_WINDOW_BITS: u8 = 12;

/// Shorter messages are not compressed. They fit in a packet with the headers below them, so fewer
/// bytes would save nothing.
pub const COMPRESSION_SMALLEST_BYTES: usize = 128;

/// Shorter packets of a session are not compressed. Every packet but DATA is shorter: they carry
/// tokens, whose bytes the length of a compressed packet could give away.
pub(crate) const SMALLEST_COMPRESSED_PACKET: usize = 143;

/// How many compressors the process keeps, or as many as it has processors, if those are more. So a
/// program with a few connections never changes the state of one.
pub(crate) const CONTEXTS_KEPT: usize = 4;

/// How large the output buffer of a compressor stays: room for a full packet of a session.
pub(crate) const COMPRESSED_SCRATCH_BYTES: usize = 64 << 10;

/// The memory of one decompressor: its largest window and its tables.
pub(crate) const DECOMPRESSOR_BYTES: usize = 48 << 10;

/// How many bytes are inflated, or taken, before the pump looks at its turn's bound again. A few
/// bytes can inflate to a thousand times as many.
pub(crate) const INFLATE_STEP_BYTES: usize = READ_TURN_BYTES;

/// What it costs to begin a new stream within a message, in bytes of that work. A peer can ask for it
/// with two bytes.
pub(crate) const INFLATE_RESTART_COST: usize = 4 << 10;

/// How much one turn reads before it writes, in bytes and in frames. Frames count because empty ones
/// cost time too.
pub(crate) const READ_TURN_BYTES: usize = 64 << 10;
pub(crate) const READ_TURN_FRAMES: usize = 1024;

/// How long work is left to an application that drives its connection and stops in the middle. Then
/// the connection's task goes on. It is the shortest time of Tokio's timer.
pub(crate) const DRIVE_WATCH: Duration = Duration::from_millis(1);

/// How many turns one call of `recv` drives, at most: enough for a message of 1 MiB.
pub(crate) const DRIVE_TURNS: usize = 32;

/// How many turns the connection's task runs before it yields, at most, while the application waits for
/// a long message: enough for a message of 1 MiB, and less than half a millisecond.
pub(crate) const TASK_TURNS: usize = 8;

/// How many bytes of short messages a sender queues, in full packets, before it writes them itself. Their
/// packets are then still in the processor's cache.
pub(crate) const DRIVE_BYTES: usize = 64 << 10;

/// The same for long messages, which are written from where they lie: a whole batch for each system call.
pub(crate) const DRIVE_LONG_BYTES: usize = WRITE_BATCH_BYTES;

/// How many bytes of the outbox `send_many` reserves at once, at most. A full packet of messages of
/// 64 bytes needs as much.
pub(crate) const RUN_BYTES: usize = 128 << 10;

/// How many bytes of messages `send_many` queues for a connection that compresses before it writes them
/// itself: a batch. More of them would push each other and the compressor's tables out of the processor's
/// cache before they are compressed.
pub(crate) const COMPRESSED_RUN_BYTES: usize = WRITE_BATCH_BYTES;

/// How many bytes a session writes before it looks for acknowledgements at the socket itself, which is a
/// system call. What was acknowledged and is not heard is kept, and pushes the rest out of the cache.
pub(crate) const HEAR_BYTES: usize = 256 << 10;

/// The same for a compressed session. They stand for several times as many bytes of messages.
pub(crate) const HEAR_COMPRESSED_BYTES: usize = 16 << 10;

/// How many bytes one turn writes before it reads.
pub(crate) const WRITE_TURN_BYTES: usize = 256 << 10;

/// What a queued message costs in addition to its payload, in bytes. It covers the message's place in
/// the queue, which may be twice as large as it is full, and the allocator's share. So floods of
/// empty messages are bounded too.
pub const MESSAGE_OVERHEAD_BYTES: usize = 208;

/// Payloads of up to this many bytes are stored inside the [`Message`](crate::Message) itself. It is a
/// cache line, and holds most prices, ticks and commands.
pub(crate) const SHORT_BYTES: usize = 64;

/// The largest buffer that holds a session's packet: twice the largest packet.
pub(crate) const PACKET_BUFFER_BYTES: usize = 2 * (64 << 10);

/// Sent messages of up to this many bytes share packets in the outbox. At least four fill a packet.
/// A longer message has an entry of its own.
pub(crate) const PACKED_BYTES: usize = 8 << 10;

/// Received plain messages of up to this many bytes share packets in the inbox. Copying longer ones
/// once more would cost more than it saves.
pub(crate) const PACKED_RECEIVED_BYTES: usize = 1 << 10;

/// What a message queued under `Conflate` costs in addition to that and to the bytes of its key. It
/// covers the key's place in the index, and the count of the messages that it replaced.
pub(crate) const CONFLATE_OVERHEAD_BYTES: usize = 192;

/// A queue that has grown beyond this many places gives its memory back when it runs empty.
pub(crate) const IDLE_QUEUE_PLACES: usize = 64;

/// How long after its `Receiver` was dropped a session's discarded messages count as received. A
/// handler that returns drops both halves within microseconds: what it did not receive must not be
/// acknowledged in between. A second is far longer than a busy machine takes for that, and short for
/// a program that only sends.
pub const DISCARD_AFTER: Duration = Duration::from_secs(1);

/// How many messages a receiver hands out before it looks at the runtime's budget again.
pub(crate) const RECEIVE_YIELD_EVERY: u32 = 128;

/// How many characters of a peer's words an error shows: enough for a sentence, too few to flood a
/// log.
pub(crate) const BRIEF_CHARS: usize = 240;

/// How many events are kept for a slow listener. Older ones are counted as missed.
pub const EVENT_BACKLOG: usize = 256;

/// How many connections that have ended keep their last events for `status::events`: enough to look up
/// what just happened. Clients that come and go by the thousand take no more memory.
#[cfg(feature = "status")]
pub const ENDED_KEPT: usize = 128;

/// How many events each of them keeps: the last attempts and the reason of the end.
#[cfg(feature = "status")]
pub const ENDED_KEPT_EVENTS: usize = 32;

/// How many recoveries are kept for `status::recoveries`: a picture of the last minutes, in 40 KB.
#[cfg(feature = "status")]
pub const RECOVERIES_KEPT: usize = 1_000;

/// A budget never refuses this many bytes to a queue or a read buffer, so that no connection can
/// starve another to a standstill. They count in the budget all the same.
pub const BUDGET_FLOOR_BYTES: usize = 64 << 10;

/// A budget is drawn in steps, so that steady traffic draws nothing. A step is at most a
/// quarter of what is held: never more than that is drawn in vain. The smallest is a page, because ten thousand
/// connections with one short message each must stay cheap. The largest is a read of a streaming
/// connection: at that size the cost of a draw no longer shows.
pub(crate) const BUDGET_SMALLEST_STEP_BYTES: usize = 4 << 10;
pub(crate) const BUDGET_LARGEST_STEP_BYTES: usize = 64 << 10;

/// How many bytes more than a step stay drawn while traffic goes on. A queue that fills and empties
/// then draws every second time at most. An idle connection gives them back.
pub(crate) const BUDGET_SLACK_BYTES: usize = 64 << 10;

/// A connection that had proved itself is made again without a wait if it lasted this long, because
/// nothing says yet that the server is in trouble. A client whose connections are cut again and again
/// then connects at most ten times a second. If a server dies, the first attempt of each client fails
/// at once, and their second attempts are spread over time.
pub const RECONNECT_AT_ONCE: Duration = Duration::from_millis(100);

/// The first wait before a reconnect is drawn between zero and this (full jitter).
pub const RECONNECT_FIRST: Duration = Duration::from_millis(250);

/// The longest wait before a reconnect. A server that is back after it lost 1,000 clients then sees
/// about 1,000 / 15 s = 67 attempts a second.
pub const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// A connection has proved itself if it lasted this long and received something, or if it moved
/// messages of a session. After its loss the first attempt is made without a wait.
pub const RECONNECT_PROOF: Duration = Duration::from_secs(10);

/// How many bytes of sent messages a session keeps until they are acknowledged: two of the largest
/// messages, and more than the largest window.
pub const REPLAY_BYTES: usize = 32 << 20;

/// The largest receive window of a session, in bytes: 1 Gbit/s with a round trip of 60 ms.
pub const WINDOW_BYTES: usize = 8 << 20;

/// The first receive window of a session, in bytes: 100 Mbit/s with a round trip of 80 ms.
pub(crate) const FIRST_WINDOW_BYTES: u64 = 1 << 20;

/// How much of a session's messages one acknowledgement covers, in bytes of credit. More of them cost
/// both sides a system call each, and wake a thread of the sender. Half of the first window is granted
/// anew at a time, so that an acknowledgement and a renewal of credit share a write.
pub(crate) const ACKNOWLEDGE_BYTES: u64 = FIRST_WINDOW_BYTES / 2;

/// The same where compression may be agreed. Compressing is so slow that more acknowledgements cost
/// little, and the packets that lie between two of them stay in the processor's cache.
pub(crate) const ACKNOWLEDGE_COMPRESSED_BYTES: u64 = 128 << 10;

/// How long a session lives without a connection. It covers a deployment, a tunnel, and a laptop that
/// is carried to another room.
pub const SESSION_LIFE: Duration = Duration::from_secs(120);

/// The largest size of a spill file, in bytes: a few minutes of a stream of 5 MB/s, and little on any
/// disk.
pub const SPILL_BYTES: u64 = 1 << 30;

/// How many bytes are moved to or from the spill file in one operation.
pub(crate) const SPILL_CHUNK_BYTES: usize = 256 << 10;

// ---- Sockets, dialing and the server ----

/// How much may wait unsent in the kernel (TCP_NOTSENT_LOWAT): a batch, so that the socket never runs
/// dry, and a pong, an acknowledgement or an answer never waits behind megabytes.
pub(crate) const NOT_SENT_BYTES: u32 = WRITE_BATCH_BYTES as u32;

/// Idle time before TCP sends its first keepalive probe. Heartbeats find a dead peer first; this
/// keeps the entries of NATs and firewalls alive (the shortest common timeout is 60 s) and clears
/// away sockets whose heartbeats were turned off.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);
/// Time between two keepalive probes once one went unanswered.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered probes until the kernel gives the socket up: 45 s + 4 x 15 s is under two minutes.
pub(crate) const KEEPALIVE_RETRIES: u32 = 4;

/// Head start of the preferred address family over the other (RFC 8305 section 8 allows 10 ms to
/// 2 s and recommends 250 ms; 300 ms is what RFC 6555 measured and what curl once chose).
pub(crate) const HAPPY_EYEBALLS_DELAY: Duration = Duration::from_millis(300);
/// The shortest password or query that is hidden in a server's refusal. Any sentence has shorter ones.
pub(crate) const SHORTEST_SECRET: usize = 4;
/// The shortest value of a header or of a query's parameter that is hidden in a server's refusal.
/// Tokens are longer. Shorter values are words such as `room=lobby`, which the refusal may be about.
pub(crate) const SHORTEST_TOKEN: usize = 8;
/// How many characters of a subprotocol's name are told in an error. Registered names are shorter.
/// Some clients put a token into the list, which is longer.
pub(crate) const SUBPROTOCOL_CHARS: usize = 32;
/// The longest user name for a SOCKS4 proxy, whose protocol has no limit. With a host's name of 255
/// bytes it has to fit into the 513 bytes in which `tokio-socks` writes the request.
pub(crate) const SOCKS4_USER_BYTES: usize = 200;
/// The largest head of an HTTP response that a dialing client takes. Common servers stop at 8 to
/// 16 KiB themselves; twice that leaves room for many cookies.
pub(crate) const RESPONSE_HEAD_BYTES: usize = 32 * 1024;
/// How much of the body of a refusal is kept for the error: enough for a sentence or a JSON error.
pub(crate) const REFUSAL_BODY_BYTES: usize = 1024;
/// The timeout for that body. The refusal itself is known already, so it is not worth more.
pub(crate) const REFUSAL_BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wait that a server may ask a client for: by `Retry-After`, by refusing a session, or
/// over how long it spreads its clients when it goes away. An operator may mean a day; a year is a
/// mistake or malice.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Length of the queue of connections that the kernel completed and the server has not accepted
/// yet. Linux caps it at `net.core.somaxconn`, 4096 by default: a fleet that reconnects at once
/// must fit in, because what does not waits a second for its next SYN.
pub(crate) const LISTEN_BACKLOG: u32 = 4096;
/// Open connections of a server. Idle they cost less than 20 KiB each beside the kernel's: ten
/// thousand stay far under half a GiB and under the usual limits of file descriptors of a service.
pub(crate) const SERVER_CONNECTIONS: usize = 10_000;
/// Handshakes at once. Each holds a header buffer and perhaps a TLS handshake; a thousand is
/// more than two cores finish in the handshake's time.
pub(crate) const SERVER_HANDSHAKES: usize = 1_024;
/// How long a handshake may wait for its client before it can be closed for another client, and how
/// long a client waits while no place comes free. A fleet that comes back finds a place free every
/// millisecond; if none comes free for a second, clients are stalling on purpose. Less would close
/// honest handshakes while two cores work through a thousand TLS handshakes.
pub(crate) const SERVER_HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);
/// Clients that wait for their handshake: as many as the kernel would queue. Each costs a file
/// descriptor and what the kernel has received from it.
pub(crate) const SERVER_LINE: usize = 4096;
/// While clients wait: between two looks at who has waited, or stalled, too long. A twentieth of
/// the patience.
pub(crate) const SERVER_LINE_TICK: Duration = Duration::from_millis(50);
/// The header of the PROXY protocol with all its extensions. The addresses take 232 bytes at most;
/// load balancers add identifiers and the names of certificates.
pub(crate) const PROXY_HEADER_BYTES: usize = 4096;
/// Time for TLS, the request's head and authentication together. A client on a bad mobile link
/// needs two to three round trips of a second; the rest is for the authentication service.
pub(crate) const SERVER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of the handshake's timeout is kept for the refusal if the authentication hook takes too
/// long.
pub(crate) const SERVER_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The head of the upgrade request: room for large cookies and bearer tokens.
pub(crate) const SERVER_HEADER_BYTES: usize = 16 * 1024;
/// hyper takes no smaller `max_buf_size`.
pub(crate) const HYPER_SMALLEST_BUFFER: usize = 8192;
/// What a header line costs in memory beside its text: its places in a map that may be twice as
/// large as it is full, and the allocator's share.
pub(crate) const HEADER_OVERHEAD_BYTES: usize = 192;
/// Header lines of the upgrade request. Browsers behind two proxies send about thirty.
pub(crate) const SERVER_HEADERS: usize = 100;
/// How many sessions a server has, with or without a connection. It is twice the number of its
/// connections: as many sessions again may be between two connections.
pub const SERVER_SESSIONS: usize = 20_000;
/// The time over which a server that goes away spreads its clients. 10,000 clients then make 1,000
/// attempts a second.
pub const GO_AWAY_SPREAD: Duration = Duration::from_secs(10);
/// Bytes that all connections of a process may hold together: with what nobody counts, the process
/// stays under 1 GiB. That is what an allocator keeps in its holes (an eighth more was measured, with
/// glibc and ninety messages of 16 MiB), tasks, and TLS.
pub(crate) const SERVER_PROCESS_BYTES: usize = 768 << 20;
/// Connections over a limit that are being told so at once. Beyond it they are closed unanswered:
/// refusing must stay cheap while ten thousand arrive.
pub(crate) const SERVER_REFUSALS: usize = 512;
/// Time to read a request that will be refused and to write the refusal.
pub(crate) const SERVER_REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// What a refusal over the limits says in `Retry-After`. Clients add their own jitter.
pub(crate) const SERVER_RETRY_AFTER: Duration = Duration::from_secs(5);
/// First pause after `accept` failed for want of a resource (file descriptors, memory).
pub(crate) const ACCEPT_BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// Longest such pause: descriptors come back within a second when connections close.
pub(crate) const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How many WebSockets one HTTP/2 connection of a server may carry. RFC 9113 section 6.5.2 recommends
/// at least 100, because a reverse proxy sends many clients through one connection.
#[cfg(feature = "http2")]
pub(crate) const HTTP2_STREAMS: u32 = 128;
/// How many bytes of one HTTP/2 stream may wait for its connection, in each direction. As much as a
/// window of reads; more would not make a stream faster that crosses a continent in 100 ms at 5 Mbit/s.
#[cfg(feature = "http2")]
pub(crate) const HTTP2_STREAM_BYTES: u32 = 64 * 1024;
/// The same for all streams of a connection together: each has its whole window, so that streams that
/// are not read never hold up another one.
#[cfg(feature = "http2")]
pub(crate) const HTTP2_CONNECTION_BYTES: u32 = HTTP2_STREAMS * HTTP2_STREAM_BYTES;
/// How long an HTTP/2 connection without a WebSocket stays open. A page that is loaded again comes back
/// within it.
#[cfg(feature = "http2")]
pub(crate) const HTTP2_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an HTTP/2 connection whose last stream has ended may take to send what it holds.
#[cfg(feature = "http2")]
pub(crate) const HTTP2_GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a shutdown waits, after its own timeout, until aborted tasks have ended. Only a handler
/// that blocks its thread takes longer, and nothing can stop that one.
pub(crate) const SHUTDOWN_ABORT_TIMEOUT: Duration = Duration::from_secs(1);

// ---- The doctor ----

/// A verdict uses the fewest looks that cover this time. With a longer time, a connection that has
/// just got stuck would show late. With a shorter one, a program that is busy for a moment would
/// look stuck.
pub(crate) const DOCTOR_OBSERVED: Duration = Duration::from_secs(2);
/// A look that follows the one before within this time replaces it. So at most `DOCTOR_OBSERVED`
/// divided by this, and two, are kept of each connection.
pub(crate) const DOCTOR_SPACING: Duration = Duration::from_millis(50);
/// A program must have left bytes unread for this long before the verdict says that it does not
/// read. A program that is busy for a moment between two reads is healthy.
pub(crate) const DOCTOR_STILL: Duration = Duration::from_secs(1);
/// The window of a peer that cannot be seen must have been closed for this long before the verdict
/// says that the peer does not read. A slow reader with a large buffer opens its window only now and
/// then.
pub(crate) const DOCTOR_CLOSED_WINDOW: Duration = Duration::from_secs(5);
/// A peer counts as slow if its window limited the sender for this share of the time: most of it,
/// with some allowance for the first look.
pub(crate) const DOCTOR_LIMITED_SHARE: f64 = 0.8;
/// If nothing arrives for this long while packets wait for an acknowledgement, the network is at
/// fault. That is longer than common retransmission timeouts, and found before the kernel's timer
/// shows it.
pub(crate) const DOCTOR_SILENCE: Duration = Duration::from_secs(3);
