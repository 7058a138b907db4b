//! Reads what is not in the tail: by a pull consumer with the filter, chunk by chunk.
//!
//! A consumer runs at any server of the stream, which may know less than its leader. So it is believed
//! what it delivers, and not that there is nothing more: that is asked of the leader.

use unstall_proto::topics::{Filter, Offset};

use super::{
    api::Get,
    consumer::{Broken, Consumer, Deliver, Delivery, Pull, Wait},
    kept::Next,
    limits::{READ_MESSAGES, READ_SILENCE},
    message::{Received, found},
    shared::{Shared, Trouble},
    tail::unreadable,
};
use crate::store::{Bounds, Chunk, Read, StoreError, Stored};

/// What a consumer delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Every,
    Latest,
}

impl What {
    /// Whether it has no holes as long as retention makes none.
    fn is_whole(self, read: &Read) -> bool {
        self == What::Every && read.filter.is_all()
    }
}

/// What a pull brought, and how it ended.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) messages: Vec<Stored>,
    /// A message that cannot be given to anybody, behind these.
    pub(super) odd: Option<Received>,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// As much as was asked for. The consumer can go on.
    Full(Consumer),
    /// The consumer has nothing more, or the next message is too large for the rest of this read.
    Over(Consumer),
    /// A message beyond what was asked for: up to there, everything is read.
    Beyond,
    /// Retention has cut in the middle, or the consumer broke. What came before counts.
    Cut,
}

impl Shared {
    /// Reads messages, from the tail if it has them.
    pub(super) async fn read(&self, read: &Read) -> Result<Chunk, StoreError> {
        self.check()?;
        if read.after >= read.through {
            return Ok(Chunk::new(
                Vec::new(),
                read.after,
                self.bounds.borrow().first,
            ));
        }
        if let Some(chunk) = self.tail().read(read) {
            return chunk;
        }
        self.insist(|| self.read_stream(read)).await
    }

    /// A filter for the server. None if everything matches.
    pub(super) fn server_filter(&self, filter: &Filter) -> Option<String> {
        (!filter.is_all()).then(|| self.subjects.filter(filter))
    }

    async fn read_stream(&self, read: &Read) -> Result<Chunk, Trouble> {
        let consumer = match self.kept.take(&next(read, read.after)) {
            Some(consumer) => consumer,
            None => self.consumer_behind(read).await?,
        };
        let pulled = self.pull_some(read, What::Every, consumer).await?;
        self.finish(read, pulled).await
    }

    async fn consumer_behind(&self, read: &Read) -> Result<Consumer, Trouble> {
        let filter = self.server_filter(&read.filter);
        let from = read.after.checked_add(1).unwrap_or(Offset::MAX);
        Ok(Consumer::create(&self.api, &self.subjects, filter, Deliver::From(from)).await?)
    }

    /// As many messages as the read's bytes allow, and at least one if there is one.
    pub(super) async fn pull_some(
        &self,
        read: &Read,
        what: What,
        consumer: Consumer,
    ) -> Result<Pulled, Trouble> {
        let bytes = read.max_bytes.max(1) as u64;
        let mut pulled = self.pull(read, what, consumer, bytes).await?;
        loop {
            let is_empty = pulled.messages.is_empty() && pulled.odd.is_none();
            pulled = match pulled.end {
                // Not even one message fits, or there is none.
                End::Over(consumer) if is_empty => return self.pull(read, what, consumer, 0).await,
                // They were all before the reader's place.
                End::Full(consumer) if is_empty => self.pull(read, what, consumer, bytes).await?,
                end => return Ok(Pulled { end, ..pulled }),
            };
        }
    }

