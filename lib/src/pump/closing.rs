//! The closing handshake (RFC 6455 section 7), and how long each part of it may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    defaults::LINGER_TIMEOUT,
    handles::CloseRequest,
    reports::{Close, CloseCode, ConnectionError},
    time::later,
};

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Close was asked for: the outbox is written first.
    Draining,
    /// A close frame was sent or received and the other is awaited, or the socket takes nothing any
    /// more: what the peer still has to say is read.
    Closing,
    /// Nothing more is said: the last bytes are flushed and the peer's FIN awaited.
    Lingering,
}

/// The end of a connection, from the first word of it.
pub(super) struct Closing {
    pub(super) phase: Phase,
    /// When the present phase, if it is not `Open`, is cut short.
    pub(super) deadline: Option<Instant>,
    pub(super) request: Option<CloseRequest>,
    pub(super) peer: Option<Close>,
    why: Option<ConnectionError>,
    /// Both close frames were exchanged.
    pub(super) clean: bool,
    /// How long the peer may take for its close frame.
    timeout: Duration,
}

impl Closing {
    pub(super) fn new(timeout: Duration) -> Closing {
        Closing {
            phase: Phase::Open,
            deadline: None,
            request: None,
            peer: None,
            why: None,
            clean: false,
            timeout,
        }
    }

    /// Whether messages may still be written.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining)
    }

    fn end_by(&mut self, deadline: Instant) {
        let earlier = self.deadline.filter(|earlier| *earlier < deadline);
        self.deadline = earlier.or(Some(deadline));
    }

    /// The application asks for the end. `true`: what was accepted is to be written first.
    pub(super) fn request(&mut self, request: CloseRequest) -> bool {
        self.end_by(request.deadline);
        self.request = Some(request);
        let drains = self.phase == Phase::Open;
        if drains {
            self.phase = Phase::Draining;
        }
        drains
    }

    /// This side sends its close frame: code and reason. `failed`: because the peer broke the
    /// protocol.
    pub(super) fn begin(&mut self, failed: Option<CloseCode>, now: Instant) -> (CloseCode, &str) {
        self.phase = Phase::Closing;
        self.end_by(later(now, self.timeout));
        match (failed, &self.request) {
            (Some(code), _) => (code, ""),
            (None, Some(request)) => (request.code, &request.reason),
            (None, None) => (CloseCode::NORMAL, ""),
        }
    }

    /// The peer's close frame came.
    pub(super) fn peer_closes(&mut self, close: Close, now: Instant) {
        self.peer = Some(close);
        self.phase = Phase::Closing;
        self.end_by(later(now, self.timeout));
    }

    /// Both close frames are on their way. The server closes the TCP connection (RFC 6455 section
    /// 7.1.1); it has a moment for it.
    pub(super) fn complete(&mut self, now: Instant) {
        if self.peer.is_some() && !self.clean {
            self.clean = true;
            self.end_by(later(now, LINGER_TIMEOUT));
        }
    }

    /// The socket takes nothing any more. What the peer said before may still wait to be read, for
    /// as long as the application takes.
    pub(super) fn only_listen(&mut self, why: ConnectionError, paused: bool, now: Instant) {
        self.phase = Phase::Closing;
        self.because(why);
        let patience = (!paused).then(|| later(now, self.timeout));
        let requested = self.request.as_ref().map(|request| request.deadline);
        self.deadline = requested.or(patience);
    }

    /// Nothing more is said.
    pub(super) fn linger(&mut self, now: Instant) {
        self.phase = Phase::Lingering;
        self.end_by(later(now, LINGER_TIMEOUT.min(self.timeout)));
    }

    /// Why the connection ends: the first reason counts.
    pub(super) fn because(&mut self, why: ConnectionError) {
        self.why.get_or_insert(why);
    }

    /// Why it has ended; `None` after a normal close.
    pub(super) fn take_why(&mut self) -> Option<ConnectionError> {
        match &self.peer {
            // The peer has said why, whatever became of the socket afterwards.
            Some(close) => abnormal(close.clone()),
            None => self.why.take(),
        }
    }
}

/// A close that is not the normal end of a stream.
fn abnormal(close: Close) -> Option<ConnectionError> {
    match close.code {
        None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) => None,
        Some(_) => Some(ConnectionError::ClosedByPeer(close)),
    }
}

/// What the peer is told before a connection is failed (RFC 6455 section 7.1.7).
pub(super) fn close_code(why: &ConnectionError) -> Option<CloseCode> {
    match why {
        ConnectionError::Protocol(_) => Some(CloseCode::PROTOCOL_ERROR),
        ConnectionError::InvalidText => Some(CloseCode::INVALID_PAYLOAD),
        ConnectionError::MessageTooLarge { .. } => Some(CloseCode::MESSAGE_TOO_BIG),
        ConnectionError::InboxFull => Some(CloseCode::POLICY_VIOLATION),
        // The want of memory is ours and passes: the peer may come back.
        ConnectionError::Evicted { .. } => Some(CloseCode::TRY_AGAIN_LATER),
        _ => None,
    }
}
