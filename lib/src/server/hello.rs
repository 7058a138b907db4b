//! HELLO, the first packet of a session's connection, and the answer to a session that is refused.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use tokio::time::timeout;
use unstall_proto::{Hello, Rejection};

use super::{handshake, holder::Principal, proxies::PeerAddr};
use crate::{
    defaults,
    handles::Identity,
    reports::{CloseCode, ConnectionError},
    session::over_packets,
    settings::Options,
    ws::{
        Failure, Received, Side, WebSocket,
        transport::{Transport, Upgraded},
    },
};

/// A connection whose client has sent HELLO.
pub(super) struct Greeting {
    pub(super) hello: Hello,
    pub(super) ws: WebSocket<Transport>,
    pub(super) identity: Identity,
    /// HELLO came with the request.
    pub(super) with_request: bool,
}

/// A connection whose client sent something else than HELLO.
pub(super) struct Unheard {
    pub(super) error: ConnectionError,
    ws: WebSocket<Transport>,
}

impl Greeting {
    /// Waits for HELLO, unless it came with the request. Dropping the future drops the connection.
    pub(super) async fn hear(
        upgraded: Upgraded,
        identity: Identity,
        with_request: Option<Hello>,
        options: &Options,
    ) -> Result<Greeting, Box<Unheard>> {
        let mut ws = over_packets(upgraded, Side::Server, options);
        let came = with_request.is_some();
        let hello = match with_request {
            Some(hello) => Ok(hello),
            None => read_hello(&mut ws).await,
        };
        match hello {
            Ok(hello) => Ok(Greeting {
                hello,
                ws,
                identity,
                with_request: came,
            }),
            Err(error) => Err(Box::new(Unheard { error, ws })),
        }
    }
}

impl Unheard {
    /// Closes the connection and tells the client what was wrong.
    pub(super) async fn dismiss(self) {
        if let ConnectionError::Protocol(why) = &self.error {
            dismiss(self.ws, None, CloseCode::PROTOCOL_ERROR, why).await;
        }
    }
}

/// The principal that the authentication hook put into the request.
pub(super) fn principal(identity: &Identity) -> Option<Principal> {
    let request = identity.request.as_ref()?;
    request.extensions().get().cloned()
}

/// The addresses, the request and the subprotocol of a server's connection.
pub(super) fn identity(
    upgraded: &Upgraded,
    request: http::Request<()>,
    peer: Option<PeerAddr>,
) -> Identity {
    Identity {
        local: upgraded.local,
        peer: upgraded.peer,
        client: peer.map(|peer| peer.client),
        subprotocol: upgraded.subprotocol.clone(),
        compressed: upgraded.compression.is_some(),
        request: Some(Arc::new(handshake::copied(request))),
        response: None,
    }
}

async fn read_hello(ws: &mut WebSocket<Transport>) -> Result<Hello, ConnectionError> {
    let protocol = |why: String| ConnectionError::Protocol(why);
    loop {
        let hello = poll_fn(|cx| {
            ws.poll_read(cx).map(|received| match received {
                // SPEC.md section 2: a text message is MALFORMED.
                Ok(Received::Message { text: true, .. }) => {
                    Err(protocol("a text message in place of HELLO".into()))
                }
                Ok(Received::Message { payload, .. }) => Ok(Some(payload.into_bytes())),
                Ok(Received::Part(_) | Received::Ping | Received::Pong(_)) => Ok(None),
                Ok(Received::Close(_)) | Err(Failure::Closed) => Err(ConnectionError::EndOfStream),
                Err(Failure::Broken(why)) => Err(why),
            })
        });
        if let Some(packet) = hello.await? {
            return Hello::from_packet(packet).map_err(|error| protocol(error.to_string()));
        }
        // Other tasks get their turn, however many frames come before HELLO.
        tokio::task::coop::consume_budget().await;
    }
}

/// Refuses the session and closes the connection. Tells the client why.
pub(super) async fn refuse(ws: WebSocket<Transport>, rejection: Rejection, why: &str) {
    let packet = Some(rejection.to_packet());
    dismiss(ws, packet, CloseCode::NORMAL, why).await;
}

/// Sends a last packet and a close frame, within a short time.
async fn dismiss(mut ws: WebSocket<Transport>, packet: Option<Bytes>, code: CloseCode, why: &str) {
    if packet.is_some_and(|packet| ws.write_packet(packet.into()).is_err())
        || ws.close(code, why).is_err()
    {
        return;
    }
    let tell = async {
        let flushed = poll_fn(|cx| ws.poll_flush(cx)).await;
        if flushed.is_ok() {
            poll_fn(|cx| ws.poll_linger(cx)).await;
        }
    };
    let _ = timeout(defaults::SERVER_REFUSAL_TIMEOUT, tell).await;
}
