//! Something of which there is only so much, for all together and for each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// So much is there. One address gets at most three quarters of it.
#[derive(Debug)]
pub(super) struct Shares {
    limit: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// What somebody has taken. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    address: IpAddr,
    taken: usize,
}

impl Shares {
    pub(super) fn new(limit: usize) -> Arc<Shares> {
        Arc::new(Shares {
            limit,
            per_address: limit.div_ceil(4).saturating_mul(3),
            taken: Mutex::default(),
        })
    }

    /// An empty share for somebody at this address.
    pub(super) fn share(self: &Arc<Self>, address: IpAddr) -> Share {
        // Whoever has one IPv6 address has its whole /64.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        };
        Share {
            shares: self.clone(),
            address,
            taken: 0,
        }
    }
}

impl Share {
    /// Takes more. `false`: there is no more.
    pub(super) fn take(&mut self, more: usize) -> bool {
        let shares = &self.shares;
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = taken.all.saturating_add(more);
        let own = taken.by.get(&self.address).copied().unwrap_or(0);
        let own = own.saturating_add(more);
        if all > shares.limit || own > shares.per_address {
            return false;
        }
        taken.all = all;
        taken.by.insert(self.address, own);
        self.taken = self.taken.saturating_add(more);
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        let shares = &self.shares;
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(self.taken);
        if let Some(own) = taken.by.get_mut(&self.address) {
            *own = own.saturating_sub(self.taken);
            if *own == 0 {
                taken.by.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_a_quarter_to_the_others_and_all_comes_back() {
        let shares = Shares::new(100);
        let address = |text: &str| text.parse().unwrap();
        let mut first = shares.share(address("2001:db8::1"));
        let mut neighbour = shares.share(address("2001:db8::2"));
        let mut other = shares.share(address("192.0.2.1"));
        assert!(first.take(70) && !neighbour.take(6) && neighbour.take(5));
        assert!(other.take(25) && !other.take(1));
        drop(first);
        assert!(other.take(50) && !other.take(1));
        drop((neighbour, other));
        let taken = shares.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by.is_empty());
    }
}
