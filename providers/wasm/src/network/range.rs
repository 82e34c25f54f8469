//! The ranges of addresses that pods get, and the loopback aliases that belong to each of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::NetworkError;

/// The largest range of IPv4: the aliases of its addresses fill a quarter of 127.0.0.0/8.
const SHORTEST_V4: u8 = 10;
/// The smallest range of IPv4: below it, nothing is left once the reserved addresses are gone.
const LONGEST_V4: u8 = 29;
/// Ranges of IPv6. A cluster's controller gives a /64 to a node by default.
const SHORTEST_V6: u8 = 32;
const LONGEST_V6: u8 = 125;
/// How many bits of an IPv6 range tell pods apart: more pods than that fit on no node.
const BITS_V6: u8 = 16;
/// Where the aliases begin: far from 127.0.0.1 and from the 127.0.0.53 and 127.0.1.1 of distributions.
const FIRST_ALIAS_V4: u32 = u32::from_be_bytes([127, 64, 0, 0]);
/// IPv6 has one loopback address, so the aliases come from a unique local prefix that exists in the pods' namespace alone.
pub(super) const ALIASES_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd7a, 0x6c6f, 0x6f70, 0x6261, 0, 0, 0, 0), 64);

/// A range of addresses of one family for pods.
///
/// The first address is the node's own end where the node has no other address, so it is reserved beside the
/// network's and the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodRange(IpNet);

impl PodRange {
    /// Checks a range that somebody configured.
    pub(super) fn new(range: IpNet) -> Result<Self, NetworkError> {
        let (shortest, longest) = match range {
            IpNet::V4(_) => (SHORTEST_V4, LONGEST_V4),
            IpNet::V6(_) => (SHORTEST_V6, LONGEST_V6),
        };
        if !(shortest..=longest).contains(&range.prefix_len()) {
            return Err(NetworkError::RangeSize { range, longest, shortest });
        }
        Ok(Self(range.trunc()))
    }

    pub(super) fn net(&self) -> IpNet {
        self.0
    }

    /// How many addresses there are for pods, the reserved ones included.
    pub(super) fn size(&self) -> u32 {
        match self.0 {
            IpNet::V4(v4) => 1 << (32 - v4.prefix_len()),
            IpNet::V6(v6) => 1 << (128 - v6.prefix_len()).min(BITS_V6),
        }
    }

    /// The node's end of the range.
    pub(super) fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// Whether the address at this offset may go to a pod.
    pub(super) fn is_assignable(&self, offset: u32) -> bool {
        offset > 1 && offset < self.size() - 1
    }

    /// The address at an offset below [`size`](Self::size).
    pub(super) fn at(&self, offset: u32) -> IpAddr {
        match self.0 {
            IpNet::V4(v4) => Ipv4Addr::from_bits(v4.network().to_bits() + offset).into(),
            IpNet::V6(v6) => Ipv6Addr::from_bits(v6.network().to_bits() + u128::from(offset)).into(),
        }
    }

    /// The offset of an address, if it is one that pods get.
    pub(super) fn offset(&self, ip: IpAddr) -> Option<u32> {
        let offset = match (self.0, ip) {
            (IpNet::V4(net), IpAddr::V4(ip)) if net.contains(&ip) => ip.to_bits() - net.network().to_bits(),
            (IpNet::V6(net), IpAddr::V6(ip)) if net.contains(&ip) => {
                u32::try_from(ip.to_bits() - net.network().to_bits()).ok()?
            }
            _ => return None,
        };
        self.is_assignable(offset).then_some(offset)
    }
}

/// What stands for 127.0.0.1 in the pod at this offset of its primary range.
pub(super) fn alias_v4(offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_ALIAS_V4 + offset)
}

/// What stands for ::1 there.
pub(super) fn alias_v6(offset: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(ALIASES_V6.network().to_bits() + u128::from(offset))
}

impl fmt::Display for PodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One range, or one of each family. The first one's addresses are the primary ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodRanges(Vec<PodRange>);

