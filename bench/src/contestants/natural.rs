//! Engines used the way their own documentation's users write it, where that is not how the other
//! workloads use them.

use std::{marker::PhantomData, net::SocketAddr};

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket, WebSocketWrite};
use tokio::net::{TcpListener, TcpStream, tcp::OwnedWriteHalf};

use super::{
    ezsockets::{EzLink, EzSockets},
    fastwebsockets::{FastWebSockets, Reading, halves},
    sockudo::Sockudo,
    tungstenite::{accept_upgraded, connect_upgraded},
    unstall,
};
use crate::{
    Result,
    engine::{Batching, Engine, Link, Rx, Tx},
};

/// `E` as people write it.
pub(crate) struct Natural<E>(PhantomData<E>);

macro_rules! natural {
    ($engine:ty, $how:literal, $batching:expr, $link:ty, $with:expr) => {
        impl Engine for Natural<$engine> {
            const NAME: &'static str = <$engine>::NAME;
            const HOW: &'static str = $how;
            const BATCHING: Batching = $batching;
            type Server = <$engine as Engine>::Server;
            type Link = $link;

            async fn bind(listener: TcpListener) -> Result<Self::Server> {
                <$engine>::bind(listener).await
            }

            async fn accept(server: &mut Self::Server) -> Result<$link> {
                Ok($with(<$engine>::accept(server).await?))
            }

            async fn connect(address: SocketAddr) -> Result<$link> {
                Ok($with(<$engine>::connect(address).await?))
            }
        }
    };
}

natural!(
    Sockudo,
    "`send().await` for each message, with its default configuration",
    Batching::Naive,
    <Sockudo as Engine>::Link,
    std::convert::identity
);
natural!(
    EzSockets,
    "`binary()` for each message into its unbounded queue, waiting for nothing; received by \
     callback into a queue of the application",
    Batching::Own,
    EzLink,
    EzLink::unwaited
);
natural!(
    unstall::Plain,
    "unstall without a session, `send().await` and `recv().await` for each message",
    Batching::Own,
    <unstall::Plain as Engine>::Link,
    std::convert::identity
);
natural!(
    unstall::Session,
    "unstall with a session, `send().await` and `recv().await` for each message",
    Batching::Own,
    <unstall::Session as Engine>::Link,
    std::convert::identity
);

impl Engine for Natural<FastWebSockets> {
    const NAME: &'static str = FastWebSockets::NAME;
    const HOW: &'static str = "`write_frame().await` for each message straight into the socket, \
        and `read_frame().await` of its fragment collector; in a chat room the halves of its \
        feature `unstable-split`";
    const BATCHING: Batching = Batching::Naive;
    type Server = TcpListener;
    type Link = Collector;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Collector> {
        let stream = accept_upgraded(server).await?;
        Ok(Collector::new(stream, Role::Server))
    }

    async fn connect(address: SocketAddr) -> Result<Collector> {
        let stream = connect_upgraded(address).await?;
        Ok(Collector::new(stream, Role::Client))
    }
}

/// A whole connection of fastwebsockets.
pub(crate) struct Collector {
    socket: FragmentCollector<TcpStream>,
    role: Role,
}

impl Collector {
    fn new(stream: TcpStream, role: Role) -> Collector {
        Collector {
            socket: FragmentCollector::new(WebSocket::after_handshake(stream, role)),
            role,
        }
    }
}

impl Link for Collector {
    type Tx = WebSocketWrite<OwnedWriteHalf>;
    type Rx = Reading;

    /// Only before anything was received: what the collector has read ahead would be lost.
    fn split(self) -> (Self::Tx, Reading) {
        halves(self.socket.into_inner(), self.role)
    }
}

impl Tx for Collector {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        let frame = Frame::binary(Payload::Borrowed(payload));
        Ok(self.socket.write_frame(frame).await?)
    }

    async fn flush(&mut self) -> Result<()> {
        // Nothing stands between it and the socket.
        Ok(())
    }
}

impl Rx for Collector {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        loop {
            let frame = self.socket.read_frame().await?;
            if frame.opcode == OpCode::Binary {
                take(&frame.payload);
                return Ok(());
            }
        }
    }
}
