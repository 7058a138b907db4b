//! Reads what is not in the tail: by a pull consumer with the filter, chunk by chunk.
//!
//! A consumer runs at any server of the stream, which may know less than its leader. So it is believed
//! what it delivers, and not that there is nothing more: that is asked of the leader.

use unstall_proto::topics::{Filter, Offset};

use super::{
    api::Get,
    consumer::{Consumer, Deliver},
    kept::Next,
    limits::{READ_BYTES, READ_MESSAGES},
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

/// What a consumer brought, and how it ended.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) messages: Vec<Stored>,
    /// A message that cannot be given to anybody, behind these.
    pub(super) odd: Option<Received>,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// As much as was asked for. The consumer can go on.
    Full(Consumer),
    /// The consumer has nothing more.
    Over(Consumer),
    /// The consumer has come to a message beyond what was asked for, which it delivers again.
    Beyond(Consumer),
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
        let kept = self.tail().read(read);
        if let Some(chunk) = kept {
            // The tail has all of it, also what the stream has removed since.
            let first = self.bounds.borrow().first;
            return chunk.map(|chunk| Chunk {
                first: first.min(chunk.first),
                ..chunk
            });
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
        let brought = self.bring(read, What::Every, consumer).await?;
        self.finish(read, brought).await
    }

    async fn consumer_behind(&self, read: &Read) -> Result<Consumer, Trouble> {
        let filter = self.server_filter(&read.filter);
        let from = read.after.checked_add(1).unwrap_or(Offset::MAX);
        Ok(self.consumer(filter, Deliver::From(from)).await?)
    }

    /// Takes as many messages from a consumer as the read's bytes allow, and at least one if there is
    /// one.
    pub(super) async fn bring(
        &self,
        read: &Read,
        what: What,
        mut consumer: Consumer,
    ) -> Result<Brought, Trouble> {
        let mut messages: Vec<Stored> = Vec::new();
        let enough = read.max_bytes.clamp(1, READ_BYTES);
        let (mut bytes, mut place) = (0, read.after);
        let brought = |messages, end| {
            Ok(Brought {
                messages,
                odd: None,
                end,
            })
        };
        loop {
            if bytes >= enough && !messages.is_empty() {
                return brought(messages, End::Full(consumer));
            }
            // Offsets have no holes, so no more than these can be meant.
            let most = match what {
                What::Every => read.through.get() - place.get(),
                What::Latest => READ_MESSAGES,
            };
            let received = match consumer.bring(most, enough - bytes.min(enough)).await {
                Ok(Some(received)) => received,
                Ok(None) => return brought(messages, End::Over(consumer)),
                Err(broken) if messages.is_empty() => return Err(broken.into()),
                Err(_) => return brought(messages, End::Cut),
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
                consumer.give_back(received);
                return brought(messages, End::Beyond(consumer));
            }
            let has_holes = at.get() > place.get() + 1;
            if what.is_whole(read) && has_holes && !messages.is_empty() {
                return brought(messages, End::Cut);
            }
            place = at;
            match received {
                Received::Message(stored) => {
                    bytes += stored.payload.len() + stored.topic.as_str().len();
                    messages.push(stored);
                }
                odd => {
                    return Ok(Brought {
                        messages,
                        odd: Some(odd),
                        end: End::Cut,
                    });
                }
            }
            if at == read.through {
                return brought(messages, End::Full(consumer));
            }
        }
    }

    async fn finish(&self, read: &Read, brought: Brought) -> Result<Chunk, Trouble> {
        let Brought { messages, odd, end } = brought;
        let last = messages.last().map(|stored| stored.offset);
        let through = match (last, odd, end) {
            (None, Some(odd), _) => return Err(Trouble::Lasting(unreadable(&odd))),
            (None, None, End::Over(consumer)) => {
                let chunk = self.nothing(read).await?;
                if chunk.messages.is_empty() && chunk.through > read.after {
                    self.kept.keep(next(read, chunk.through), consumer);
                }
                return Ok(chunk);
            }
            (None, None, End::Full(_) | End::Cut) => {
                return Err(Trouble::Passing("a consumer brought nothing".into()));
            }
            (_, None, End::Beyond(consumer)) => {
                self.kept.keep(next(read, read.through), consumer);
                read.through
            }
            (Some(last), None, End::Full(consumer) | End::Over(consumer)) => {
                self.kept.keep(next(read, last), consumer);
                last
            }
            (Some(last), _, _) => last,
        };
        let behind = read.after.checked_add(1).unwrap_or(Offset::MAX);
        // Without a filter a hole would show. With one it has to be asked for.
        let first = match messages.first().filter(|_| read.filter.is_all()) {
            Some(first) if first.offset == behind => self.bounds.borrow().first.min(behind),
            Some(first) => first.offset,
            None => self.ask_bounds().await?.first,
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
        let info = self.info().await?;
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
