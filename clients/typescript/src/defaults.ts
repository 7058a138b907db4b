/** Every default and fixed limit of the connection layer, with its reason. All times are milliseconds. */

/** For the token, name resolution, TCP, TLS and upgrade together. Three lost SYNs (1 + 2 + 4 s) still fit. */
export const CONNECT_TIMEOUT = 10_000;
/** Between two pings. Common proxies cut connections that are idle for 60 s. */
export const PING_INTERVAL = 10_000;
/** A connection is lost if nothing is received for this long. By then two pings were not answered. */
export const SILENCE_TIMEOUT = 30_000;
/** For the answer to a ping when a page comes back, or the network changes. A person is waiting then. */
export const CHECK_TIMEOUT = 5_000;
/** A timer that is this late says that timers are throttled, or that the machine slept. */
export const LATE_TIMER = 2_000;
/** Answers that arrived during such a sleep are handled within this time. */
export const LATE_GRACE = 1_000;
/** The bound of the first random wait between two attempts. */
export const RECONNECT_FIRST = 250;
/** The bound of the longest random wait. */
export const RECONNECT_MAX = 30_000;
/** A connection that lived this long and received something has proved itself. */
export const RECONNECT_PROOF = 10_000;
/** When a proved connection lived at least this long, the first attempt after it does not wait. */
export const RECONNECT_AT_ONCE = 100;
/** The longest wait that a server may ask for. An operator may mean a day; a year is a mistake or malice. */
export const RETRY_AFTER_MAX = 24 * 60 * 60 * 1000;
/**
 * How much may wait in the WebSocket's own buffer. What is not given to it can be overtaken by pings and
 * acknowledgements. A WebSocket does not say when its buffer is empty, so it is looked at by a timer, and the
 * bound follows what it drains in between.
 */
export const BUFFER_LEAST = 64 << 10;
export const BUFFER_FIRST = 512 << 10;
export const BUFFER_MOST = 4 << 20;
/** Between two looks at that buffer. Browsers do not run a repeated timer more often. */
export const BUFFER_LOOK = 4;
/**
 * How much one acknowledgement covers. More of them cost both sides a system call each. The server grants half
 * of a window of 1 MiB anew at a time, so an acknowledgement and a renewal of credit come together.
 */
export const ACKNOWLEDGE_COST = 512 << 10;
/** The largest WebSocket message, where the protocol does not say less. */
export const LARGEST = 16 << 20;
