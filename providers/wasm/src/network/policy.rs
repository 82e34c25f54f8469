//! Which addresses a guest's sockets may use, and what the addresses that it names stand for. Pure decisions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::range::ALIASES_V6;

/// Metadata services of cloud providers that live at unique local IPv6 addresses. Those at IPv4 addresses are
/// link-local, and so refused anyway.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Where the sockets of a pod live.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the namespace that pods share, on addresses of its own.
    Pod {
        /// The pod's addresses, the primary one first, at most one of each family.
        ips: Vec<IpAddr>,
        /// What 127.0.0.1 and, in a pod with an IPv6 address, ::1 are for this pod: all pods share one loopback device.
        aliases: Vec<IpAddr>,
    },
    /// In a namespace that is the pod's alone, so that its loopback device is, too.
    Namespace {
        /// The pod's addresses, the primary one first.
        ips: Vec<IpAddr>,
    },
    /// In the node's namespace, on the node's addresses.
    Node {
        /// The addresses that guests may listen on, the primary one first.
        addresses: Vec<IpAddr>,
        /// Whether guests may connect to any service on the node's loopback, or only to those of their own pod.
        host_loopback: bool,
    },
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Where a connection or a datagram that a guest asked for has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To whatever listens on this port within the pod.
    Loopback(SocketAddr),
    /// To the pod's own address.
    Own(SocketAddr),
    /// Away from the pod.
    Remote(SocketAddr),
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No address of this pod.
    NotBindable,
    /// Policy keeps guests away from it.
    Prohibited,
    /// The pod has no way there.
    Unreachable,
    /// Nothing of the pod listens there.
    Refused,
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::NotBindable => io::ErrorKind::AddrNotAvailable,
            Refusal::Prohibited => io::ErrorKind::PermissionDenied,
            Refusal::Unreachable => io::ErrorKind::NetworkUnreachable,
            Refusal::Refused => io::ErrorKind::ConnectionRefused,
        };
        kind.into()
    }
}

impl Place {
    /// The addresses that others know the pod by, the primary one first.
    pub(super) fn ips(&self) -> &[IpAddr] {
        match self {
            Self::Pod { ips, .. } | Self::Namespace { ips } => ips,
            Self::Node { addresses, .. } => addresses,
        }
    }

    /// The addresses that a service of the pod listens on: the first one of each family.
    pub(super) fn listen_ips(&self) -> Vec<IpAddr> {
        let first = |is_v4: bool| self.ips().iter().position(|ip| ip.is_ipv4() == is_v4);
        let mut places: Vec<_> = [first(true), first(false)].into_iter().flatten().collect();
        places.sort_unstable();
        let ips = places.into_iter().map(|place| self.ips()[place]);
        match self {
            // There, localhost is an address of the pod like any other.
            Self::Namespace { .. } => ips.map(unspecified_like).collect(),
            _ => ips.collect(),
        }
    }

    /// The address to bind to when a guest asks for `wanted`.
    pub(super) fn bind(&self, wanted: SocketAddr, transport: Transport) -> Result<SocketAddr, Refusal> {
        let (asked, port) = (wanted.ip(), wanted.port());
        let ip = match self {
            Self::Pod { ips, aliases } => {
                let own = of_family(ips, asked).filter(|ip| asked.is_unspecified() || asked == *ip);
                let alias = of_family(aliases, asked).filter(|ip| is_localhost(asked) || asked == *ip);
                own.or(alias).ok_or(Refusal::NotBindable)?
            }
            Self::Namespace { .. } if self.is_own(asked) => asked,
            Self::Namespace { .. } => return Err(Refusal::NotBindable),
            // A client's datagram socket must be able to reach everything, which one on an address cannot.
            Self::Node { .. } if transport == Transport::Udp && asked.is_unspecified() && port == 0 => asked,
            Self::Node { addresses, .. } if asked.is_unspecified() => {
                of_family(addresses, asked).ok_or(Refusal::NotBindable)?
            }
            Self::Node { addresses, .. } if is_localhost(asked) || addresses.contains(&asked) => asked,
            Self::Node { .. } => return Err(Refusal::NotBindable),
        };
        Ok(SocketAddr::new(ip, port))
    }

