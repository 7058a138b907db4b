//! The client's side of a session's life: which connection it takes, and what follows its end.

use std::sync::Arc;

use tokio::time::Instant;
use unstall_proto::{EndReason, Session, SessionId, Token};

use super::{Link, closed_by_peer, random, session_error};
use crate::{
    error::{Close, CloseCode, CloseReport, ConnectionError},
    events::Event,
    inbox::End,
    message::Gap,
    pump::Reading,
    shared::Shared,
};

/// Whether a client wants a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// If the server agrees.
    #[default]
    Offered,
    Required,
    Never,
}

impl Link {
    pub(crate) fn client(shared: &Shared) -> Link {
        let config = shared.options.session_config();
        let session = Session::client(config, SessionId(random()), Token(random()));
        Link::new(session, shared, Instant::now())
    }

    /// Begins on a new connection. `false`: the session wants none.
    pub(crate) fn attach(&mut self) -> bool {
        let time = self.time(Instant::now());
        let generation = self.session().attach(time);
        generation
            .into_iter()
            .for_each(|generation| self.attached(generation));
        generation.is_some()
    }

    /// Gives the session up.
    pub(crate) fn abort(&mut self, reason: &str) {
        self.session().abort(reason);
    }

    /// After the end: collects what was not delivered, and says how the stream ends.
    pub(crate) fn conclude(&mut self, shared: &Shared) -> End {
        self.tell_events(shared, Instant::now());
        self.put_back_waiting(shared);
        let (lost_before, _) = shared.board.progress();
        self.collect_undelivered(shared);
        let end = match self.end() {
            Some(EndReason::Closed(frame)) => match CloseCode::received(frame.code) {
                CloseCode::NORMAL | CloseCode::GOING_AWAY => None,
                _ if self.closing => None,
                _ => Some(closed_by_peer(frame)),
            },
            Some(reason) => Some(session_error(reason)),
            None => Some(ConnectionError::Aborted),
        };
        let end = end.map(Arc::new);
        if let Some(why) = &end {
            let undelivered = shared.board.progress().0 - lost_before;
            shared.events.push(Event::SessionLost {
                why: why.clone(),
                undelivered,
            });
        }
        end
    }

    pub(crate) fn report(&self, error: End) -> CloseReport {
        let peer = match self.end() {
            Some(EndReason::Closed(frame)) => Some(Close {
                code: Some(CloseCode::received(frame.code)),
                reason: frame.reason.clone(),
            }),
            _ => None,
        };
        CloseReport {
            clean: peer.is_some(),
            peer,
            error,
            ..CloseReport::default()
        }
    }

    /// After the end of a client's session. `true`: another one is to follow, and what was received
    /// went to `reading`; else the handle has ended too.
    pub(crate) async fn end_client(
        mut self,
        shared: &Shared,
        reading: &mut Reading,
        restart: bool,
        refused: Option<ConnectionError>,
    ) -> bool {
        let mut end = self.conclude(shared);
        let lost = end.clone();
        let restart = restart && (end.is_some() || self.is_moved());
        if let Some(refused) = refused {
            end = Some(Arc::new(refused));
        }
        if restart {
            self.receive_rest();
            if self.was_opened() {
                let why = lost.unwrap_or_else(|| Arc::new(ConnectionError::GoingAway));
                self.mark(Gap::SessionLost { why });
            }
            reading.append(self.take_backlog());
            return true;
        }
        shared.end(end.clone(), self.report(end.clone()));
        if let Some(why) = lost {
            self.mark(Gap::SessionLost { why });
        }
        self.drain(shared).await;
        shared.inbox.end(end);
        false
    }

    /// Whether the server closed the session in order to go away, so that another may take over.
    pub(crate) fn is_moved(&self) -> bool {
        !self.closing
            && matches!(self.end(), Some(EndReason::Closed(frame))
                if frame.code == CloseCode::GOING_AWAY.as_u16())
    }
}
