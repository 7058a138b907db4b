//! What the clients of each server say and understand.

use bytes::{Buf, BytesMut};
use unstall_proto::{
    Time,
    topics::{
        AccessToken, Client, ClientConfig, Delivery, Filter, Start, SubscribeOptions,
        SubscriptionId,
    },
};

use crate::{Result, foreign::Contestant, socket::Writer};

/// The topic of a fan-out.
pub(crate) const FANOUT: &str = "bench.fanout";

/// A subscriber's side of a protocol.
pub(crate) enum Subscriber {
    Unstall(Box<Client>, SubscriptionId),
    /// What is not yet a whole line or payload.
    Nats(BytesMut),
    Ws,
}

impl Subscriber {
    /// Subscribes to what a contestant publishes in a fan-out.
    pub(crate) fn of(contestant: Contestant, writer: &mut Writer) -> Result<Subscriber> {
        Ok(match contestant {
            Contestant::Unstall => Subscriber::topics(Filter::new(FANOUT)?, Start::Now, writer),
            Contestant::Nats => {
                let words = format!("CONNECT {{\"verbose\":false}}\r\nSUB {FANOUT} 1\r\nPING\r\n");
                writer.push(words.as_bytes());
                Subscriber::Nats(BytesMut::new())
            }
            Contestant::Ws => Subscriber::Ws,
        })
    }

    /// Subscribes to a filter of topics.
    pub(crate) fn topics(filter: Filter, start: Start, writer: &mut Writer) -> Subscriber {
        let mut client = Box::new(Client::new(ClientConfig::new()));
        client.attach(Time::ORIGIN, AccessToken::NONE);
        let id = client.subscribe(filter, start, SubscribeOptions::new());
        let mut subscriber = Subscriber::Unstall(client, id);
        subscriber.answer(writer);
        subscriber
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
                writer.push(&packet.into_bytes());
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
