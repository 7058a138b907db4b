//! What the handles of a connection share with its pump.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    defaults::FOREVER,
    defaults::HEADER_OVERHEAD_BYTES,
    handles::{Board, Driver, register},
    messages::CloseReport,
    queues::{
        inbox::{End, Inbox},
        outbox::Outbox,
    },
    reports::{CloseCode, ConnectionError, Event, EventLog, Events, Meter, Report, Stats},
    settings::{Account, Options, Share, Terms},
    time::later,
};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What is known of the peer, and of the handshake with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) local: Option<SocketAddr>,
    /// The other end of the TCP connection.
    pub(crate) peer: Option<SocketAddr>,
    /// The client's own address, if a trusted proxy told it.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) subprotocol: Option<String>,
    /// Both sides agreed to compress messages.
    pub(crate) compressed: bool,
    /// On a server, the upgrade request.
    pub(crate) request: Option<Arc<http::Request<()>>>,
    /// On a client, the server's answer to it.
    pub(crate) response: Option<Arc<http::Response<()>>>,
}

impl Identity {
    /// The peer's address. Behind trusted proxies it is the one that they told.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.client.or(self.peer)
    }

    /// How many bytes the heads of the handshake take, which are kept for the application.
    fn head_bytes(&self) -> usize {
        let of = |headers: &http::HeaderMap| {
            let lines = headers.iter();
            let lines = lines
                .map(|(name, value)| HEADER_OVERHEAD_BYTES + name.as_str().len() + value.len());
            lines.sum::<usize>()
        };
        let request = self.request.as_ref().map_or(0, |request| {
            let path = request.uri().path_and_query();
            path.map_or(0, |path| path.as_str().len()) + of(request.headers())
        });
        request + self.response.as_ref().map_or(0, |it| of(it.headers()))
    }
}

/// The identity of a connection, and its share of the account.
struct KnownIdentity {
    identity: Identity,
    head: Share,
}

impl KnownIdentity {
    fn new(identity: Identity, account: &Account) -> Mutex<KnownIdentity> {
        let mut head = account.lasting_share();
        head.cover_anyway(identity.head_bytes());
        Mutex::new(KnownIdentity { identity, head })
    }
}

/// A request to close. The first one counts.
#[derive(Clone, Debug)]
pub(crate) struct CloseRequest {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
    pub(crate) deadline: Instant,
    /// The time from the request to its deadline.
    pub(crate) timeout: Duration,
}

impl CloseRequest {
    pub(crate) fn new(code: CloseCode, reason: &str, timeout: Duration) -> CloseRequest {
        let timeout = timeout.min(FOREVER);
        CloseRequest {
            code,
            reason: reason.to_owned(),
            deadline: later(Instant::now(), timeout),
            timeout,
        }
    }
}

#[derive(Default)]
struct Control {
    close: Option<Box<CloseRequest>>,
    report: Option<Box<CloseReport>>,
    pump: Option<Waker>,
}

/// Inbox, outbox, events and control of one connection. It survives reconnects.
pub(crate) struct Shared {
    pub(crate) id: u64,
    /// When it was made.
    #[cfg(feature = "status")]
    pub(crate) since: Instant,
    pub(crate) options: Arc<Options>,
    /// The bytes that are held for this connection, wherever they are.
    pub(crate) account: Account,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) events: Arc<EventLog>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) board: Arc<Board>,
    pub(crate) driver: Driver,
    known: Mutex<KnownIdentity>,
    control: Mutex<Control>,
    /// A close was requested, or the connection has ended.
    changed: Notify,
}

