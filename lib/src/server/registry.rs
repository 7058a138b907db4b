//! The registry of a server's sessions: opens, resumes and evicts them.

use std::{
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_channel::mpsc;
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};
use tracing::Instrument;
use unstall_proto::{self as proto, Epoch, Hello, Rejection, SessionId, Token};

use super::{
    hello::{Greeting, principal},
    holder::{Holders, Principal},
    keeper::{Keeper, Mailbox, Newcomer},
    places::{Over, Seat},
    sessions::SessionLimits,
    table::{Entry, Table},
};
use crate::{
    defaults,
    handles::{Connection, Driver, Identity, Shared, span},
    pump::Reading,
    reports::CloseCode,
    session::{Session, SessionGuard, random},
    settings::{Budget, Terms},
    ws::{
        WebSocket,
        transport::{Held, Transport},
    },
};

/// The outcome for a connection that asked for a session.
pub(super) enum Attached {
    New(Box<Opened>),
    Resumed,
    Refused(Refused),
}

/// A new session.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) task: AbortHandle,
    /// Counts it among the sessions. Its handler holds it as long as it runs.
    pub(super) tenancy: Held,
}

/// A session that was refused. The caller tells the client.
pub(super) struct Refused {
    /// `None` if the connection was dropped already.
    pub(super) ws: Option<WebSocket<Transport>>,
    pub(super) rejection: Rejection,
    /// The limit that was reached, if that is the reason.
    pub(super) over: Option<Over>,
}

/// The part of a [`Server`](crate::Server) in attaching a connection to a session. axum has none.
pub(super) struct Host {
    pub(super) seat: Arc<Seat>,
    /// A new session holds it as long as it lives.
    pub(super) member: Held,
    pub(super) retry_after: Duration,
}

pub(crate) struct Registry {
    epoch: Epoch,
    origin: Instant,
    /// The budget of all sessions, for options without a budget.
    budget: Budget,
    table: Mutex<Table>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("sessions", &self.len())
            .finish()
    }
}

impl Registry {
    pub(super) fn new(limits: SessionLimits) -> Arc<Registry> {
        let epoch = NonZeroU64::new(u64::from_be_bytes(random())).unwrap_or(NonZeroU64::MIN);
        Arc::new(Registry {
            epoch: Epoch(epoch),
            origin: Instant::now(),
            budget: Budget::new(defaults::SERVER_PROCESS_BYTES),
            table: Mutex::new(Table::new(limits.limit())),
        })
    }

    /// Opens a new session, or hands the connection to the session that HELLO names.
    pub(super) async fn attach(
        self: &Arc<Self>,
        greeting: Greeting,
        client: Holders,
        terms: Terms,
        host: Option<Host>,
    ) -> Attached {
        let principal = principal(&greeting.identity);
        let Greeting {
            hello,
            ws,
            identity,
            with_request,
        } = greeting;
        loop {
            let refused = match self.find(&hello.id, &principal) {
                Ok(Some(mailbox)) => {
                    if let Some(host) = &host {
                        host.seat.take_over();
                    }
                    return hand_over(&mailbox, hello, ws, identity).await;
                }
                Ok(None) => self.open(&hello, &identity, &client, &terms, host.as_ref()),
                Err(rejection) => Err(Some((rejection, None))),
            };
            match refused {
                Ok((connection, mut keeper, tenancy)) => {
                    if with_request {
                        keeper.guarded.session.came_with_request(hello);
                    }
                    let shared = keeper.guarded.shared.clone();
                    let span = span(&shared);
                    let run = keeper.run(Box::new(ws)).instrument(span);
                    let task = Driver::spawn(&shared, run);
                    return Attached::New(Box::new(Opened {
                        connection,
                        task: task.abort_handle(),
                        tenancy,
                    }));
                }
                Err(Some((rejection, over))) => {
                    let ws = Some(ws);
                    return Attached::Refused(Refused {
                        ws,
                        rejection,
                        over,
                    });
                }
                // Another connection opened the same session in between.
                Err(None) => {}
            }
        }
    }

    fn find(
        &self,
        id: &SessionId,
        principal: &Option<Principal>,
    ) -> Result<Option<Mailbox>, Rejection> {
        match self.table.lock().unwrap().get(id) {
            Some(entry) if entry.principal != *principal => Err(Rejection::NotYours),
            Some(entry) => Ok(Some(entry.mailbox.clone())),
            None => Ok(None),
        }
    }

