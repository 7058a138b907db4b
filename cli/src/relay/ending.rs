//! With which code and reason one side is closed when the other has ended.
//!
//! A code that a peer sent passes as it is, with its reason. What is no close frame becomes one that
//! says what happened: 1006 and 1015 are never sent, and a close frame without a code becomes 1000.
//! - 1012 (service restart): upstream was lost, or the session with the relay there. It tells a client to
//!   connect again. 1014 (bad gateway) would say more, but Go's gorilla and Rust's tungstenite take it
//!   for a violation of the protocol.
//! - 1008 (policy violation): the client reads too slowly, or more of it has to be remembered than may be.
//! - 1001 (going away): to upstream, its client was lost; to both sides, the relay shuts down.

use unstall::{Close, CloseCode, CloseReport, ConnectError, ConnectionError, Gap};

use super::remembered::Full;
use crate::failure::chain;

/// A close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

/// The other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Upstream,
}

impl Farewell {
    pub(super) fn new(code: CloseCode, reason: impl Into<String>) -> Farewell {
        let reason = reason.into();
        Farewell { code, reason }
    }

    /// For the side that is left, when the other one has ended with this report.
    pub(super) fn of_report(from: From, report: &CloseReport) -> Farewell {
        match (&report.peer, &report.error) {
            (Some(close), _) => Farewell::of_close(from, close),
            (None, Some(error)) => Farewell::of_error(from, error),
            (None, None) => Farewell::shutting_down(),
        }
    }

    /// For the side that is left, when the other one was lost with this error.
    pub(super) fn of_error(from: From, error: &ConnectionError) -> Farewell {
        let lost = match from {
            From::Client => CloseCode::GOING_AWAY,
            From::Upstream => CloseCode::SERVICE_RESTART,
        };
        match (error, from) {
            (ConnectionError::ClosedByPeer(close), _) => Farewell::of_close(from, close),
            (ConnectionError::ClosedHere, _) => Farewell::shutting_down(),
            (ConnectionError::InboxFull, From::Upstream) => Farewell::new(
                CloseCode::POLICY_VIOLATION,
                "read faster: the relay's buffer for what you have not read is full",
            ),
            (ConnectionError::Evicted { .. }, From::Upstream) => Farewell::new(
                CloseCode::TRY_AGAIN_LATER,
                "the relay has no memory left, and this connection held the most",
            ),
            (ConnectionError::MessageTooLarge { limit, .. }, From::Upstream) => Farewell::new(
                CloseCode::MESSAGE_TOO_BIG,
                format!("a message from upstream is larger than the relay's {limit} bytes"),
            ),
            (ConnectionError::SessionLost(why), From::Upstream) => Farewell::new(
                lost,
                format!("the session between the relays was lost: {why}"),
            ),
            (ConnectionError::SessionLost(why), From::Client) => {
                Farewell::new(lost, format!("the client's session was lost: {why}"))
            }
            (error, From::Upstream) => Farewell::new(
                lost,
                format!("the connection upstream was lost: {}", chain(error)),
            ),
            (error, From::Client) => {
                Farewell::new(lost, format!("the client was lost: {}", chain(error)))
            }
        }
    }

    /// For the side that is left, when messages of the other one are missing.
    pub(super) fn of_gap(from: From, gap: &Gap) -> Farewell {
        match gap {
            Gap::Reconnected { why, .. } | Gap::SessionLost { why } => {
                Farewell::of_error(from, why)
            }
            _ => Farewell::new(CloseCode::SERVICE_RESTART, "messages are missing here"),
        }
    }

    fn of_close(from: From, close: &Close) -> Farewell {
        let Some(code) = close.code else {
            return Farewell::new(CloseCode::NORMAL, close.reason.as_str());
        };
        match CloseCode::new(code.as_u16()) {
            Some(code) => Farewell::new(code, close.reason.as_str()),
            None => {
                let code = match from {
                    From::Client => CloseCode::GOING_AWAY,
                    From::Upstream => CloseCode::SERVICE_RESTART,
                };
                Farewell::new(code, format!("closed with {close}"))
            }
        }
    }

    /// For a session whose upstream connection could not be made: its handshake is over.
    pub(super) fn of_refusal(error: &ConnectError) -> Farewell {
        let reason = match error {
            ConnectError::Refused { status, .. } => format!("upstream refused with {status}"),
            _ => "upstream cannot be reached".to_owned(),
        };
        // A client of the library connects again after 1013, and not after 1008.
        let code = match error.is_retryable() {
            true => CloseCode::TRY_AGAIN_LATER,
            false => CloseCode::POLICY_VIOLATION,
        };
        Farewell::new(code, reason)
    }

    /// For upstream, if its client was gone before it could be answered.
    pub(super) fn client_never_came() -> Farewell {
        Farewell::new(CloseCode::GOING_AWAY, "the client did not come in")
    }

    /// For a new session at a path that is not served any more: its handshake is over.
    pub(super) fn no_route() -> Farewell {
        let why = "the relay does not serve this path";
        Farewell::new(CloseCode::POLICY_VIOLATION, why)
    }

    /// For a session above the limit of its route: its handshake is over.
    pub(super) fn route_is_full() -> Farewell {
        Farewell::new(
            CloseCode::TRY_AGAIN_LATER,
            "this route has as many clients as it may have",
        )
    }

    /// For a client whose messages are to be remembered, and there is no room for more.
    pub(super) fn of_full(full: Full) -> Farewell {
        match full {
            Full::Client => Farewell::new(
                CloseCode::POLICY_VIOLATION,
                "subscribe to less: the relay cannot remember so much for one connection",
            ),
            Full::All => Farewell::new(
                CloseCode::TRY_AGAIN_LATER,
                "the relay has no memory left for what it has to remember",
            ),
        }
    }

    /// For a client that cannot go over to a new connection upstream without missing something.
    pub(super) fn of_age() -> Farewell {
        Farewell::new(
            CloseCode::SERVICE_RESTART,
            "the connection upstream is as old as it may get: connect again",
        )
    }

    pub(super) fn shutting_down() -> Farewell {
        Farewell::new(CloseCode::GOING_AWAY, "the relay shuts down")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: From, error: ConnectionError) -> (u16, String) {
        let farewell = Farewell::of_error(from, &error);
        (farewell.code.as_u16(), farewell.reason)
    }

    #[test]
    fn what_is_no_close_frame_becomes_one_that_says_what_happened() {
        let (code, reason) = of(From::Upstream, ConnectionError::EndOfStream);
        assert_eq!(code, 1012);
        assert!(
            reason.starts_with("the connection upstream was lost"),
            "{reason}"
        );
        let (code, reason) = of(From::Client, ConnectionError::EndOfStream);
        assert_eq!(code, 1001);
        assert!(reason.starts_with("the client was lost"), "{reason}");
        assert_eq!(of(From::Upstream, ConnectionError::InboxFull).0, 1008);
    }

    #[test]
    fn a_relay_that_closes_by_itself_says_that_it_goes_away() {
        let report = CloseReport::default();
        let farewell = Farewell::of_report(From::Client, &report);
        assert_eq!(farewell, Farewell::shutting_down());
    }
}
