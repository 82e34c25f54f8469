//! The range of addresses that pods get, and the loopback alias that belongs to each of them.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::NetworkError;

/// The largest range: the aliases of its addresses fill a quarter of 127.0.0.0/8.
const SHORTEST_PREFIX: u8 = 10;
/// The smallest range: below it, nothing is left once the reserved addresses are gone.
const LONGEST_PREFIX: u8 = 29;
/// Where the aliases begin: far from 127.0.0.1 and from the 127.0.0.53 and 127.0.1.1 of distributions.
const FIRST_ALIAS: u32 = u32::from_be_bytes([127, 64, 0, 0]);

/// A range of IPv4 addresses for pods.
///
/// The first address is the node's own end where the node has no other address, so it is reserved beside the
/// network's and the broadcast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodRange(Ipv4Net);

impl PodRange {
    /// Checks a range that somebody configured.
    pub(super) fn new(range: IpNet) -> Result<Self, NetworkError> {
        match range {
            IpNet::V6(_) => Err(NetworkError::Ipv6Range(range)),
            IpNet::V4(v4) if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&v4.prefix_len()) => {
                Err(NetworkError::RangeSize { range, longest: LONGEST_PREFIX, shortest: SHORTEST_PREFIX })
            }
            IpNet::V4(v4) => Ok(Self(v4.trunc())),
        }
    }

    pub(super) fn net(&self) -> Ipv4Net {
        self.0
    }

    /// How many addresses there are, the reserved ones included.
    pub(super) fn size(&self) -> u32 {
        1 << (32 - self.0.prefix_len())
    }

    /// The node's end of the range.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// Whether the address at this offset may go to a pod.
    pub(super) fn is_assignable(&self, offset: u32) -> bool {
        offset > 1 && offset < self.size() - 1
    }

    /// The address at an offset below [`size`](Self::size).
    pub(super) fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() + offset)
    }

    /// The offset of an address, if it is in the range.
    pub(super) fn offset(&self, ip: Ipv4Addr) -> Option<u32> {
        self.0.contains(&ip).then(|| ip.to_bits() - self.0.network().to_bits())
    }

    /// The loopback address that stands for 127.0.0.1 in the pod whose address is at this offset.
    pub(super) fn alias(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_ALIAS + offset)
    }

    /// A name for the node's network interface of this range: stable, and within the 15 characters of Linux.
    pub(super) fn interface_name(&self) -> String {
        format!("cora{:08x}", self.0.network().to_bits())
    }
}

impl std::fmt::Display for PodRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Result<PodRange, NetworkError> {
        PodRange::new(text.parse().unwrap())
    }

    #[test]
    fn reserves_network_gateway_and_broadcast() {
        let range = range("10.1.2.7/29").unwrap();
        assert_eq!(range.to_string(), "10.1.2.0/29");
        let assignable: Vec<_> = (0..range.size()).filter(|&offset| range.is_assignable(offset)).collect();
        assert_eq!(assignable, [2, 3, 4, 5, 6]);
        assert_eq!(range.gateway(), Ipv4Addr::new(10, 1, 2, 1));
    }

    #[test]
    fn refuses_by_name_what_it_cannot_serve() {
        assert!(range("fd00::/64").unwrap_err().to_string().contains("IPv6"));
        for size in ["10.0.0.0/9", "10.0.0.0/30", "10.0.0.0/32"] {
            assert!(range(size).unwrap_err().to_string().contains("/10"), "{size}");
        }
    }

    #[test]
    fn aliases_stay_in_loopback_and_apart() {
        let largest = range("10.64.0.0/10").unwrap();
        assert_eq!(largest.alias(0), Ipv4Addr::new(127, 64, 0, 0));
        assert_eq!(largest.alias(largest.size() - 1), Ipv4Addr::new(127, 127, 255, 255));
        assert_ne!(largest.alias(2), largest.alias(3));
    }

    #[test]
    fn interface_names_fit_into_linux() {
        let name = range("255.255.255.0/24").unwrap().interface_name();
        assert_eq!(name, "coraffffff00");
        assert!(name.len() <= 15);
    }
}
