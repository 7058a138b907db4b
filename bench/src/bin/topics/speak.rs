//! What the clients of each server say and understand.

use bytes::{Buf, BytesMut};
use unstall_proto::{
    Time,
    topics::{
        AccessToken, Client, ClientConfig, Delivery, Filter, Start, SubscribeOptions,
        SubscriptionId,
    },
};

use crate::{Contestant, Result, socket::Writer};

/// A subscriber's side of a protocol.
pub(crate) enum Subscriber {
    Unstall(Box<Client>, SubscriptionId),
    /// What is not yet a whole line or payload.
    Nats(BytesMut),
    Ws,
}

impl Subscriber {
    /// Subscribes.
    pub(crate) async fn start(contestant: Contestant, writer: &mut Writer) -> Result<Subscriber> {
        let mut subscriber = match contestant {
            Contestant::Unstall => {
                let mut client = Box::new(Client::new(ClientConfig::new()));
                client.attach(Time::ORIGIN, AccessToken::NONE);
                let filter = Filter::new("bench.fanout")?;
                let id = client.subscribe(filter, Start::Now, SubscribeOptions::new());
                Subscriber::Unstall(client, id)
            }
            Contestant::Nats => {
                writer.push(
                    b"CONNECT {\"verbose\":false}\r\nSUB bench.fanout 1\r\nPING\r\n",
                    false,
                );
                Subscriber::Nats(BytesMut::new())
            }
            Contestant::Ws => Subscriber::Ws,
        };
        subscriber.answer(writer);
        writer.flush().await?;
        Ok(subscriber)
    }

    /// Hands the payloads in a WebSocket message to `each`. `true`: the server has answered that the
    /// subscription is there.
    pub(crate) fn take(&mut self, payload: BytesMut, mut each: impl FnMut(&[u8])) -> Result<bool> {
        match self {
            Subscriber::Unstall(client, id) => {
                client.handle_packet(Time::ORIGIN, payload.freeze())?;
                while client.poll_event().is_some() {}
                let mut is_there = false;
                while let Some(delivery) = client.poll_delivery(*id) {
                    match delivery {
                        Delivery::Messages(mut batch) => {
                            while let Some(message) = batch.next_ref() {
                                each(message.payload);
                            }
                            client.taken(*id, batch.cost());
                        }
                        Delivery::CaughtUp { .. } => is_there = true,
                        other => return Err(format!("unexpected: {other:?}").into()),
                    }
                }
                Ok(is_there)
            }
            Subscriber::Nats(buffer) => {
                buffer.extend_from_slice(&payload);
                nats(buffer, each)
            }
            Subscriber::Ws => {
                each(&payload);
                Ok(false)
            }
        }
    }

    /// Whatever the protocol asks a subscriber to say.
    pub(crate) fn answer(&mut self, writer: &mut Writer) {
        if let Subscriber::Unstall(client, _) = self {
            while let Some(packet) = client.poll_transmit(Time::ORIGIN) {
                writer.push(&packet.into_bytes(), false);
            }
        }
    }
}

/// `MSG subject sid length\r\npayload\r\n`, and lines of other kinds.
fn nats(buffer: &mut BytesMut, mut each: impl FnMut(&[u8])) -> Result<bool> {
    let mut is_there = false;
    loop {
        let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
            return Ok(is_there);
        };
        let line = std::str::from_utf8(&buffer[..end])?;
        if let Some(rest) = line.strip_prefix("MSG ") {
            let length: usize = rest.trim().rsplit(' ').next().unwrap_or_default().parse()?;
            let Some(payload) = buffer.get(end + 1..end + 1 + length) else {
                return Ok(is_there);
            };
            if buffer.len() < end + 1 + length + 2 {
                return Ok(is_there);
            }
            each(payload);
            buffer.advance(end + 1 + length + 2);
            continue;
        }
        is_there |= line.starts_with("PONG");
        if line.starts_with("-ERR") {
            return Err(line.to_owned().into());
        }
        buffer.advance(end + 1);
    }
}
