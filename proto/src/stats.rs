//! The statistics of a session.

/// How often things have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages accepted for sending.
    pub messages_sent: u64,
    /// Packets given to connections.
    pub packets_sent: u64,
    /// Packets received on current connections.
    pub packets_received: u64,
    /// Records that were sent again after a resume.
    pub replayed: u64,
    /// Packets of unknown kinds that were ignored.
    pub ignored: u64,
}

/// The counters, and how full everything is.
///
/// There are two units. *Memory* is what is really held, in bytes. *Cost* is what credit and the
/// replay limit count: for each record, the length of its payload and
/// [`RECORD_OVERHEAD`](crate::limits::RECORD_OVERHEAD). The two differ much where a peer wants it:
/// a message in records of one byte costs 65 for each byte of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How often things have happened.
    pub counters: Counters,
    /// Records that came twice and were dropped.
    pub duplicates: u64,
    /// The memory that is held for sending, in bytes: packets that are not acknowledged, and the
    /// blocks for the next ones. A message sent by [`send_shared`](crate::Session::send_shared)
    /// counts with its own length.
    pub send_memory: u64,
    /// The memory that is held of what was received, in bytes: messages until they are
    /// [taken](crate::Session::taken), and the message that is not whole yet. A packet counts until
    /// its last message is taken, also after [`recv`](crate::Session::recv) has handed it over.
    pub receive_memory: u64,
    /// The cost of what was accepted for sending and is not acknowledged. At most
    /// [`Config::replay`](crate::Config::replay).
    pub unacknowledged_cost: u64,
    /// The cost of what was received and is not taken. At most the largest window and the cost of
    /// one largest message, which depends on its records.
    pub untaken_cost: u64,
    /// The receive window: the cost of what the peer may send while nothing is taken.
    pub window: u64,
    /// The cost of what this side may still send.
    pub credit: u64,
    /// The cost of what the peer may still send.
    pub granted: u64,
}

/// What sending waits for. [`Session::waits_for`](crate::Session::waits_for) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// A connection, or the end of the resume exchange.
    Connection,
    /// Credit: the peer's application does not take what it received.
    Credit,
    /// The connection: nobody has asked for the next packet.
    Transport,
    /// Room in the replay buffer: the peer has not acknowledged enough.
    Replay,
    /// Only the acknowledgement: everything is sent.
    Acknowledgement,
}