    /// One request. `bytes` of 0 asks for one message of any length.
    pub(super) async fn pull(
        &self,
        read: &Read,
        what: What,
        mut consumer: Consumer,
        bytes: u64,
    ) -> Result<Pulled, Trouble> {
        let count = match (bytes, what) {
            (0, _) => 1,
            // Offsets have no holes, so no more than these can be meant.
            (_, What::Every) => (read.through.get() - read.after.get()).min(READ_MESSAGES),
            (_, What::Latest) => READ_MESSAGES,
        };
        let pull = Pull {
            messages: count,
            bytes,
            wait: Wait::No,
        };
        consumer.pull(pull).await?;
        let mut pulled = Pulled {
            messages: Vec::new(),
            odd: None,
            end: End::Cut,
        };
        let mut place = read.after;
        for _ in 0..count {
            let received = match delivery(&mut consumer).await {
                Ok(Some(received)) => received,
                Ok(None) => {
                    pulled.end = End::Over(consumer);
                    return Ok(pulled);
                }
                Err(broken) if pulled.messages.is_empty() => return Err(broken.into()),
                Err(_) => return Ok(pulled),
            };
            let at = received.offset();
            if at <= place {
                match what {
                    // It begins with the first topic, wherever the reader is.
                    What::Latest => continue,
                    // Some servers begin earlier when the start is beyond their end.
                    What::Every => {
                        let why = "a consumer began before its start";
                        return Err(Trouble::Passing(why.into()));
                    }
                }
            }
            if at > read.through {
                pulled.end = End::Beyond;
                return Ok(pulled);
            }
            let has_holes = at.get() > place.get() + 1;
            if what.is_whole(read) && has_holes && !pulled.messages.is_empty() {
                return Ok(pulled);
            }
            place = at;
            match received {
                Received::Message(stored) => pulled.messages.push(stored),
                odd => {
                    pulled.odd = Some(odd);
                    return Ok(pulled);
                }
            }
        }
        pulled.end = End::Full(consumer);
        Ok(pulled)
    }

    async fn finish(&self, read: &Read, pulled: Pulled) -> Result<Chunk, Trouble> {
        let Pulled { messages, odd, end } = pulled;
        let Some(last) = messages.last().map(|stored| stored.offset) else {
            return match (odd, end) {
                (Some(odd), _) => Err(Trouble::Lasting(unreadable(&odd))),
                (None, End::Over(_)) => self.nothing(read).await,
                (None, End::Beyond) => {
                    let first = self.ask_bounds().await?.first;
                    Ok(Chunk::new(messages, read.through, first))
                }
                (None, End::Full(_) | End::Cut) => {
                    Err(Trouble::Passing("a consumer brought nothing".into()))
                }
            };
        };
        let through = match end {
            End::Beyond => read.through,
            End::Full(consumer) | End::Over(consumer) => {
                self.kept.keep(next(read, last), consumer);
                last
            }
            End::Cut => last,
        };
        let first = messages[0].offset;
        // Without a filter a hole would show. With one it has to be asked for.
        let first = match read.filter.is_all() {
            true if first == read.after.checked_add(1).unwrap_or(Offset::MAX) => {
                self.bounds.borrow().first.min(first)
            }
            true => first,
            false => self.ask_bounds().await?.first,
        };
        Ok(Chunk::new(messages, through, first))
    }

    /// A consumer found nothing. Asks the leader whether it knows of something.
    pub(super) async fn nothing(&self, read: &Read) -> Result<Chunk, Trouble> {
        let end = self.ask_bounds().await?.last;
        let from = read.after.get() + 1;
        let subject = self.subjects.filter(&read.filter);
        let get = Get::Next {
            from,
            subject: &subject,
        };
        let next = self
            .api
            .get(get)
            .await?
            .map(|next| found(&self.subjects, next));
        let first = self.ask_bounds().await?.first;
        match next.filter(|next| next.offset() <= read.through) {
            Some(Received::Message(stored)) => {
                let through = stored.offset;
                Ok(Chunk::new(vec![stored], through, first))
            }
            Some(odd) => Err(Trouble::Lasting(unreadable(&odd))),
            // Beyond its end the leader does not know either.
            None => {
                let through = read.through.min(end).max(read.after);
                Ok(Chunk::new(Vec::new(), through, first))
            }
        }
    }

    /// The bounds that the leader knows.
    pub(super) async fn ask_bounds(&self) -> Result<Bounds, Trouble> {
        let info = self.api.info().await?;
        let bounds = info.bounds();
        self.first_is(bounds.first);
        Ok(bounds)
    }
}

fn next(read: &Read, after: Offset) -> Next {
    Next {
        after,
        filter: read.filter.clone(),
    }
}

/// The next message. `None` if there is none.
async fn delivery(consumer: &mut Consumer) -> Result<Option<Received>, Broken> {
    loop {
        match consumer.next(READ_SILENCE).await? {
            Delivery::Message(received) => return Ok(Some(received)),
            Delivery::Over => return Ok(None),
            Delivery::Heartbeat => {}
        }
    }
}
