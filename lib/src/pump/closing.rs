//! The closing handshake (RFC 6455 section 7), and how long each part of it may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    defaults::LINGER_TIMEOUT,
    handles::CloseRequest,
    reports::{Close, CloseCode, ConnectionError},
    settings::Options,
    time::later,
};

/// How far the closing of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The application asked for the close. The accepted messages are written first.
    Draining,
    /// A close frame was sent or received. This side still reads.
    Closing,
    /// The socket can no longer be written. What the peer sent before is still read, unless that is
    /// `paused` until the application has made room.
    Listening {
        paused: bool,
    },
    /// Nothing more is read or said. The last bytes are flushed, and the peer's FIN is awaited.
    Lingering,
}

/// The closing of a connection.
pub(super) struct Closing {
    pub(super) phase: Phase,
    /// When the connection ends, however far the closing has come. `None` in the phase `Open`.
    pub(super) deadline: Option<Instant>,
    /// The application's request.
    pub(super) request: Option<CloseRequest>,
    /// The peer's close frame.
    pub(super) peer: Option<Close>,
    /// Why the connection ends, if nobody asked for it.
    why: Option<ConnectionError>,
    /// Both close frames were exchanged.
    pub(super) clean: bool,
    /// How long the peer may take to answer with its close frame.
    timeout: Duration,
    /// How long the application may receive nothing once the connection is broken.
    patience: Duration,
}

impl Closing {
    pub(super) fn new(options: &Options) -> Closing {
        Closing {
            phase: Phase::Open,
            deadline: None,
            request: None,
            peer: None,
            why: None,
            clean: false,
            timeout: options.close_timeout,
            patience: options.silence_timeout,
        }
    }

    /// Whether messages may still be written.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining)
    }

    /// Sets the deadline, if it is earlier than the present one.
    fn end_by(&mut self, deadline: Instant) {
        let earlier = self.deadline.filter(|earlier| *earlier < deadline);
        self.deadline = earlier.or(Some(deadline));
    }

    /// The application asks for the close. `true`: the accepted messages have to be written first.
    pub(super) fn request(&mut self, request: CloseRequest) -> bool {
        self.end_by(request.deadline);
        self.request = Some(request);
        let drains = self.phase == Phase::Open;
        if drains {
            self.phase = Phase::Draining;
        }
        drains
    }

    /// This side sends its close frame. Returns its code and reason. `failed` is the code to use if
    /// the peer broke the session protocol.
    pub(super) fn begin(&mut self, failed: Option<CloseCode>, now: Instant) -> (CloseCode, &str) {
        self.phase = Phase::Closing;
        self.end_by(later(now, self.timeout));
        match (failed, &self.request) {
            (Some(code), _) => (code, ""),
            (None, Some(request)) => (request.code, &request.reason),
            (None, None) => (CloseCode::NORMAL, ""),
        }
    }

    /// The peer's close frame has arrived.
    pub(super) fn peer_closes(&mut self, close: Close, now: Instant) {
        self.peer = Some(close);
        self.phase = Phase::Closing;
        self.end_by(later(now, self.timeout));
    }

    /// If the peer has sent its close frame too, the closing handshake is complete. The server then
    /// closes the TCP connection (RFC 6455 section 7.1.1), for which it has a moment.
    pub(super) fn complete(&mut self, now: Instant) {
        if self.peer.is_some() && !self.clean {
            self.clean = true;
            self.end_by(later(now, LINGER_TIMEOUT));
        }
    }

    /// The socket can no longer be written. From now on this side only listens.
    pub(super) fn only_listen(&mut self, why: ConnectionError, paused: bool, now: Instant) {
        self.because(why);
        if !matches!(self.phase, Phase::Listening { .. }) {
            self.listen(paused, now);
        }
    }

    /// Called in each turn. Whenever the application has made room, it gets its time anew.
    pub(super) fn look_at_pause(&mut self, paused: bool, now: Instant) {
        if matches!(self.phase, Phase::Listening { paused: before } if before != paused) {
            self.listen(paused, now);
        }
    }

    fn listen(&mut self, paused: bool, now: Instant) {
        self.phase = Phase::Listening { paused };
        let patience = if paused { self.patience } else { self.timeout };
        let requested = self.request.as_ref().map(|request| request.deadline);
        self.deadline = requested.or(Some(later(now, patience)));
    }

    /// Whether the deadline is over. If it was the application that took too long, that is why the
    /// connection ends.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let over = self.deadline.is_some_and(|deadline| deadline <= now);
        if over && self.phase == (Phase::Listening { paused: true }) && self.request.is_none() {
            self.why = Some(ConnectionError::NotReceived(self.patience));
        }
        over
    }

    /// Nothing more is read or said.
    pub(super) fn linger(&mut self, now: Instant) {
        self.phase = Phase::Lingering;
        self.end_by(later(now, LINGER_TIMEOUT.min(self.timeout)));
    }

    /// Sets why the connection ends. Only the first reason counts.
    pub(super) fn because(&mut self, why: ConnectionError) {
        self.why.get_or_insert(why);
    }

    /// Why the connection has ended. `None` after a normal close.
    pub(super) fn take_why(&mut self) -> Option<ConnectionError> {
        match &self.peer {
            // The peer's close frame says why. How the socket failed afterwards does not matter.
            Some(close) => abnormal(close.clone()),
            None => self.why.take(),
        }
    }
}

/// The error for a close whose code is not that of a normal end.
fn abnormal(close: Close) -> Option<ConnectionError> {
    match close.code {
        None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) => None,
        Some(_) => Some(ConnectionError::ClosedByPeer(close)),
    }
}

/// The code of the close frame that tells the peer of a failure (RFC 6455 section 7.1.7). `None`: the
/// peer cannot be told.
pub(super) fn close_code(why: &ConnectionError) -> Option<CloseCode> {
    match why {
        ConnectionError::Protocol(_) => Some(CloseCode::PROTOCOL_ERROR),
        ConnectionError::InvalidText => Some(CloseCode::INVALID_PAYLOAD),
        ConnectionError::MessageTooLarge { .. } => Some(CloseCode::MESSAGE_TOO_BIG),
        ConnectionError::InboxFull => Some(CloseCode::POLICY_VIOLATION),
        // This side is short of memory for a while. The peer may come back.
        ConnectionError::Evicted { .. } => Some(CloseCode::TRY_AGAIN_LATER),
        _ => None,
    }
}