impl Shared {
    pub(crate) fn new(terms: impl Into<Terms>, identity: Identity) -> Arc<Shared> {
        let Terms { options, budget } = terms.into();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let events = Arc::new(EventLog::of(id));
        let meter = Arc::new(Meter::new(events.clone(), options.stall_after));
        let account = Account::new(budget);
        Arc::new(Shared {
            id,
            #[cfg(feature = "status")]
            since: Instant::now(),
            inbox: Inbox::new(options.clone(), &account),
            outbox: Outbox::new(&options, &account),
            known: KnownIdentity::new(identity, &account),
            account,
            options,
            events,
            meter,
            board: Arc::default(),
            driver: Driver::default(),
            control: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn identity(&self) -> Identity {
        self.known.lock().unwrap().identity.clone()
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        let mut known = self.known.lock().unwrap();
        let bytes = identity.head_bytes();
        known.head.cover_anyway(bytes);
        known.head.settle(bytes);
        known.identity = identity;
    }

    /// Asks for the end of the connection. From now on messages are refused.
    pub(crate) fn request_close(&self, code: CloseCode, reason: &str) {
        let request = CloseRequest::new(code, reason, self.options.close_timeout);
        let pump = {
            let mut control = self.control.lock().unwrap();
            control.close.get_or_insert_with(|| Box::new(request));
            control.pump.take()
        };
        self.outbox.refuse(Arc::new(ConnectionError::ClosedHere));
        self.changed.notify_waiters();
        pump.into_iter().for_each(Waker::wake);
    }

    /// The request to close, if there is one. If not, the pump is woken when one comes.
    pub(crate) fn poll_close_request(&self, cx: &Context<'_>) -> Option<CloseRequest> {
        let mut control = self.control.lock().unwrap();
        if control.close.is_none() {
            let pump = control.pump.get_or_insert_with(|| cx.waker().clone());
            pump.clone_from(cx.waker());
        }
        control.close.as_deref().cloned()
    }

    /// Whether the present connection, or the last one, carries a session.
    pub(crate) fn is_session(&self) -> bool {
        let known = self.known.lock().unwrap();
        known.identity.subprotocol.as_deref() == Some(unstall_proto::SUBPROTOCOL)
    }

    /// Whether this side took the upgrade request.
    #[cfg(any(feature = "metrics", feature = "status"))]
    pub(crate) fn is_server(&self) -> bool {
        self.known.lock().unwrap().identity.request.is_some()
    }

    /// Whether it is among the connections of the process.
    #[cfg(feature = "status")]
    pub(crate) fn is_listed(&self) -> bool {
        let known = self.known.lock().unwrap();
        let request = known.identity.request.as_ref();
        let path = request.map(|request| request.uri().path());
        path.is_none() || path != self.options.unlisted
    }

    /// Whether it is among the connections of the process.
    #[cfg(not(feature = "status"))]
    pub(crate) fn is_listed(&self) -> bool {
        true
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.control.lock().unwrap().close.is_some()
    }

    /// Resolves when a close was requested.
    pub(crate) async fn close_requested(&self) {
        self.wait_for(|control| control.close.is_some()).await;
    }

    async fn wait_for(&self, reached: impl Fn(&Control) -> bool) {
        loop {
            // Registers before it looks, so that it misses no change in between.
            let changed = self.changed.notified();
            if reached(&self.control.lock().unwrap()) {
                return;
            }
            changed.await;
        }
    }

    /// A handle was dropped. The last one closes the connection.
    pub(crate) fn handle_dropped(&self) {
        if self.inbox.is_receiver_gone() && !self.outbox.has_senders() {
            self.inbox.abandon();
            // A handler that panics drops its handles while it unwinds.
            let code = match std::thread::panicking() {
                true => CloseCode::INTERNAL_ERROR,
                false => CloseCode::GOING_AWAY,
            };
            self.request_close(code, "");
        }
    }

    /// Tells everybody, once, that sending has ended. The received stream ends later, by
    /// `inbox.end`, after everything that was received.
    pub(crate) fn end(&self, end: End, report: CloseReport) {
        let closed = || match report.peer.clone() {
            Some(close) => ConnectionError::ClosedByPeer(close),
            None => ConnectionError::ClosedHere,
        };
        self.outbox
            .refuse(end.clone().unwrap_or_else(|| Arc::new(closed())));
        let now = Instant::now();
        self.meter.publish(&mut Report::idle(&self.meter), now);
        {
            let mut control = self.control.lock().unwrap();
            if control.report.is_none() {
                self.events.push(Event::Ended { why: end });
            }
            let report = control.report.get_or_insert_with(|| Box::new(report));
            for undelivered in self.board.take_undelivered() {
                match undelivered.maybe_delivered {
                    true => report.maybe_delivered.push(undelivered.message),
                    false => report.unsent.push(undelivered.message),
                }
            }
            report.unsent.extend(self.outbox.take_unsent());
            report.clean &= report.unsent.is_empty() && report.maybe_delivered.is_empty();
        }
        self.changed.notify_waiters();
    }

    /// Resolves after [`Self::end`].
    pub(crate) async fn wait_ended(&self) {
        self.wait_for(|control| control.report.is_some()).await;
    }

    /// How the connection ended, for a caller that takes no messages back. They stay for
    /// [`report`](Self::report).
    pub(crate) fn outcome(&self) -> Result<(), ConnectionError> {
        let control = self.control.lock().unwrap();
        let Some(report) = &control.report else {
            return Ok(());
        };
        let messages = report.unsent.len() + report.maybe_delivered.len();
        match &report.error {
            Some(error) => Err((**error).clone()),
            None if messages > 0 => Err(ConnectionError::Undelivered {
                messages: messages as u64,
            }),
            None => Ok(()),
        }
    }

    /// How the connection ended. Only the first report has the messages that come back.
    pub(crate) fn report(&self) -> CloseReport {
        let mut control = self.control.lock().unwrap();
        let Some(report) = &mut control.report else {
            return CloseReport::default();
        };
        CloseReport {
            clean: report.clean,
            peer: report.peer.clone(),
            unsent: std::mem::take(&mut report.unsent),
            maybe_delivered: std::mem::take(&mut report.maybe_delivered),
            in_flight: report.in_flight,
            error: report.error.clone(),
        }
    }

    pub(crate) fn events(&self) -> Events {
        self.events.listen()
    }

    pub(crate) fn stats(&self) -> Stats {
        let now = Instant::now();
        let counters = self.meter.counters();
        let (inbox, overflowed, discarded) = self.inbox.stats(now);
        let (outbox, expired) = self.outbox.stats(now);
        Stats {
            id: self.id,
            messages_sent: counters.messages_sent,
            bytes_sent: counters.bytes_sent,
            messages_received: counters.messages_received,
            bytes_received: counters.bytes_received,
            inbox,
            outbox,
            spilled: counters.spilled,
            overflowed,
            expired,
            discarded,
            round_trip: counters.round_trip,
            connections: counters.connections,
            resumes: counters.resumes,
            stalls: self.meter.stalls(now),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // One that is not listed counts nowhere.
        if register::remove(self.id) {
            #[cfg(any(feature = "metrics", feature = "status"))]
            super::sums::add_ended(self);
            #[cfg(feature = "status")]
            super::past::add(self);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
