//! What can be asked of a session at any time.

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages accepted for sending.
    pub messages_sent: u64,
    /// Packets given to connections.
    pub packets_sent: u64,
    /// Packets that came from the current connection.
    pub packets_received: u64,
    /// Records that were sent before and begun again after a resume.
    pub replayed: u64,
    /// Packets of unknown kinds that were ignored.
    pub ignored: u64,
}

/// Counters, and how full everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What has happened so far.
    pub counters: Counters,
    /// Records that came twice and were dropped.
    pub duplicates: u64,
    /// What is accepted and not acknowledged, in bytes as credit counts them.
    pub unacknowledged: u64,
    /// What was received and not taken, in bytes as credit counts them.
    pub untaken: u64,
    /// The receive window, in bytes.
    pub window: u64,
    /// How much more the peer lets this side send, in bytes.
    pub credit: u64,
    /// How much more this side lets the peer send, in bytes.
    pub granted: u64,
}

/// What sending waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// No connection, or the resume exchange is not done.
    Connection,
    /// The peer's credit: its application is not taking.
    Credit,
    /// The connection: it has not asked for the next packet.
    Transport,
    /// Room to accept more: the peer has not acknowledged enough.
    Replay,
    /// Nothing here: all is sent, and the peer has not acknowledged it yet.
    Acknowledgement,
}
