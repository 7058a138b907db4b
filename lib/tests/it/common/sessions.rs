//! Servers, clients and hostile peers that speak sessions.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use unstall::{
    Client, Connection, Gap, Incoming, Message, Reconnect, Server, SessionLoss,
    tokio_tungstenite::{
        self, MaybeTlsStream, WebSocketStream, accept_hdr_async,
        tungstenite::{
            self,
            client::IntoClientRequest,
            handshake::server::{Request, Response},
            http::HeaderValue,
        },
    },
};
use unstall_proto::{Config, Packet, SUBPROTOCOL, Session, SessionId, Time, Token};

use super::{limit, net::connect_from, plain};

/// Reconnects within milliseconds.
pub(crate) fn quick() -> Reconnect {
    Reconnect::default().first(Duration::from_millis(5))
}

/// A client that reconnects within milliseconds.
pub(crate) fn quick_client(address: SocketAddr) -> Client {
    Client::new(format!("ws://{address}/")).reconnect(quick())
}

/// A client that requires a session and reconnects within milliseconds.
pub(crate) fn client(address: SocketAddr) -> Client {
    quick_client(address).require_session()
}

/// A client's session and the server's end of it.
pub(crate) async fn pair(server: &Server, client: Client) -> (Connection, Connection) {
    let client = limit(client.connect()).await.unwrap();
    (client, limit(server.accept()).await.unwrap())
}

/// The next message, as text.
pub(crate) async fn text(connection: &mut Connection) -> String {
    let message = plain(limit(connection.recv()).await);
    message.as_text().expect("a text message").to_owned()
}

/// Receives up to the end of a session. Returns its messages, and why it was lost.
pub(crate) async fn up_to_the_loss(connection: &mut Connection) -> (Vec<Message>, SessionLoss) {
    let mut messages = Vec::new();
    loop {
        match limit(connection.recv()).await {
            Ok(Some(Incoming::Message(message))) => messages.push(message),
            Ok(Some(Incoming::Gap(Gap::SessionLost { why }))) => match &*why {
                unstall::ConnectionError::SessionLost(loss) => return (messages, loss.clone()),
                other => panic!("lost for {other}"),
            },
            other => panic!("the loss was due, not {other:?} after {messages:?}"),
        }
    }
}

/// Upgrades a connection with a foreign engine. It agrees to the first subprotocol that is offered,
/// if it `agrees` at all. Fails where the client goes away.
pub(crate) async fn foreign(
    tcp: TcpStream,
    agrees: bool,
) -> tungstenite::Result<WebSocketStream<TcpStream>> {
    #[allow(clippy::result_large_err)]
    let answer = move |request: &Request, mut answer: Response| {
        let offered = request.headers().get("sec-websocket-protocol");
        if let Some(offered) = offered.filter(|_| agrees) {
            let headers = answer.headers_mut();
            headers.insert("sec-websocket-protocol", offered.clone());
        }
        Ok(answer)
    };
    accept_hdr_async(tcp, answer).await
}

/// A client of which the test sends every packet: a session of the protocol crate over a raw WebSocket.
pub(crate) struct Raw {
    pub(crate) session: Session,
    pub(crate) ws: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    address: SocketAddr,
    from: Ipv4Addr,
    headers: Vec<(&'static str, &'static str)>,
}

impl Raw {
    pub(crate) fn new(address: SocketAddr, id: u8) -> Raw {
        Raw {
            session: Session::client(Config::new(), SessionId([id; 16]), Token([id; 16])),
            ws: None,
            address,
            from: Ipv4Addr::LOCALHOST,
            headers: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Raw {
        self.headers.push((name, value));
        self
    }

    /// From now on it connects from this address of the loopback network.
    pub(crate) fn from(mut self, ip: [u8; 4]) -> Raw {
        self.from = ip.into();
        self
    }

    /// From now on it connects to this server.
    pub(crate) fn to(mut self, address: SocketAddr) -> Raw {
        self.address = address;
        self
    }

    /// A copy of the session, as someone has it who stole its memory.
    pub(crate) fn thief(&self) -> Raw {
        Raw {
            session: self.session.clone(),
            ws: None,
            address: self.address,
            from: self.from,
            headers: self.headers.clone(),
        }
    }

    /// Connects and sends HELLO. Returns the server's answer.
    pub(crate) async fn attach(&mut self) -> Packet {
        self.try_attach().await.expect("an answer to HELLO")
    }

    /// The same. `None` if the connection ends without an answer.
    pub(crate) async fn try_attach(&mut self) -> Option<Packet> {
        self.connect().await;
        let generation = self.session.attach(Time::ORIGIN).expect("it wants one");
        let hello = self.session.poll_transmit(Time::ORIGIN, generation);
        self.write(hello.unwrap()).await;
        let answer = self.read().await?;
        let packet = Packet::decode(answer.clone()).unwrap();
        let _ = self.session.handle_packet(Time::ORIGIN, generation, answer);
        Some(packet)
    }

    /// Connects a WebSocket and sends nothing on it.
    pub(crate) async fn connect(&mut self) {
        let mut request = format!("ws://{}/", self.address)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert(
            "sec-websocket-protocol",
            HeaderValue::from_static(SUBPROTOCOL),
        );
        for (name, value) in &self.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let tcp = MaybeTlsStream::Plain(connect_from(self.from, self.address).await);
        let connecting = tokio_tungstenite::client_async(request, tcp);
        self.ws = Some(limit(connecting).await.unwrap().0);
    }

    pub(crate) async fn write(&mut self, packet: bytes::Bytes) {
        let ws = self.ws.as_mut().unwrap();
        // The server may have closed already.
        let _ = ws.send(tungstenite::Message::Binary(packet)).await;
    }

    /// The next packet; `None` when the connection ends.
    pub(crate) async fn read(&mut self) -> Option<bytes::Bytes> {
        let ws = self.ws.as_mut().unwrap();
        loop {
            match limit(ws.next()).await {
                Some(Ok(tungstenite::Message::Binary(packet))) => return Some(packet),
                Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Sends what the session has to send.
    pub(crate) async fn flush(&mut self) {
        let generation = self.session.generation();
        while let Some(packet) = self.session.poll_transmit(Time::ORIGIN, generation) {
            self.write(packet).await;
        }
    }

    /// Reads until the connection ends. Returns the packets.
    pub(crate) async fn read_to_end(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(packet) = self.read().await {
            packets.push(Packet::decode(packet).unwrap());
        }
        packets
    }
}
