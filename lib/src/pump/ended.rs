//! How a WebSocket ended.

use std::sync::Arc;

use super::Reading;
use crate::{
    handles::Shared,
    messages::CloseReport,
    reports::{Close, ConnectionError},
};

/// How a WebSocket ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` after a normal close.
    pub(crate) why: Option<ConnectionError>,
    /// Both close frames were exchanged.
    pub(crate) clean: bool,
    pub(crate) peer: Option<Close>,
    /// Messages in the write buffer, not whole on the socket.
    pub(crate) in_flight: u64,
    /// Something was received after the upgrade.
    pub(crate) received_any: bool,
    /// This side asked for the close.
    pub(crate) requested: bool,
}

impl Ended {
    /// This side asked for the close while no WebSocket was open.
    pub(crate) fn requested() -> Ended {
        Ended {
            requested: true,
            clean: true,
            ..Ended::because(ConnectionError::ClosedHere)
        }
    }

    /// No WebSocket could be opened.
    pub(crate) fn because(why: ConnectionError) -> Ended {
        Ended {
            why: Some(why).filter(|why| !matches!(why, ConnectionError::ClosedHere)),
            clean: false,
            peer: None,
            in_flight: 0,
            received_any: false,
            requested: false,
        }
    }

    /// Ends the handle: hands the last messages to the application, then the end of the stream.
    pub(crate) async fn finish(self, shared: &Shared, reading: &mut Reading) {
        let why = self.why.map(Arc::new);
        let report = CloseReport {
            clean: self.clean,
            peer: self.peer,
            in_flight: self.in_flight,
            error: why.clone(),
            ..CloseReport::default()
        };
        // An application that asked for the close is not told of an error.
        let end = why.filter(|_| !self.requested);
        reading.tell_overflow(shared);
        shared.end(end.clone(), report);
        reading.drain(shared).await;
        shared.inbox.end(end);
    }
}
