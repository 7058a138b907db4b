//! Every limit and waiting time of the library, each with the reason for its value.

use std::time::Duration;

// ---- Sockets, dialing and the server ----

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
/// The largest head of an HTTP response that a dialing client takes. Common servers stop at 8 to
/// 16 KiB themselves; twice that leaves room for many cookies.
pub(crate) const RESPONSE_HEAD_BYTES: usize = 32 * 1024;
/// How much of the body of a refusal is kept for the error: enough for a sentence or a JSON error.
pub(crate) const REFUSAL_BODY_BYTES: usize = 1024;
/// How long to wait for that body. The refusal itself is known already, so it is not worth more.
pub(crate) const REFUSAL_BODY_WAIT: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is believed. A day is what an operator may mean; a year is a
/// mistake or malice.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Length of the queue of connections that the kernel completed and the server has not accepted
/// yet. Linux caps it at `net.core.somaxconn`, 4096 by default: a fleet that reconnects at once
/// must fit in, because what does not waits a second for its next SYN.
pub(crate) const LISTEN_BACKLOG: u32 = 4096;
/// Open connections of a server. Plain connections cost some 10 to 20 KiB idle; ten thousand
/// stay under the usual limits of file descriptors of a service.
pub(crate) const SERVER_CONNECTIONS: usize = 10_000;
/// Handshakes at once. Each holds a header buffer and perhaps a TLS handshake; a thousand is
/// more than two cores finish in the handshake's time.
pub(crate) const SERVER_HANDSHAKES: usize = 1_024;
/// Time for TLS, the request's head and authentication together. A client on a bad mobile link
/// needs two to three round trips of a second; the rest is for the authentication service.
pub(crate) const SERVER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to write the refusal after the authentication hook ran into the handshake's deadline.
pub(crate) const SERVER_ANSWER_GRACE: Duration = Duration::from_secs(1);
/// The head of the upgrade request: room for large cookies and bearer tokens.
pub(crate) const SERVER_HEADER_BYTES: usize = 16 * 1024;
/// Header lines of the upgrade request. Browsers behind two proxies send about thirty.
pub(crate) const SERVER_HEADERS: usize = 100;
/// Bytes that all connections of a process may hold in their buffers together.
pub(crate) const SERVER_PROCESS_BYTES: usize = 1024 * 1024 * 1024;
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
/// After the deadline of a shutdown: time for aborted tasks to be gone. Only a handler that blocks
/// its thread needs more, and that one cannot be stopped.
pub(crate) const SHUTDOWN_ABORT_GRACE: Duration = Duration::from_secs(1);
