//! unstall, plain and with a session, with its defaults.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::TcpListener;
use unstall::{Client, Connection, Incoming, Receiver, Sender, Server};

use crate::{
    Result,
    engine::{Batching, Engine, Link, Rx, Tx, ended},
    shared::Shared,
};

fn client(address: SocketAddr) -> Client {
    Client::new(format!("ws://{address}/")).without_reconnect()
}

pub(crate) struct Plain;

impl Engine for Plain {
    const NAME: &'static str = "unstall-plain";
    const HOW: &'static str = "unstall without a session, `send().await` and `recv().await` for \
        each message";
    const BATCHING: Batching = Batching::Own;
    type Server = Server;
    type Link = Unstall;

    async fn bind(listener: TcpListener) -> Result<Server> {
        Ok(Server::builder().plain().listener(listener)?)
    }

    async fn accept(server: &mut Server) -> Result<Unstall> {
        Ok(Unstall::new(server.accept().await.ok_or_else(ended)?))
    }

    async fn connect(address: SocketAddr) -> Result<Unstall> {
        Ok(Unstall::new(client(address).plain().connect().await?))
    }
}

pub(crate) struct Session;

impl Engine for Session {
    const NAME: &'static str = "unstall-session";
    const HOW: &'static str = "unstall with a session, `send().await` and `recv().await` for each \
        message";
    const BATCHING: Batching = Batching::Own;
    type Server = Server;
    type Link = Unstall;

    async fn bind(listener: TcpListener) -> Result<Server> {
        Ok(Server::builder().listener(listener)?)
    }

    async fn accept(server: &mut Server) -> Result<Unstall> {
        Ok(Unstall::new(server.accept().await.ok_or_else(ended)?))
    }

    async fn connect(address: SocketAddr) -> Result<Unstall> {
        let client = client(address).require_session().without_fresh_session();
        Ok(Unstall::new(client.connect().await?))
    }
}

pub(crate) struct Unstall {
    sender: Sender,
    receiver: Receiver,
}

impl Unstall {
    fn new(connection: Connection) -> Unstall {
        let (sender, receiver) = connection.split();
        Unstall { sender, receiver }
    }
}

impl Link for Unstall {
    type Tx = Sender;
    type Rx = Receiver;

    fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Its sender is a queue already.
    fn share(self, _batching: Batching) -> (Shared, Receiver) {
        (Shared::Unstall(self.sender), self.receiver)
    }
}

impl Tx for Unstall {
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

impl Rx for Unstall {
    async fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        self.receiver.receive(take).await
    }
}

/// Up to here a payload is copied into the message anyway, so it is given as a slice.
const COPIED_BYTES: usize = 64;

impl Tx for Sender {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        match payload.len() <= COPIED_BYTES {
            true => Sender::send(self, &payload[..]).await?,
            false => Sender::send(self, payload.clone()).await?,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(Sender::flush(self).await?)
    }

    async fn send(&mut self, payload: &Bytes) -> Result<()> {
        // It goes out by itself.
        self.feed(payload).await
    }
}

impl Rx for Receiver {
    async fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        match self.recv().await?.ok_or_else(ended)? {
            Incoming::Message(message) => take(message.as_bytes()),
            Incoming::Gap(gap) => return Err(format!("messages are missing: {gap:?}").into()),
        }
        Ok(())
    }
}