    /// Where a guest's connection or datagram to `wanted` has to go.
    pub(super) fn destination(&self, wanted: SocketAddr) -> Result<Destination, Refusal> {
        let ip = wanted.ip();
        match self {
            Self::Pod { ips, .. } if ips.contains(&ip) => Ok(Destination::Own(wanted)),
            Self::Pod { aliases, .. }
                if aliases.contains(&ip) || is_localhost(ip) && of_family(aliases, ip).is_some() =>
            {
                Ok(Destination::Loopback(wanted))
            }
            Self::Pod { .. } if is_prohibited(ip) || is_loopback(ip) => Err(Refusal::Prohibited),
            Self::Namespace { ips } if ips.contains(&ip) || ip.is_loopback() => Ok(Destination::Own(wanted)),
            Self::Namespace { .. } if is_prohibited(ip) => Err(Refusal::Prohibited),
            Self::Pod { ips, .. } | Self::Namespace { ips } if of_family(ips, ip).is_none() => {
                Err(Refusal::Unreachable)
            }
            Self::Node { .. } if is_localhost(ip) => Ok(Destination::Loopback(wanted)),
            Self::Node { host_loopback: false, .. } if ip.is_loopback() => Err(Refusal::Prohibited),
            Self::Node { .. } if is_prohibited(ip) => Err(Refusal::Prohibited),
            _ => Ok(Destination::Remote(wanted)),
        }
    }

    /// Whether an address is the pod's own to bind to and listen on.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        match self {
            Self::Pod { ips, aliases } => ips.contains(&ip) || aliases.contains(&ip),
            Self::Namespace { ips } => ip.is_unspecified() || ip.is_loopback() || ips.contains(&ip),
            Self::Node { addresses, .. } => is_localhost(ip) || addresses.contains(&ip),
        }
    }

    /// Whether a peer may reach a socket of the pod. Other pods' aliases never send, so this only backs that up.
    pub(super) fn may_receive_from(&self, peer: IpAddr) -> bool {
        match self {
            Self::Pod { aliases, .. } => !is_loopback(peer) || aliases.contains(&peer),
            Self::Namespace { .. } | Self::Node { .. } => true,
        }
    }

    /// Whether a socket that is bound to `local` may send there. One on the pod's loopback address must not: the
    /// kernel would hand it to other pods past the node, where their policies are.
    pub(super) fn may_leave_from(&self, local: IpAddr, destination: Destination) -> bool {
        match (self, destination) {
            (Self::Pod { aliases, .. }, Destination::Remote(_)) => !aliases.contains(&local),
            _ => true,
        }
    }

    /// The address as the guest knows it.
    pub(super) fn as_seen_by_guest(&self, mut address: SocketAddr) -> SocketAddr {
        match self {
            Self::Pod { aliases, .. } if aliases.contains(&address.ip()) => {
                address.set_ip(localhost_like(address.ip()));
                address
            }
            _ => address,
        }
    }
}

/// The address of the list that is of the same family.
pub(super) fn of_family(list: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    list.iter().copied().find(|ip| ip.is_ipv4() == like.is_ipv4())
}

