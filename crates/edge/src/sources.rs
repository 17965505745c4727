//! How many connections each source may hold, so that one cannot take the places of all others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of an IPv6 address that name one customer: providers hand out whole /64 networks.
const SOURCE_BYTES_V6: usize = 8;

/// The sources that hold connections now.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Connections of one source at once; 0 is no limit.
    max: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// A source's claim to one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<(Arc<Sources>, IpAddr)>);

impl Sources {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    /// Takes a place for a connection from `peer`; none when it holds as many as it may. A proxy in front of the box
    /// speaks for many clients and `is_exempt`.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr, is_exempt: bool) -> Option<Place> {
        if self.max == 0 || is_exempt {
            return Some(Place(None));
        }
        let source = source_of(peer);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(source).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(self), source))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((sources, source)) = self.0.take() else { return };
        let mut held = sources.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&source);
            }
        }
    }
}

fn source_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(peer) => {
            let mut octets = peer.octets();
            octets[SOURCE_BYTES_V6..].fill(0);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_places_back_and_takes_none_of_others() {
        let sources = Sources::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let held =
            [sources.take(ip("10.0.0.1"), false).unwrap(), sources.take(ip("10.0.0.1"), false).unwrap()];
        assert!(sources.take(ip("10.0.0.1"), false).is_none());
        assert!(sources.take(ip("10.0.0.2"), false).is_some());
        assert!(sources.take(ip("10.0.0.1"), true).is_some());
        drop(held);
        assert!(sources.take(ip("10.0.0.1"), false).is_some());
        assert!(sources.held.lock().unwrap().is_empty(), "nothing is kept of those that left");
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let sources = Sources::new(1);
        let _held = sources.take("2001:db8::1".parse().unwrap(), false).unwrap();
        assert!(sources.take("2001:db8::ffff:2".parse().unwrap(), false).is_none());
        assert!(sources.take("2001:db8:0:1::1".parse().unwrap(), false).is_some());
    }
}
