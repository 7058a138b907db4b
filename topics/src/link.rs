//! What carries packets between a client and a node: a WebSocket connection, or a pair of queues
//! within the process.

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError as QueueError};
use unstall::{CloseCode, Incoming, Message, TrySendError};
use unstall_proto::topics::{TopicPacket, limits::SUBPROTOCOL};

use crate::defaults::LOCAL_LINK_PACKETS;

/// The half that sends.
#[derive(Debug)]
pub(crate) enum LinkSender {
    Socket(unstall::Sender),
    Local(mpsc::Sender<Bytes>),
}

/// The half that receives.
#[derive(Debug)]
pub(crate) enum LinkReceiver {
    Socket(Box<unstall::Receiver>),
    Local(mpsc::Receiver<Bytes>),
}

/// The link is lost, and why if that is known.
#[derive(Clone, Debug)]
pub(crate) struct Lost(pub(crate) Option<unstall::ConnectionError>);

/// A packet that found no room.
pub(crate) enum NotSent {
    Full(Bytes),
    Lost,
}

/// What a received WebSocket message was.
pub(crate) enum Received {
    Packet(Bytes),
    /// A text message, which the protocol does not have.
    Text,
}

/// Both halves of a link over a connection that agreed to the subprotocol of topics.
pub(crate) fn socket(connection: unstall::Connection) -> (LinkSender, LinkReceiver) {
    let (sender, receiver) = connection.split();
    (
        LinkSender::Socket(sender),
        LinkReceiver::Socket(Box::new(receiver)),
    )
}

/// Two links that lead to each other.
pub(crate) fn local() -> [(LinkSender, LinkReceiver); 2] {
    let (there, from_here) = mpsc::channel(LOCAL_LINK_PACKETS);
    let (here, from_there) = mpsc::channel(LOCAL_LINK_PACKETS);
    [
        (LinkSender::Local(there), LinkReceiver::Local(from_there)),
        (LinkSender::Local(here), LinkReceiver::Local(from_here)),
    ]
}

/// Whether a connection agreed to speak topics.
pub(crate) fn speaks_topics(connection: &unstall::Connection) -> bool {
    connection.subprotocol().as_deref() == Some(SUBPROTOCOL)
}

impl LinkSender {
    pub(crate) fn try_send(&self, packet: Bytes) -> Result<(), NotSent> {
        match self {
            LinkSender::Socket(sender) => {
                let sent = match TopicPacket::is_secret(&packet) {
                    true => sender.try_send_uncompressed(packet),
                    false => sender.try_send(Message::from(packet)),
                };
                match sent {
                    Ok(()) => Ok(()),
                    Err(TrySendError::Full(message)) => Err(NotSent::Full(message.into_bytes())),
                    Err(_) => Err(NotSent::Lost),
                }
            }
            LinkSender::Local(queue) => match queue.try_send(packet) {
                Ok(()) => Ok(()),
                Err(QueueError::Full(packet)) => Err(NotSent::Full(packet)),
                Err(QueueError::Closed(_)) => Err(NotSent::Lost),
            },
        }
    }

    /// Waits for room, and sends.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is sent.
    pub(crate) async fn send(&self, packet: Bytes) -> Result<(), Lost> {
        match self {
            LinkSender::Socket(sender) => {
                let sent = match TopicPacket::is_secret(&packet) {
                    true => sender.send_uncompressed(packet).await,
                    false => sender.send(Message::from(packet)).await,
                };
                sent.map_err(|_| Lost(None))
            }
            LinkSender::Local(queue) => queue.send(packet).await.map_err(|_| Lost(None)),
        }
    }

    /// Closes the link, and waits until that is done.
    pub(crate) async fn close(self, code: CloseCode, reason: &str) {
        if let LinkSender::Socket(sender) = self {
            let _ = sender.close(code, reason).await;
        }
    }
}

impl LinkReceiver {
    /// The next packet.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    pub(crate) async fn recv(&mut self) -> Result<Received, Lost> {
        match self {
            LinkReceiver::Socket(receiver) => loop {
                return match receiver.recv().await {
                    Ok(Some(Incoming::Message(message))) if message.is_text() => Ok(Received::Text),
                    Ok(Some(Incoming::Message(message))) => {
                        Ok(Received::Packet(message.into_bytes()))
                    }
                    // A plain connection that does not reconnect has no gaps.
                    Ok(Some(_)) => continue,
                    Ok(None) => Err(Lost(None)),
                    Err(error) => Err(Lost(Some(error))),
                };
            },
            LinkReceiver::Local(queue) => match queue.recv().await {
                Some(packet) => Ok(Received::Packet(packet)),
                None => Err(Lost(None)),
            },
        }
    }
}
