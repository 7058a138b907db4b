//! Addresses and principals, which the limits of a server count by.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// The user of a connection. The authentication hook puts it into the request's extensions.
///
/// Only the principal that opened a session can resume it. The limits per principal count by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The principal of this name. Equal names are the same principal.
    pub fn new(name: impl Into<Arc<str>>) -> Principal {
        Principal(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its name, shared.
    #[cfg(feature = "status")]
    pub(crate) fn name(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 address, because a single
/// customer is given at least that much (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Network {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6(u64),
    /// The address is not known. No limit per address applies.
    Unknown,
}

impl Network {
    pub(crate) fn of(address: Option<SocketAddr>) -> Network {
        match address.map(|address| address.ip().to_canonical()) {
            Some(IpAddr::V4(ip)) => Network::V4(ip),
            Some(IpAddr::V6(ip)) => Network::V6((ip.to_bits() >> 64) as u64),
            None => Network::Unknown,
        }
    }
}

/// An address or a principal, which has limits of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Holder {
    Address(Network),
    Principal(Principal),
}

/// The holders that a client's connections, sessions and bytes count for.
#[derive(Clone, Debug)]
pub(crate) struct Holders {
    holders: Vec<Holder>,
}

impl Holders {
    pub(crate) fn new(network: Network, principal: Option<&Principal>) -> Holders {
        let mut holders = Vec::with_capacity(1 + usize::from(principal.is_some()));
        holders.push(Holder::Address(network));
        holders.extend(principal.cloned().map(Holder::Principal));
        Holders { holders }
    }

    pub(crate) fn holders(&self) -> &[Holder] {
        &self.holders
    }
}

/// The default limit of one address or principal: three quarters of the whole, rounded up.
pub(crate) fn share_of(whole: usize) -> usize {
    whole - whole / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        Network::of(Some(address.parse().unwrap()))
    }

    #[test]
    fn an_ipv6_address_counts_by_its_64_and_a_mapped_one_as_ipv4() {
        assert_eq!(
            network("[2001:db8:1:2:3::4]:5"),
            network("[2001:db8:1:2::9]:1")
        );
        assert_ne!(
            network("[2001:db8:1:2::1]:5"),
            network("[2001:db8:1:3::1]:5")
        );
        assert_eq!(network("[::ffff:192.0.2.7]:5"), network("192.0.2.7:6"));
        assert_ne!(network("192.0.2.7:5"), network("192.0.2.8:5"));
    }

    #[test]
    fn nobody_alone_gets_all_of_a_limit_unless_it_is_tiny() {
        let shares = [1, 2, 3, 4, 100, 10_000].map(share_of);
        assert_eq!(shares, [1, 2, 3, 3, 75, 7_500]);
    }
}
