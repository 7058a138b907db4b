//! ezsockets: sends through unbounded queues, receives by callbacks.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use ezsockets::{
    Client, ClientConfig, ClientExt, CloseFrame, Error, MessageSignal, MessageStatus, Request,
    Server, ServerExt, Session, SessionExt, Socket, Utf8Bytes,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::yield_now,
};

use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine, Link, Rx, Tx, ended},
    shared::Shared,
};

pub(crate) struct EzSockets;

impl Engine for EzSockets {
    const NAME: &'static str = "ezsockets";
    const HOW: &'static str = "`binary()` into its unbounded queue, waiting each 64 KiB until the \
        signal of the last message says sent; received by callback into a queue that is emptied \
        in one go";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = mpsc::UnboundedReceiver<EzLink>;
    type Link = EzLink;

    fn cannot(workload: &str) -> Option<&'static str> {
        (workload == "loaded").then_some("its queues have no bound, so nothing limits the stream")
    }

    async fn bind(listener: TcpListener) -> Result<Self::Server> {
        let (tell, links) = mpsc::unbounded_channel();
        let (server, _) = Server::create(|_| Acceptor { tell });
        let acceptor = ezsockets::tungstenite::Acceptor::Plain;
        tokio::spawn(ezsockets::tungstenite::run_on(server, listener, acceptor));
        Ok(links)
    }

    async fn accept(server: &mut Self::Server) -> Result<EzLink> {
        server.recv().await.ok_or_else(ended)
    }

    async fn connect(address: SocketAddr) -> Result<EzLink> {
        let inbox = Arc::<Inbox>::default();
        let config = ClientConfig::new(format!("ws://{address}/").as_str());
        let actor = Actor(inbox.clone());
        let (client, future) = ezsockets::connect(|_| actor, config).await;
        tokio::spawn(future);
        inbox.connected.notified().await;
        Ok(EzLink::new(Handle::Client(client), inbox))
    }
}

/// What the callbacks leave for the receiver.
#[derive(Default)]
struct Inbox {
    messages: Mutex<VecDeque<Bytes>>,
    arrived: Notify,
    connected: Notify,
}

impl Inbox {
    fn put(&self, message: Bytes) {
        let mut messages = self.messages.lock().unwrap();
        messages.push_back(message);
        if messages.len() == 1 {
            self.arrived.notify_one();
        }
    }
}

struct Acceptor {
    tell: mpsc::UnboundedSender<EzLink>,
}

#[async_trait]
impl ServerExt for Acceptor {
    type Session = Actor;
    type Call = ();

    async fn on_connect(
        &mut self,
        socket: Socket,
        _request: Request,
        _address: SocketAddr,
    ) -> Result<Session<u64, ()>, Option<CloseFrame>> {
        let inbox = Arc::<Inbox>::default();
        let actor = Actor(inbox.clone());
        let session = Session::create(|_| actor, 0, socket);
        let link = EzLink::new(Handle::Session(session.clone()), inbox);
        self.tell.send(link).map_err(|_| None)?;
        Ok(session)
    }

    async fn on_disconnect(
        &mut self,
        _id: u64,
        _reason: Result<Option<CloseFrame>, Error>,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn on_call(&mut self, (): ()) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) struct Actor(Arc<Inbox>);

#[async_trait]
impl SessionExt for Actor {
    type ID = u64;
    type Call = ();

    fn id(&self) -> &u64 {
        &0
    }

    async fn on_text(&mut self, _text: Utf8Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn on_binary(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0.put(bytes);
        Ok(())
    }

    async fn on_call(&mut self, (): ()) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl ClientExt for Actor {
    type Call = ();

    async fn on_text(&mut self, _text: Utf8Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn on_binary(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0.put(bytes);
        Ok(())
    }

    async fn on_call(&mut self, (): ()) -> Result<(), Error> {
        Ok(())
    }

    async fn on_connect(&mut self) -> Result<(), Error> {
        self.0.connected.notify_one();
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) enum Handle {
    Client(Client<Actor>),
    Session(Session<u64, ()>),
}

impl Handle {
    /// Puts a message into its queue.
    pub(crate) fn send(&self, payload: &Bytes) -> Result<MessageSignal> {
        let sent = match self {
            Handle::Client(client) => client.binary(payload.clone()).map_err(drop),
            Handle::Session(session) => session.binary(payload.clone()).map_err(drop),
        };
        sent.map_err(|()| ended())
    }
}

pub(crate) struct EzLink {
    tx: EzTx,
    rx: EzRx,
}

impl EzLink {
    fn new(handle: Handle, inbox: Arc<Inbox>) -> EzLink {
        EzLink {
            tx: EzTx {
                handle,
                last: None,
                waits: true,
            },
            rx: EzRx {
                inbox,
                taken: VecDeque::new(),
            },
        }
    }
}

impl EzLink {
    /// One whose sender never waits, as those in its documentation.
    pub(crate) fn unwaited(mut self) -> EzLink {
        self.tx.waits = false;
        self
    }
}

impl Link for EzLink {
    type Tx = EzTx;
    type Rx = EzRx;

    fn split(self) -> (EzTx, EzRx) {
        (self.tx, self.rx)
    }

    /// Where nobody waits, its handle is the queue.
    fn share(self, batching: Batching) -> (Shared, EzRx) {
        let shared = match self.tx.waits {
            true => Shared::queue(self.tx, batching),
            false => Shared::EzSockets(self.tx.handle),
        };
        (shared, self.rx)
    }
}

impl Tx for EzLink {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        self.tx.feed(payload).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.tx.flush().await
    }
}

impl Rx for EzLink {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        self.rx.receive(take).await
    }
}

pub(crate) struct EzTx {
    handle: Handle,
    /// Of the last message.
    last: Option<MessageSignal>,
    /// Whether a flush waits until that message is sent.
    waits: bool,
}

impl Tx for EzTx {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        self.last = Some(self.handle.send(payload)?);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let Some(signal) = self.last.take().filter(|_| self.waits) else {
            return Ok(());
        };
        // There is nothing that could be awaited.
        loop {
            match signal.status() {
                MessageStatus::Sending => yield_now().await,
                MessageStatus::Sent => return Ok(()),
                MessageStatus::Failed => return Err(ended()),
            }
        }
    }
}

pub(crate) struct EzRx {
    inbox: Arc<Inbox>,
    taken: VecDeque<Bytes>,
}

impl Rx for EzRx {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        loop {
            std::mem::swap(&mut *self.inbox.messages.lock().unwrap(), &mut self.taken);
            if !self.taken.is_empty() {
                self.taken.drain(..).for_each(|message| take(&message));
                return Ok(());
            }
            self.inbox.arrived.notified().await;
        }
    }
}
