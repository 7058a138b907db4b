//! The table of a server's sessions, and which of them is evicted first.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;
use unstall_proto::SessionId;

use super::{
    crowd::Crowd,
    holder::{Holder, Holders, Principal},
    keeper::Mailbox,
    limits::Limit,
    places::Over,
};
use crate::handles::Shared;

/// One session.
pub(super) struct Entry {
    pub(super) mailbox: Mailbox,
    pub(super) client: Holders,
    pub(super) principal: Option<Principal>,
    pub(super) shared: Arc<Shared>,
    /// Since when it is without a connection; `None` if it has one.
    pub(super) detached: Option<Instant>,
}

/// A session without a connection. A smaller rank is longer without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    since: Instant,
    pub(super) id: SessionId,
}

/// The sessions by id, and their number by holder.
pub(super) struct Table {
    limit: Limit,
    entries: HashMap<SessionId, Entry>,
    /// Sessions, and handlers that outlive their session. Sessions without a connection may be
    /// evicted.
    crowd: Crowd<Holder, Rank>,
    tenants: usize,
    detached: usize,
}

impl Table {
    pub(super) fn new(limit: Limit) -> Table {
        Table {
            limit,
            entries: HashMap::new(),
            crowd: Crowd::default(),
            tenants: 0,
            detached: 0,
        }
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn detached(&self) -> usize {
        self.detached
    }

    /// Checks the limits for a new session of this client. Returns the session to evict for it, if
    /// any.
    ///
    /// Handlers that outlive their session still count. If none of them ends, there are at most
    /// twice as many as the limit of sessions.
    pub(super) fn room_for(&self, client: &Holders) -> Result<Option<SessionId>, Over> {
        let mut own = 0;
        for holder in client.holders() {
            let (members, limit) = (self.crowd.members(holder), self.limit.of(holder));
            own = own.max(members);
            if members >= limit {
                let oldest = self.crowd.oldest_of(holder);
                let oldest = oldest.filter(|_| members / 2 < limit);
                return match (oldest, holder) {
                    (Some(rank), _) => Ok(Some(rank.id)),
                    (None, Holder::Address(_)) => Err(Over::Address),
                    (None, Holder::Principal(_)) => Err(Over::Principal),
                };
            }
        }
        if self.tenants < self.limit.all {
            return Ok(None);
        }
        let goes = match self.crowd.first() {
            Some((members, rank)) if members > own => Some(rank),
            _ => self.oldest_of(client),
        };
        let goes = goes.filter(|_| self.tenants / 2 < self.limit.all);
        goes.map(|rank| Some(rank.id)).ok_or(Over::Sessions)
    }

    /// The session of this client that has been without a connection for longest.
    fn oldest_of(&self, client: &Holders) -> Option<Rank> {
        let holders = client.holders().iter();
        holders
            .filter_map(|holder| self.crowd.oldest_of(holder))
            .min()
    }

    pub(super) fn insert(&mut self, id: SessionId, entry: Entry) {
        for holder in entry.client.holders() {
            self.crowd.join(holder);
        }
        self.tenants += 1;
        self.entries.insert(id, entry);
    }

    /// Removes a session that has ended. It still counts until [`vacate`](Table::vacate).
    pub(super) fn remove(&mut self, id: &SessionId) -> Option<Entry> {
        self.set_detached(id, None);
        self.entries.remove(id)
    }

    /// Stops counting a session. Both it and its handler have ended.
    pub(super) fn vacate(&mut self, client: &Holders) {
        for holder in client.holders() {
            self.crowd.leave(holder);
        }
        self.tenants -= 1;
    }

    /// Sets since when this session is without a connection; `None` if it has one.
    pub(super) fn set_detached(&mut self, id: &SessionId, since: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if let Some(since) = std::mem::replace(&mut entry.detached, since) {
            let rank = Rank { since, id: *id };
            for holder in entry.client.holders() {
                self.crowd.hold(holder, rank);
            }
            self.detached -= 1;
        }
        if let Some(since) = since {
            let rank = Rank { since, id: *id };
            for holder in entry.client.holders() {
                self.crowd.release(holder, rank);
            }
            self.detached += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_channel::mpsc;

    use super::*;
    use crate::{handles::Identity, server::holder::Network, settings::Options, time::later};

    fn client(ip: u8) -> Holders {
        Holders::new(Network::V4([10, 0, 0, ip].into()), None)
    }

    fn id(name: u8) -> SessionId {
        SessionId([name; 16])
    }

    fn table(all: usize) -> Table {
        Table::new(Limit {
            all,
            per_address: usize::MAX,
            per_principal: usize::MAX,
        })
    }

    /// A session of the client with this last byte of its address.
    fn insert(table: &mut Table, name: u8, ip: u8) {
        let entry = Entry {
            mailbox: mpsc::unbounded().0,
            client: client(ip),
            principal: None,
            shared: Shared::new(Options::default(), Identity::default()),
            detached: None,
        };
        table.insert(id(name), entry);
    }

    #[tokio::test]
    async fn the_limit_is_kept_and_a_handler_that_outlives_its_session_counts() {
        let mut table = table(2);
        insert(&mut table, 1, 1);
        insert(&mut table, 2, 2);
        assert_eq!(table.room_for(&client(3)), Err(Over::Sessions));
        assert!(table.remove(&id(2)).is_some());
        assert_eq!(table.room_for(&client(3)), Err(Over::Sessions));
        table.vacate(&client(2));
        assert_eq!(table.room_for(&client(3)), Ok(None));
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_who_has_more_than_itself_else_of_its_own() {
        let mut table = table(4);
        let now = Instant::now();
        for (name, ip, away) in [(1, 1, 1), (2, 1, 2), (3, 2, 0), (4, 2, 3)] {
            insert(&mut table, name, ip);
            let since = later(now, Duration::from_secs(away));
            table.set_detached(&id(name), Some(since));
        }
        // Address 2 has as many as address 1, and the one that is longest away.
        assert_eq!(table.room_for(&client(1)), Ok(Some(id(1))));
        assert_eq!(table.room_for(&client(3)), Ok(Some(id(3))));
    }

    #[tokio::test]
    async fn a_session_that_has_resumed_does_not_go() {
        let mut table = table(2);
        let now = Instant::now();
        for (name, away) in [(1, 0), (2, 1)] {
            insert(&mut table, name, name);
            let since = later(now, Duration::from_secs(away));
            table.set_detached(&id(name), Some(since));
        }
        assert_eq!(table.room_for(&client(3)), Ok(Some(id(1))));
        table.set_detached(&id(1), None);
        assert_eq!(table.room_for(&client(3)), Ok(Some(id(2))));
        table.set_detached(&id(2), None);
        assert_eq!(table.room_for(&client(3)), Err(Over::Sessions));
        assert_eq!(table.detached(), 0);
    }
}