impl PodRanges {
    /// Checks ranges that somebody configured.
    pub(super) fn new(ranges: &[IpNet]) -> Result<Self, NetworkError> {
        let is_v4 = |net: &IpNet| matches!(net, IpNet::V4(_));
        match ranges {
            [_] => {}
            [first, second] if is_v4(first) != is_v4(second) => {}
            _ => return Err(NetworkError::Ranges(list(ranges))),
        }
        ranges.iter().map(|range| PodRange::new(*range)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = PodRange> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn has_v6(&self) -> bool {
        self.0.iter().any(|range| matches!(range.net(), IpNet::V6(_)))
    }

    /// A name for the node's network interface of these ranges: stable, and within the 15 characters of Linux.
    pub(super) fn interface_name(&self) -> String {
        format!("cora{:08x}", self.id())
    }

    /// A number that other ranges most likely do not have.
    pub(super) fn id(&self) -> u32 {
        self.0.first().map_or(0, |range| match range.net() {
            IpNet::V4(v4) => v4.network().to_bits(),
            IpNet::V6(v6) => v6
                .network()
                .octets()
                .chunks(4)
                .fold(0, |sum, word| sum ^ word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))),
        })
    }
}

impl fmt::Display for PodRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(&self.0))
    }
}

fn list(ranges: &[impl fmt::Display]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Result<PodRange, NetworkError> {
        PodRange::new(text.parse().unwrap())
    }

    fn ranges(text: &str) -> Result<PodRanges, NetworkError> {
        PodRanges::new(&text.split(',').map(|range| range.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn reserves_the_first_two_and_the_last_address() {
        for (text, shown, gateway) in
            [("10.1.2.7/29", "10.1.2.0/29", "10.1.2.1"), ("fd00:1::7/125", "fd00:1::/125", "fd00:1::1")]
        {
            let range = range(text).unwrap();
            assert_eq!(range.to_string(), shown);
            let assignable: Vec<_> =
                (0..range.size()).filter(|&offset| range.is_assignable(offset)).collect();
            assert_eq!(assignable, [2, 3, 4, 5, 6]);
            assert_eq!(range.gateway().to_string(), gateway);
        }
    }

    #[test]
    fn offsets_and_addresses_belong_together() {
        for (text, inside, outside) in [
            ("10.1.2.0/24", "10.1.2.77", ["10.1.3.2", "10.1.2.255", "10.1.2.1", "fd00::2"]),
            ("fd00:1::/64", "fd00:1::4d", ["fd00:2::2", "fd00:1::ffff", "fd00:1::1:2", "10.1.2.2"]),
        ] {
            let range = range(text).unwrap();
            let ip = inside.parse().unwrap();
            assert_eq!(range.at(range.offset(ip).unwrap()), ip);
            for outside in outside {
                assert_eq!(range.offset(outside.parse().unwrap()), None, "{outside}");
            }
        }
    }

    #[test]
    fn refuses_by_name_what_it_cannot_serve() {
        for (size, bound) in [
            ("10.0.0.0/9", "/10"),
            ("10.0.0.0/30", "/10"),
            ("10.0.0.0/32", "/29"),
            ("fd00::/126", "/125"),
            ("fd00::/16", "/32"),
        ] {
            assert!(range(size).unwrap_err().to_string().contains(bound), "{size}");
        }
        for wrong in ["10.0.0.0/24,10.0.1.0/24", "fd00::/64,fd01::/64", "10.0.0.0/24,fd00::/64,fd01::/64"] {
            assert!(ranges(wrong).unwrap_err().to_string().contains("one of each family"), "{wrong}");
        }
        assert!(PodRanges::new(&[]).is_err());
        assert_eq!(ranges("fd00::/64,10.0.0.0/24").unwrap().to_string(), "fd00::/64,10.0.0.0/24");
    }

    #[test]
    fn aliases_stay_in_their_ranges_and_apart() {
        let largest = range("10.64.0.0/10").unwrap();
        assert_eq!(alias_v4(0), Ipv4Addr::new(127, 64, 0, 0));
        assert_eq!(alias_v4(largest.size() - 1), Ipv4Addr::new(127, 127, 255, 255));
        assert_ne!(alias_v4(2), alias_v4(3));
        assert!(ALIASES_V6.contains(&alias_v6(largest.size() - 1)));
        assert_ne!(alias_v6(2), alias_v6(3));
    }

    #[test]
    fn interface_names_fit_into_linux() {
        assert_eq!(ranges("255.255.255.0/24,fd00::/64").unwrap().interface_name(), "coraffffff00");
        let name = ranges("fdff:ffff:ffff:ffff::/64").unwrap().interface_name();
        assert!(name.len() <= 15, "{name}");
    }
}