    /// Makes a new session. `Err(None)` means that it exists already.
    #[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
    fn open(
        self: &Arc<Self>,
        hello: &Hello,
        identity: &Identity,
        client: &Holders,
        terms: &Terms,
        host: Option<&Host>,
    ) -> Result<(Connection, Box<Keeper>, Held), Option<(Rejection, Option<Over>)>> {
        let config = terms.options.session_config();
        let refused = |rejection| Some((rejection, None));
        let (protocol, generation) =
            proto::Session::server(config, hello, self.epoch, Token(random())).map_err(refused)?;
        let mut terms = terms.clone();
        terms.budget.get_or_insert_with(|| self.budget.clone());
        let shared = Shared::new(terms, identity.clone());
        // What waits in it has its place among the connections, which are bounded.
        let (mailbox, newcomers) = mpsc::unbounded();
        let entry = Entry {
            mailbox,
            client: client.clone(),
            principal: principal(identity),
            shared: shared.clone(),
            detached: None,
        };
        self.enter(hello.id, entry, host)?;
        let tenancy = Held(Arc::new(Tenancy {
            registry: self.clone(),
            client: client.clone(),
        }));
        let mut session = Session::new(protocol, self.origin, &shared.account);
        session.attached(generation);
        let (connection, guard) = Connection::over(shared.clone());
        let keeper = Box::new(Keeper {
            registry: self.clone(),
            id: hello.id,
            reading: Reading::new(&shared.options),
            guarded: SessionGuard::new(session, shared),
            newcomers,
            _guard: guard,
            _tenancy: tenancy.clone(),
            _member: host.map(|host| host.member.clone()),
        });
        Ok((connection, keeper, tenancy))
    }

    /// Adds a new session to the table, if the limits of sessions and connections allow it.
    fn enter(
        &self,
        id: SessionId,
        entry: Entry,
        host: Option<&Host>,
    ) -> Result<(), Option<(Rejection, Option<Over>)>> {
        let retry_after = host.map_or(defaults::SERVER_RETRY_AFTER, |host| host.retry_after);
        let full = |over| {
            let retry_after_millis = retry_after.as_millis().try_into().unwrap_or(u64::MAX);
            Some((Rejection::Full { retry_after_millis }, Some(over)))
        };
        let mut evicted = None;
        let entered = {
            let mut table = self.table.lock().unwrap();
            if table.get(&id).is_some() {
                return Err(None);
            }
            let room = table.room_for(&entry.client);
            let taken = room.and_then(|goes| match host {
                Some(host) => host.seat.take().map(|()| goes),
                None => Ok(goes),
            });
            taken.map(|goes| {
                // This drops the session's mailbox, which tells its task.
                evicted = goes.and_then(|id| table.remove(&id));
                table.insert(id, entry);
            })
        };
        drop(evicted);
        entered.map_err(full)
    }

    /// Acts on the entry of this session, unless a newer session has the same id.
    fn with_entry<T>(
        &self,
        id: &SessionId,
        shared: &Arc<Shared>,
        act: impl FnOnce(&mut Table) -> T,
    ) -> Option<T> {
        let table = &mut *self.table.lock().unwrap();
        let entry = table.get(id)?;
        Arc::ptr_eq(&entry.shared, shared).then(|| act(table))
    }

    pub(super) fn set_detached(
        &self,
        id: &SessionId,
        shared: &Arc<Shared>,
        since: Option<Instant>,
    ) {
        self.with_entry(id, shared, |table| table.set_detached(id, since));
    }

    pub(super) fn remove(&self, id: &SessionId, shared: &Arc<Shared>) {
        let removed = self.with_entry(id, shared, |table| table.remove(id));
        drop(removed);
    }

    /// The number of sessions that are without a connection now.
    pub(super) fn detached(&self) -> usize {
        self.table.lock().unwrap().detached()
    }

    /// The number of sessions.
    pub(super) fn len(&self) -> usize {
        self.table.lock().unwrap().len()
    }

    /// Closes every session. Clients are asked to connect again within `spread`.
    pub(super) fn close_all(&self, spread: Duration) {
        let sessions: Vec<_> = {
            let table = self.table.lock().unwrap();
            table.values().map(|it| it.shared.clone()).collect()
        };
        for shared in sessions {
            shared.board.go_away(spread);
            shared.request_close(CloseCode::GOING_AWAY, "the server shuts down");
        }
    }
}

/// Counts one session. Both the session's task and its handler hold it.
struct Tenancy {
    registry: Arc<Registry>,
    client: Holders,
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.registry.table.lock().unwrap().vacate(&self.client);
    }
}

/// Hands the connection to the session that it asks for.
async fn hand_over(
    mailbox: &Mailbox,
    hello: Hello,
    ws: WebSocket<Transport>,
    identity: Identity,
) -> Attached {
    let refused = |rejection, ws| {
        Attached::Refused(Refused {
            ws,
            rejection,
            over: None,
        })
    };
    let (answer, answered) = oneshot::channel();
    let newcomer = Box::new(Newcomer {
        hello,
        ws,
        identity,
        answer,
    });
    if let Err(error) = mailbox.unbounded_send(newcomer) {
        return refused(Rejection::Expired, Some(error.into_inner().ws));
    }
    match answered.await {
        Ok(Ok(())) => Attached::Resumed,
        Ok(Err((rejection, ws))) => refused(rejection, Some(ws)),
        Err(_) => refused(Rejection::Expired, None),
    }
}
