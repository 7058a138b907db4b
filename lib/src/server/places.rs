//! The limits of open connections. Each takes a place.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use super::{
    handshake::Rejection,
    holder::{Holder, Holders},
    limits::Limit,
    stats::{Counter, Counters},
};

/// The limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Connections,
    Address,
    Principal,
    Handshakes,
    Sessions,
}

impl Over {
    pub(super) fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Over::Connections => &counters.refused.connections,
            Over::Address => &counters.refused.address,
            Over::Principal => &counters.refused.principal,
            Over::Handshakes => &counters.refused.handshakes,
            Over::Sessions => &counters.refused.sessions,
        }
    }

    /// The text that the client gets.
    pub(super) fn why(self) -> &'static str {
        match self {
            Over::Connections => {
                "The server has reached its limit of connections; try again later."
            }
            Over::Address => "Your address has reached its limit of connections; try again later.",
            Over::Principal => {
                "You have reached your limit of connections; close one of them first."
            }
            Over::Handshakes => "Too many clients are connecting at once; try again later.",
            Over::Sessions => "The server has reached its limit of sessions; try again later.",
        }
    }

    pub(super) fn rejection(self, retry_after: Duration) -> Rejection {
        let why = format!("{}\n", self.why());
        match self {
            Over::Connections | Over::Handshakes | Over::Sessions => {
                Rejection::unavailable(why, retry_after)
            }
            Over::Address | Over::Principal => Rejection::too_many_requests(why, retry_after),
        }
    }
}

/// The open connections, counted by holder.
#[derive(Debug)]
pub(super) struct Places {
    limit: Limit,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Holder, usize>,
}

impl Places {
    pub(super) fn new(limit: Limit) -> Arc<Places> {
        let taken = Mutex::default();
        Arc::new(Places { limit, taken })
    }

    /// Checks whether there is a place for a new connection of this client.
    pub(super) fn look(&self, client: &Holders) -> Result<(), Over> {
        self.taken.lock().unwrap().room(client, &self.limit)
    }

    /// Takes a place for a new connection.
    fn take(self: &Arc<Self>, client: &Holders) -> Result<Place, Over> {
        let mut taken = self.taken.lock().unwrap();
        taken.room(client, &self.limit)?;
        Ok(taken.place(self, client))
    }

    /// Takes a place for a connection that resumes a session, without a check of the limits.
    fn take_over(self: &Arc<Self>, client: &Holders) -> Place {
        self.taken.lock().unwrap().place(self, client)
    }

    /// The number of places taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().unwrap().all
    }
}

impl Taken {
    fn room(&self, client: &Holders, limit: &Limit) -> Result<(), Over> {
        if self.all >= limit.all {
            return Err(Over::Connections);
        }
        let taken = |holder| self.by.get(holder).copied().unwrap_or(0);
        let mut holders = client.holders().iter();
        match holders.find(|holder| taken(holder) >= limit.of(holder)) {
            None => Ok(()),
            Some(Holder::Address(_)) => Err(Over::Address),
            Some(Holder::Principal(_)) => Err(Over::Principal),
        }
    }

    fn place(&mut self, places: &Arc<Places>, client: &Holders) -> Place {
        self.all += 1;
        for holder in client.holders() {
            *self.by.entry(holder.clone()).or_default() += 1;
        }
        let (places, client) = (places.clone(), client.clone());
        Place { places, client }
    }
}

/// The place of one open connection. Dropping it frees the place.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    client: Holders,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap();
        taken.all -= 1;
        for holder in self.client.holders() {
            if let Some(count) = taken.by.get_mut(holder) {
                *count -= 1;
                if *count == 0 {
                    taken.by.remove(holder);
                }
            }
        }
    }
}

/// Holds the place of a socket. It is empty until the server knows what the client wants: to resume
/// a session, no free place is needed.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    client: Holders,
    place: OnceLock<Place>,
}

impl Seat {
    pub(super) fn new(places: &Arc<Places>, client: Holders) -> Seat {
        Seat {
            places: places.clone(),
            client,
            place: OnceLock::new(),
        }
    }

    /// Takes a place for a new connection, within the limits.
    pub(super) fn take(&self) -> Result<(), Over> {
        let place = self.places.take(&self.client)?;
        let _ = self.place.set(place);
        Ok(())
    }

    /// Takes a place for a connection that resumes a session, without a check of the limits.
    pub(super) fn take_over(&self) {
        let _ = self.place.set(self.places.take_over(&self.client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::holder::{Network, Principal};

    fn client(ip: u8, principal: Option<&str>) -> Holders {
        let network = Network::V4([10, 0, 0, ip].into());
        Holders::new(network, principal.map(Principal::new).as_ref())
    }

    #[test]
    fn an_address_and_a_principal_have_their_limits_and_one_that_resumes_has_none() {
        let places = Places::new(Limit {
            all: 5,
            per_address: 2,
            per_principal: 3,
        });
        let seat = |ip, principal| Seat::new(&places, client(ip, principal));
        let seats = [
            seat(1, Some("ann")),
            seat(1, None),
            seat(2, Some("ann")),
            seat(3, Some("ann")),
        ];
        assert!(seats.iter().all(|seat| seat.take().is_ok()));
        assert_eq!(seat(1, None).take(), Err(Over::Address));
        assert_eq!(seat(4, Some("ann")).take(), Err(Over::Principal));
        let last = seat(4, None);
        last.take().unwrap();
        assert_eq!(seat(5, None).take(), Err(Over::Connections));
        let resumed = seat(1, Some("ann"));
        resumed.take_over();
        assert_eq!(places.taken(), 6);
        drop((seats, last, resumed));
        assert_eq!(places.taken(), 0);
        assert!(
            places.taken.lock().unwrap().by.is_empty(),
            "no holder is left behind"
        );
    }
}
