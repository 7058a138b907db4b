//! unstall, plain and with a session, with its defaults.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::TcpListener;
use unstall::{
    Client, Connection, Gap, Incoming, IncomingRef, Receiver, Reconnect, Sender, Server,
    ServerBuilder, ServerLimits,
};

use crate::{
    Failure, Result,
    engine::{Batching, Engine, Link, Rx, Tx, ended},
    payload::Payloads,
    shared::Shared,
    tls::{self, Secure},
};

pub(super) async fn accept(server: &Server) -> Result<Connection> {
    server.accept().await.ok_or_else(ended)
}

pub(super) async fn connect(
    scheme: &str,
    client: impl FnOnce(Client) -> Client,
    address: SocketAddr,
) -> Result<Connection> {
    let dialed = Client::new(format!("{scheme}://{address}/")).without_reconnect();
    Ok(client(dialed).connect().await?)
}

macro_rules! unstall {
    ($name:ident, $called:literal, $how:literal, $rx:ty, $server:expr, $client:expr) => {
        pub(crate) struct $name;

        unstall!($name, $called, $how, $rx, "ws", $server, $client);
    };
    ($engine:ty, $called:expr, $how:expr, $rx:ty, $scheme:literal, $server:expr, $client:expr) => {
        impl Engine for $engine {
            const NAME: &'static str = $called;
            const HOW: &'static str = $how;
            const BATCHING: Batching = Batching::Own;
            type Server = Server;
            type Link = Unstall<$rx>;

            async fn bind(listener: TcpListener) -> Result<Server> {
                // All clients of the suite have the same address.
                let limits = ServerLimits::default().connections_per_address(usize::MAX);
                Ok($server(Server::builder().limits(limits)).listener(listener)?)
            }

            async fn accept(server: &mut Server) -> Result<Self::Link> {
                Ok(Unstall::new(accept(server).await?))
            }

            async fn connect(address: SocketAddr) -> Result<Self::Link> {
                Ok(Unstall::new(connect($scheme, $client, address).await?))
            }
        }
    };
}

unstall!(
    Plain,
    "unstall-plain",
    "unstall without a session, `send_many()`, and `recv().await` for each message",
    Receiver,
    unstall::ServerBuilder::plain,
    Client::plain
);
unstall!(
    Session,
    "unstall-session",
    "unstall with a session, `send_many()`, and `recv().await` for each message",
    Receiver,
    std::convert::identity,
    session
);
unstall!(
    Batch,
    "unstall-batch",
    "unstall with a session, `send_many()`, received with `recv_batch().await`",
    Batches,
    std::convert::identity,
    session
);

unstall!(
    Secure<Plain>,
    Plain::NAME,
    Plain::HOW,
    Receiver,
    "wss",
    |server: ServerBuilder| server.plain().tls(tls::server()),
    |client: Client| client.plain().tls(tls::client())
);
unstall!(
    Secure<Session>,
    Session::NAME,
    Session::HOW,
    Receiver,
    "wss",
    |server: ServerBuilder| server.tls(tls::server()),
    |client| session(client).tls(tls::client())
);

pub(super) fn session(client: Client) -> Client {
    client
        .require_session()
        .without_fresh_session()
        .reconnect(Reconnect::default())
}

pub(crate) struct Unstall<R> {
    sender: Sender,
    receiver: R,
}

/// A receiver that hands out everything that has arrived.
pub(crate) struct Batches(Receiver);

impl From<Receiver> for Batches {
    fn from(receiver: Receiver) -> Batches {
        Batches(receiver)
    }
}

impl<R: From<Receiver>> Unstall<R> {
    pub(super) fn new(connection: Connection) -> Unstall<R> {
        let (sender, receiver) = connection.split();
        let receiver = receiver.into();
        Unstall { sender, receiver }
    }
}

impl<R: Rx> Link for Unstall<R> {
    type Tx = Sender;
    type Rx = R;

    fn split(self) -> (Sender, R) {
        (self.sender, self.receiver)
    }

    /// unstall's sender is a queue already.
    fn share(self, _batching: Batching) -> (Shared, R) {
        (Shared::Unstall(self.sender), self.receiver)
    }
}

impl<R: Rx> Tx for Unstall<R> {
    async fn feed_all(
        &mut self,
        batching: Batching,
        payloads: &mut Payloads,
        count: u64,
    ) -> Result<()> {
        self.sender.feed_all(batching, payloads, count).await
    }

    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        self.sender.feed(payload).await
    }

    async fn flush(&mut self) -> Result<()> {
        Tx::flush(&mut self.sender).await
    }

    async fn send(&mut self, payload: &Bytes) -> Result<()> {
        Tx::send(&mut self.sender, payload).await
    }
}

impl<R: Rx> Rx for Unstall<R> {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        self.receiver.receive(take).await
    }
}

/// A payload of up to this size is copied anyway, so it is given as a slice.
const COPIED_BYTES: usize = 8 << 10;

fn slice(payload: &Bytes) -> &[u8] {
    payload
}

/// One message, to be awaited.
pub(crate) async fn send(sender: &Sender, payload: &Bytes) -> Result<()> {
    match payload.len() <= COPIED_BYTES {
        true => sender.send(&payload[..]).await?,
        false => sender.send(payload.clone()).await?,
    }
    Ok(())
}

impl Tx for Sender {
    async fn feed_all(&mut self, _: Batching, payloads: &mut Payloads, count: u64) -> Result<()> {
        match payloads.size() <= COPIED_BYTES {
            true => self.send_many(payloads.next_many(count).map(slice)).await?,
            false => self.send_many(payloads.next_many(count).cloned()).await?,
        }
        Ok(())
    }

    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        send(self, payload).await
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(Sender::flush(self).await?)
    }

    async fn send(&mut self, payload: &Bytes) -> Result<()> {
        // unstall flushes by itself.
        self.feed(payload).await
    }
}

impl Rx for Receiver {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        match self.recv().await?.ok_or_else(ended)? {
            Incoming::Message(message) => take(message.as_bytes()),
            Incoming::Gap(gap) => return Err(missing(&gap)),
        }
        Ok(())
    }
}

impl Rx for Batches {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        let mut batch = self.0.recv_batch().await?.ok_or_else(ended)?;
        while let Some(incoming) = batch.next() {
            match incoming {
                IncomingRef::Message(message) => take(message.as_bytes()),
                IncomingRef::Gap(gap) => return Err(missing(gap)),
            }
        }
        Ok(())
    }
}

fn missing(gap: &Gap) -> Failure {
    format!("messages are missing: {gap:?}").into()
}
