//! Which addresses of the pod range are in use.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_provider::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::range::PodRange;

/// Hands out the addresses of a range, each to one pod at a time.
///
/// The search goes on from the last address that was handed out, so that an address rests for as long as possible
/// before another pod gets it: peers and caches may still know the old one.
#[derive(Debug)]
pub(super) struct AddressPool {
    range: PodRange,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// One bit for each address of the range, set while it is not to be handed out.
    taken: Vec<u64>,
    /// The offset where the next search begins.
    next: u32,
}

impl AddressPool {
    /// A pool that is searched from somewhere on: what was handed out last before the process started is not known.
    pub(super) fn new(range: PodRange) -> Arc<Self> {
        Self::from(range, rand::random_range(0..range.size()))
    }

    fn from(range: PodRange, next: u32) -> Arc<Self> {
        let words = range.size().div_ceil(u64::BITS) as usize;
        let mut state = State { taken: vec![0; words], next };
        (0..range.size())
            .filter(|&offset| !range.is_assignable(offset))
            .for_each(|offset| state.take(offset));
        // A range smaller than a word leaves bits that stand for no address.
        (range.size()..words as u32 * u64::BITS).for_each(|offset| state.take(offset));
        Arc::new(Self { range, state: Mutex::new(state) })
    }

    pub(super) fn range(&self) -> PodRange {
        self.range
    }

    /// The next free address.
    pub(super) fn allocate(self: &Arc<Self>) -> Result<Lease> {
        let mut state = self.state.lock();
        let offset = state.next_free().ok_or_else(|| self.exhausted())?;
        state.take(offset);
        state.next = (offset + 1) % self.range.size();
        drop(state);
        Ok(Lease { pool: self.clone(), offset })
    }

    /// The given address, for a pod that had it before this process started.
    pub(super) fn allocate_exact(self: &Arc<Self>, ip: IpAddr) -> Result<Lease> {
        let offset = self.range.offset(ip).ok_or_else(|| {
            Error::invalid(format!("{ip} is not an address for pods of the range {}", self.range))
        })?;
        let mut state = self.state.lock();
        if state.is_taken(offset) {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{ip} belongs to another pod")));
        }
        state.take(offset);
        drop(state);
        Ok(Lease { pool: self.clone(), offset })
    }

    fn exhausted(&self) -> Error {
        Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "no address is left in the pod range {}: remove pods or give the node a larger range",
                self.range
            ),
        )
    }
}

impl State {
    fn is_taken(&self, offset: u32) -> bool {
        self.taken[(offset / u64::BITS) as usize] & bit(offset) != 0
    }

    fn take(&mut self, offset: u32) {
        self.taken[(offset / u64::BITS) as usize] |= bit(offset);
    }

    fn give_back(&mut self, offset: u32) {
        self.taken[(offset / u64::BITS) as usize] &= !bit(offset);
    }

    fn next_free(&self) -> Option<u32> {
        let (words, start) = (self.taken.len(), self.next / u64::BITS);
        // The first word is looked at twice: from the start on, and at the end what comes before it.
        let before_start = bit(self.next) - 1;
        (0..=words).find_map(|step| {
            let word = (start as usize + step) % words;
            let hidden = match step {
                0 => before_start,
                _ if step == words => !before_start,
                _ => 0,
            };
            let free = !(self.taken[word] | hidden);
            (free != 0).then(|| word as u32 * u64::BITS + free.trailing_zeros())
        })
    }
}

fn bit(offset: u32) -> u64 {
    1 << (offset % u64::BITS)
}

/// An address while a pod has it. Dropping it gives the address back.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<AddressPool>,
    offset: u32,
}

impl Lease {
    pub(super) fn ip(&self) -> IpAddr {
        self.pool.range.at(self.offset)
    }

    /// The place of the address in its range.
    pub(super) fn offset(&self) -> u32 {
        self.offset
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.state.lock().give_back(self.offset);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn pool(range: &str) -> Arc<AddressPool> {
        AddressPool::from(PodRange::new(range.parse().unwrap()).unwrap(), 0)
    }

    #[test]
    fn hands_out_every_address_once_and_then_names_the_range() {
        for (range, count) in
            [("10.0.0.0/29", 5), ("10.0.0.0/26", 61), ("10.0.0.0/24", 253), ("fd00::/118", 1021)]
        {
            let pool = pool(range);
            let leases: Vec<_> = (0..count).map(|_| pool.allocate().unwrap()).collect();
            let distinct: HashSet<_> = leases.iter().map(Lease::ip).collect();
            assert_eq!(distinct.len(), count);
            assert!(distinct.iter().all(|ip| pool.range().offset(*ip).is_some()));
            let error = pool.allocate().unwrap_err();
            assert_eq!(error.kind, ErrorKind::ResourceExhausted);
            assert!(error.message.contains(range), "{error}");
        }
    }

    #[test]
    fn an_address_rests_until_all_others_were_used() {
        let pool = pool("10.0.0.0/25");
        let first = pool.allocate().unwrap().ip();
        let others: Vec<_> = (0..124).map(|_| pool.allocate().unwrap().ip()).collect();
        assert!(!others.contains(&first));
        assert_eq!(pool.allocate().unwrap().ip(), first);
    }

    #[test]
    fn a_new_pool_does_not_begin_where_the_one_before_it_did() {
        let first = || {
            AddressPool::new(PodRange::new("fd00::/64".parse().unwrap()).unwrap()).allocate().unwrap().ip()
        };
        let distinct: HashSet<_> = (0..8).map(|_| first()).collect();
        assert!(distinct.len() > 1);
    }

    #[test]
    fn finds_the_only_gap_wherever_it_is() {
        let pool = pool("10.0.0.0/24");
        let mut leases: Vec<_> = (0..253).map(|_| pool.allocate().unwrap()).collect();
        for index in [0, 60, 61, 62, 63, 64, 127, 252] {
            let gap = leases[index].ip();
            leases.remove(index);
            let again = pool.allocate().unwrap();
            assert_eq!(again.ip(), gap);
            leases.insert(index, again);
            assert!(pool.allocate().is_err());
        }
    }

    #[test]
    fn a_restored_address_is_not_handed_out_again() {
        let pool = pool("10.0.0.0/29");
        let kept = pool.allocate_exact("10.0.0.2".parse().unwrap()).unwrap();
        assert_eq!(pool.allocate().unwrap().ip(), IpAddr::from([10, 0, 0, 3]));
        let twice = pool.allocate_exact(kept.ip()).unwrap_err();
        assert_eq!(twice.kind, ErrorKind::AlreadyExists);
        for outside in ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2", "fd00::2"] {
            let error = pool.allocate_exact(outside.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{outside}");
        }
    }
}
