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
///
/// Two units occur. *Memory* is what is really held, in bytes. *Cost* is what credit and the replay
/// limit count: the bytes of each record's payload and
/// [`RECORD_OVERHEAD`](crate::limits::RECORD_OVERHEAD). They differ: a message whose records have one
/// byte each costs 65 for every byte that it takes in memory, and a shared block of packets that are
/// not full takes more memory than they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What has happened so far.
    pub counters: Counters,
    /// Records that came twice and were dropped.
    pub duplicates: u64,
    /// The memory that is kept for sending: packets that are not acknowledged, and the blocks into
    /// which the next are encoded. Of a message sent by
    /// [`send_shared`](crate::Session::send_shared), its own length.
    pub send_memory: u64,
    /// The memory that is kept of what was received: messages until they are
    /// [taken](crate::Session::taken), and the message that is not whole yet. A packet counts until
    /// its last message is taken, also after [`recv`](crate::Session::recv) has handed it over.
    pub receive_memory: u64,
    /// The cost of what was accepted for sending and is not acknowledged. At most
    /// [`Config::replay`](crate::Config::replay).
    pub unacknowledged_cost: u64,
    /// The cost of what was received and not taken. At most the largest window, and what one
    /// largest message costs in its records.
    pub untaken_cost: u64,
    /// The cost that the receive window admits, taken anew.
    pub window: u64,
    /// The cost of what the peer still lets this side send.
    pub credit: u64,
    /// The cost of what this side still lets the peer send.
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
