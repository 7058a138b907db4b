//! What a connection can wait for.

use std::fmt;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StallCause {
    /// This application does not receive its messages. The inbox is full, or the peer of a session
    /// waits for credit.
    ApplicationNotReading,
    /// The peer's application does not receive its messages. The credit that the peer gave is used
    /// up.
    OutOfCredit,
    /// The replay buffer is full: the peer has not acknowledged enough.
    ReplayFull,
    /// The socket accepts no more: the peer does not read, or the network is interrupted.
    SocketFull,
    /// A ping is unanswered.
    PeerSilent,
    /// There is no connection. A client connects, or waits before the next attempt; a server waits
    /// for the client of a session to come back.
    Connecting,
}

impl StallCause {
    /// All causes.
    pub const ALL: [StallCause; 6] = [
        StallCause::ApplicationNotReading,
        StallCause::OutOfCredit,
        StallCause::ReplayFull,
        StallCause::SocketFull,
        StallCause::PeerSilent,
        StallCause::Connecting,
    ];

    /// Its name in figures and in JSON: lower case, with underscores. It stays the same, where the
    /// sentence of `Display` may change.
    pub fn name(self) -> &'static str {
        match self {
            StallCause::ApplicationNotReading => "application_not_reading",
            StallCause::OutOfCredit => "out_of_credit",
            StallCause::ReplayFull => "replay_full",
            StallCause::SocketFull => "socket_full",
            StallCause::PeerSilent => "peer_silent",
            StallCause::Connecting => "connecting",
        }
    }
}

impl fmt::Display for StallCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StallCause::ApplicationNotReading => "this application is not reading",
            StallCause::OutOfCredit => "out of credit: the peer's application is not reading",
            StallCause::ReplayFull => "the peer has not acknowledged enough",
            StallCause::SocketFull => "the peer is not reading",
            StallCause::PeerSilent => "the peer is silent",
            StallCause::Connecting => "connecting",
        })
    }
}
