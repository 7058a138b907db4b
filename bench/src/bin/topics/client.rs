//! Clients that cost little, so that the server is what is measured; and the library's own, packed.

use futures_util::{StreamExt, stream::FuturesUnordered};
use unstall_proto::topics::{Filter, Start};
use unstall_topics::{Publication, Topics};

use crate::{
    Result,
    foreign::Contestant,
    socket::{self, Frame, Reader, Writer},
    speak::Subscriber,
};

/// A subscriber.
pub(crate) struct Light {
    reader: Reader,
    writer: Writer,
    subscriber: Subscriber,
}

impl Light {
    /// A subscriber of a fan-out.
    pub(crate) async fn of(contestant: Contestant, address: &str) -> Result<Light> {
        let subprotocol =
            (contestant == Contestant::Unstall).then_some(unstall_topics::SUBPROTOCOL);
        let (reader, mut writer) = socket::connect(address, subprotocol).await?;
        let subscriber = Subscriber::of(contestant, &mut writer)?;
        writer.flush().await?;
        Ok(Light {
            reader,
            writer,
            subscriber,
        })
    }

    /// A subscriber of a filter.
    pub(crate) async fn topics(address: &str, filter: &str, start: Start) -> Result<Light> {
        let (reader, mut writer) =
            socket::connect(address, Some(unstall_topics::SUBPROTOCOL)).await?;
        let subscriber = Subscriber::topics(Filter::new(filter)?, start, &mut writer);
        writer.flush().await?;
        Ok(Light {
            reader,
            writer,
            subscriber,
        })
    }

    /// A subscriber of what comes from now on. It is there when this resolves.
    pub(crate) async fn now(address: &str, filter: &str) -> Result<Light> {
        let mut light = Light::topics(address, filter, Start::Now).await?;
        while !light.next(|_| {}).await? {}
        Ok(light)
    }

    /// Hands the payloads of what arrives next to `each`. `true`: the server says that the
    /// subscription is there, and has caught up.
    pub(crate) async fn next(&mut self, each: impl FnMut(&[u8])) -> Result<bool> {
        let there = loop {
            match self.reader.next().await? {
                Frame::Message(payload) => break self.subscriber.take(payload, each)?,
                Frame::Ping(payload) => {
                    self.writer.pong(&payload);
                    self.writer.flush().await?;
                }
            }
        };
        self.subscriber.answer(&mut self.writer);
        if self.writer.waiting() > 0 {
            self.writer.flush().await?;
        }
        Ok(there)
    }
}

/// Publishes messages from `first` to before `end` through the library, in batches, with several
/// batches under way. Each has to be stored.
pub(crate) async fn publish_packed(
    topics: &Topics,
    (first, end): (u64, u64),
    make: impl Fn(u64) -> Publication,
) -> Result<()> {
    const BATCH: u64 = 1_024;
    const UNDER_WAY: usize = 8;
    let mut under_way = FuturesUnordered::new();
    let mut next = first;
    loop {
        while under_way.len() < UNDER_WAY && next < end {
            let through = end.min(next + BATCH);
            under_way.push(topics.publish_many((next..through).map(&make).collect()));
            next = through;
        }
        let Some(results) = under_way.next().await else {
            return Ok(());
        };
        for result in results {
            result?;
        }
    }
}