pub(super) fn unspecified_like(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub(super) fn localhost_like(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

fn is_localhost(ip: IpAddr) -> bool {
    ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}

/// Whether an address is on the loopback device of the namespace that pods share.
pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback() || matches!(ip, IpAddr::V6(v6) if ALIASES_V6.contains(&v6))
}

/// Addresses that no guest may send to, whatever network it is in.
fn is_prohibited(ip: IpAddr) -> bool {
    match ip {
        // All of 0.0.0.0/8 is "this host".
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => {
            // Embedded IPv4 addresses would get around the rules for IPv4.
            let embeds_v4 = v6.to_ipv4().is_some() && v6 != Ipv6Addr::LOCALHOST;
            let is_nat64 = v6.segments()[..2] == [0x64, 0xff9b];
            v6.is_unicast_link_local() || embeds_v4 || is_nat64 || METADATA_V6.contains(&v6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Udp};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn pod() -> Place {
        Place::Pod { ips: ips(&["10.4.2.5"]), aliases: ips(&["127.64.0.5"]) }
    }

    const ALIAS_V6: &str = "fd7a:6c6f:6f70:6261::5";

    fn dual_stack_pod() -> Place {
        Place::Pod { ips: ips(&["10.4.2.5", "fd00:4::5"]), aliases: ips(&["127.64.0.5", ALIAS_V6]) }
    }

    fn v6_pod() -> Place {
        Place::Pod { ips: ips(&["fd00:4::5"]), aliases: ips(&["127.64.0.5", ALIAS_V6]) }
    }

    fn namespace() -> Place {
        Place::Namespace { ips: ips(&["10.4.2.5", "fd00:4::5"]) }
    }

    fn node(addresses: &[&str], host_loopback: bool) -> Place {
        Place::Node { addresses: ips(addresses), host_loopback }
    }

    #[test]
    fn binds_in_a_pod() {
        for (wanted, bound) in [
            ("0.0.0.0:80", Ok("10.4.2.5:80")),
            ("0.0.0.0:0", Ok("10.4.2.5:0")),
            ("10.4.2.5:80", Ok("10.4.2.5:80")),
            ("127.0.0.1:80", Ok("127.64.0.5:80")),
            ("127.64.0.5:80", Ok("127.64.0.5:80")),
            ("127.64.0.6:80", Err(Refusal::NotBindable)),
            ("127.0.0.2:80", Err(Refusal::NotBindable)),
            ("10.4.2.6:80", Err(Refusal::NotBindable)),
            ("192.0.2.1:80", Err(Refusal::NotBindable)),
            ("169.254.1.1:80", Err(Refusal::NotBindable)),
            ("[::]:80", Err(Refusal::NotBindable)),
            ("[::1]:80", Err(Refusal::NotBindable)),
            ("[::ffff:10.4.2.5]:80", Err(Refusal::NotBindable)),
        ] {
            for transport in [Tcp, Udp] {
                assert_eq!(pod().bind(address(wanted), transport), bound.map(address), "{wanted}");
            }
        }
    }

    #[test]
    fn binds_in_a_pod_of_both_families() {
        for (wanted, both, only_v6, namespace_s) in [
            ("0.0.0.0:80", Ok("10.4.2.5:80"), Err(Refusal::NotBindable), Ok("0.0.0.0:80")),
            ("127.0.0.1:80", Ok("127.64.0.5:80"), Ok("127.64.0.5:80"), Ok("127.0.0.1:80")),
            ("[::]:80", Ok("[fd00:4::5]:80"), Ok("[fd00:4::5]:80"), Ok("[::]:80")),
            ("[fd00:4::5]:80", Ok("[fd00:4::5]:80"), Ok("[fd00:4::5]:80"), Ok("[fd00:4::5]:80")),
            (
                "[::1]:80",
                Ok("[fd7a:6c6f:6f70:6261::5]:80"),
                Ok("[fd7a:6c6f:6f70:6261::5]:80"),
                Ok("[::1]:80"),
            ),
            (
                "[fd7a:6c6f:6f70:6261::6]:80",
                Err(Refusal::NotBindable),
                Err(Refusal::NotBindable),
                Err(Refusal::NotBindable),
            ),
            (
                "[fd00:4::6]:80",
                Err(Refusal::NotBindable),
                Err(Refusal::NotBindable),
                Err(Refusal::NotBindable),
            ),
            (
                "[::ffff:10.4.2.5]:80",
                Err(Refusal::NotBindable),
                Err(Refusal::NotBindable),
                Err(Refusal::NotBindable),
            ),
            ("[fe80::1]:80", Err(Refusal::NotBindable), Err(Refusal::NotBindable), Err(Refusal::NotBindable)),
        ] {
            for (place, bound) in [(dual_stack_pod(), both), (v6_pod(), only_v6), (namespace(), namespace_s)]
            {
                assert_eq!(place.bind(address(wanted), Tcp), bound.map(address), "{wanted} {place:?}");
            }
        }
    }

    #[test]
    fn connects_from_a_pod_of_both_families() {
        let remote = |text| Ok(Destination::Remote(address(text)));
        let own = |text| Ok(Destination::Own(address(text)));
        let loopback = |text| Ok(Destination::Loopback(address(text)));
        for (wanted, pods, alone) in [
            ("[2001:db8::1]:80", remote("[2001:db8::1]:80"), remote("[2001:db8::1]:80")),
            ("[fd00:4::6]:80", remote("[fd00:4::6]:80"), remote("[fd00:4::6]:80")),
            ("[fd00:4::5]:80", own("[fd00:4::5]:80"), own("[fd00:4::5]:80")),
            ("[::1]:80", loopback("[::1]:80"), own("[::1]:80")),
            ("127.0.0.1:80", loopback("127.0.0.1:80"), own("127.0.0.1:80")),
            ("127.0.0.53:53", Err(Refusal::Prohibited), own("127.0.0.53:53")),
            ("169.254.169.254:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[fe80::1]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[fd00:ec2::254]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[fd20:ce::254]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[::ffff:169.254.169.254]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[::ffff:127.0.0.1]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[::]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
        ] {
            assert_eq!(dual_stack_pod().destination(address(wanted)), pods, "{wanted}");
            assert_eq!(namespace().destination(address(wanted)), alone, "{wanted}");
        }
        let other_alias = address("[fd7a:6c6f:6f70:6261::6]:80");
        assert_eq!(dual_stack_pod().destination(other_alias), Err(Refusal::Prohibited));
        assert_eq!(v6_pod().destination(address("192.0.2.1:80")), Err(Refusal::Unreachable));
        assert_eq!(v6_pod().destination(address("127.0.0.1:80")), loopback("127.0.0.1:80"));
    }

    #[test]
    fn services_listen_once_in_each_family() {
        for (place, listened) in [
            (pod(), &["10.4.2.5"][..]),
            (dual_stack_pod(), &["10.4.2.5", "fd00:4::5"]),
            (v6_pod(), &["fd00:4::5"]),
            (namespace(), &["0.0.0.0", "::"]),
            (node(&["2001:db8::7", "192.0.2.7", "192.0.2.8"], false), &["2001:db8::7", "192.0.2.7"]),
            (node(&[], false), &[]),
        ] {
            assert_eq!(place.listen_ips(), ips(listened));
        }
    }

    #[test]
    fn connects_from_a_pod() {
        let remote = |text| Ok(Destination::Remote(address(text)));
        for (wanted, destination) in [
            ("192.0.2.1:80", remote("192.0.2.1:80")),
            ("10.4.2.6:80", remote("10.4.2.6:80")),
            ("10.4.2.5:80", Ok(Destination::Own(address("10.4.2.5:80")))),
            ("127.0.0.1:80", Ok(Destination::Loopback(address("127.0.0.1:80")))),
            ("127.64.0.5:80", Ok(Destination::Loopback(address("127.64.0.5:80")))),
            ("127.64.0.6:80", Err(Refusal::Prohibited)),
            ("127.0.0.53:53", Err(Refusal::Prohibited)),
            ("169.254.169.254:80", Err(Refusal::Prohibited)),
            ("169.254.1.1:80", Err(Refusal::Prohibited)),
            ("0.0.0.0:80", Err(Refusal::Prohibited)),
            ("0.1.2.3:80", Err(Refusal::Prohibited)),
            ("[::1]:80", Err(Refusal::Prohibited)),
            ("[fe80::1]:80", Err(Refusal::Prohibited)),
            ("[::ffff:127.0.0.1]:80", Err(Refusal::Prohibited)),
            ("[::ffff:10.4.2.6]:80", Err(Refusal::Prohibited)),
            ("[::10.4.2.6]:80", Err(Refusal::Prohibited)),
            ("[64:ff9b::a9fe:a9fe]:80", Err(Refusal::Prohibited)),
            ("[::]:80", Err(Refusal::Prohibited)),
            ("[fd00:ec2::254]:80", Err(Refusal::Prohibited)),
            ("[2001:db8::1]:80", Err(Refusal::Unreachable)),
        ] {
            assert_eq!(pod().destination(address(wanted)), destination, "{wanted}");
        }
    }

    #[test]
    fn binds_on_the_node() {
        let node = node(&["192.0.2.7", "2001:db8::7"], false);
        for (wanted, transport, bound) in [
            ("0.0.0.0:80", Tcp, Ok("192.0.2.7:80")),
            ("0.0.0.0:0", Tcp, Ok("192.0.2.7:0")),
            ("0.0.0.0:80", Udp, Ok("192.0.2.7:80")),
            ("0.0.0.0:0", Udp, Ok("0.0.0.0:0")),
            ("[::]:80", Tcp, Ok("[2001:db8::7]:80")),
            ("[::]:0", Udp, Ok("[::]:0")),
            ("192.0.2.7:80", Tcp, Ok("192.0.2.7:80")),
            ("127.0.0.1:80", Tcp, Ok("127.0.0.1:80")),
            ("[::1]:80", Tcp, Ok("[::1]:80")),
            ("127.0.0.2:80", Tcp, Err(Refusal::NotBindable)),
            ("192.0.2.8:80", Tcp, Err(Refusal::NotBindable)),
            ("[::ffff:192.0.2.7]:80", Tcp, Err(Refusal::NotBindable)),
        ] {
            assert_eq!(node.bind(address(wanted), transport), bound.map(address), "{wanted}");
        }
    }

    #[test]
    fn a_node_without_an_address_of_the_family_binds_none() {
        assert_eq!(node(&["127.0.0.1"], false).bind(address("[::]:80"), Tcp), Err(Refusal::NotBindable));
        assert_eq!(node(&[], false).bind(address("0.0.0.0:80"), Tcp), Err(Refusal::NotBindable));
    }

    #[test]
    fn connects_from_the_node() {
        let loopback = |text| Ok(Destination::Loopback(address(text)));
        let remote = |text| Ok(Destination::Remote(address(text)));
        for (wanted, closed, open) in [
            ("127.0.0.1:80", loopback("127.0.0.1:80"), loopback("127.0.0.1:80")),
            ("[::1]:80", loopback("[::1]:80"), loopback("[::1]:80")),
            ("127.0.0.53:53", Err(Refusal::Prohibited), remote("127.0.0.53:53")),
            ("192.0.2.7:80", remote("192.0.2.7:80"), remote("192.0.2.7:80")),
            ("[2001:db8::1]:80", remote("[2001:db8::1]:80"), remote("[2001:db8::1]:80")),
            ("169.254.169.254:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[fe80::1]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[fd20:ce::254]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("[::ffff:127.0.0.1]:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
            ("0.0.0.0:80", Err(Refusal::Prohibited), Err(Refusal::Prohibited)),
        ] {
            assert_eq!(node(&["192.0.2.7"], false).destination(address(wanted)), closed, "{wanted}");
            assert_eq!(node(&["192.0.2.7"], true).destination(address(wanted)), open, "{wanted}");
        }
    }

    #[test]
    fn a_socket_on_the_loopback_alias_stays_in_its_pod() {
        let (ip, alias) = ("10.4.2.5".parse().unwrap(), "127.64.0.5".parse().unwrap());
        let other_pod = Destination::Remote(address("10.4.2.6:80"));
        assert!(!pod().may_leave_from(alias, other_pod));
        assert!(pod().may_leave_from(ip, other_pod));
        assert!(pod().may_leave_from(alias, Destination::Own(address("10.4.2.5:80"))));
        assert!(pod().may_leave_from(alias, Destination::Loopback(address("127.0.0.1:80"))));
    }

    #[test]
    fn peers_on_other_aliases_are_not_heard() {
        assert!(pod().may_receive_from("127.64.0.5".parse().unwrap()));
        assert!(pod().may_receive_from("192.0.2.1".parse().unwrap()));
        // Where nodes are joined by link-local interfaces, traffic from there is ordinary.
        assert!(pod().may_receive_from("169.254.1.1".parse().unwrap()));
        assert!(!pod().may_receive_from("127.64.0.6".parse().unwrap()));
        assert!(!pod().may_receive_from("127.0.0.1".parse().unwrap()));
        assert!(dual_stack_pod().may_receive_from(ALIAS_V6.parse().unwrap()));
        assert!(!dual_stack_pod().may_receive_from("fd7a:6c6f:6f70:6261::6".parse().unwrap()));
    }

    #[test]
    fn a_guest_sees_its_alias_as_localhost() {
        assert_eq!(pod().as_seen_by_guest(address("127.64.0.5:80")), address("127.0.0.1:80"));
        assert_eq!(pod().as_seen_by_guest(address("10.4.2.5:80")), address("10.4.2.5:80"));
        let on_alias = SocketAddr::new(ALIAS_V6.parse().unwrap(), 80);
        assert_eq!(dual_stack_pod().as_seen_by_guest(on_alias), address("[::1]:80"));
        assert_eq!(
            node(&["127.0.0.1"], false).as_seen_by_guest(address("127.0.0.1:1")),
            address("127.0.0.1:1")
        );
    }
}
