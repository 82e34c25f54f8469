//! Counts connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Limits;

/// Places for connections, all together and for each peer.
pub(crate) struct Slots {
    max: usize,
    max_per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Slots {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.max_connections,
            max_per_peer: limits.max_connections_per_peer,
            taken: Mutex::default(),
        })
    }

    /// A place for one more connection of this peer, unless there are too many.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let peer = peer.to_canonical();
        let mut taken = self.taken.lock();
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.total >= self.max || of_peer >= self.max_per_peer {
            return None;
        }
        taken.total += 1;
        taken.by_peer.insert(peer, of_peer + 1);
        Some(Slot { slots: self.clone(), peer })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        taken.total -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_for_each_peer_and_come_back() {
        let limits = Limits { max_connections: 3, max_connections_per_peer: 2, ..Limits::default() };
        let slots = Slots::new(&limits);
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let a_mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let first = slots.take(a).unwrap();
        let _second = slots.take(a_mapped).unwrap();
        assert!(slots.take(a).is_none(), "two of one peer, in whatever notation");
        let third = slots.take(b).unwrap();
        assert!(slots.take(c).is_none(), "three in all");
        drop(first);
        assert!(slots.take(b).is_some());
        drop(third);
        let taken = slots.taken.lock();
        assert_eq!((taken.total, taken.by_peer.len()), (1, 1));
    }
}
