//! Which addresses a guest's sockets may use, and what the addresses that it names stand for. Pure decisions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Metadata services of cloud providers that live at unique local IPv6 addresses. Those at IPv4 addresses are
/// link-local, and so refused anyway.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Where the sockets of a pod live.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the pods' namespace, on addresses of its own.
    Pod {
        /// The pod's address.
        ip: Ipv4Addr,
        /// What 127.0.0.1 is for this pod: all pods share one loopback device.
        alias: Ipv4Addr,
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
    /// The address to bind to when a guest asks for `wanted`.
    pub(super) fn bind(&self, wanted: SocketAddr, transport: Transport) -> Result<SocketAddr, Refusal> {
        let port = wanted.port();
        let ip = match self {
            Self::Pod { ip, alias } => match wanted.ip() {
                IpAddr::V4(v4) if v4.is_unspecified() || v4 == *ip => IpAddr::V4(*ip),
                IpAddr::V4(v4) if v4 == Ipv4Addr::LOCALHOST || v4 == *alias => IpAddr::V4(*alias),
                _ => return Err(Refusal::NotBindable),
            },
            // A client's datagram socket must be able to reach everything, which one on an address cannot.
            Self::Node { .. } if transport == Transport::Udp && wanted.ip().is_unspecified() && port == 0 => {
                wanted.ip()
            }
            Self::Node { addresses, .. } => match wanted.ip() {
                any if any.is_unspecified() => {
                    let same_family = |address: &&IpAddr| address.is_ipv4() == any.is_ipv4();
                    *addresses.iter().find(same_family).ok_or(Refusal::NotBindable)?
                }
                ip if is_localhost(ip) || addresses.contains(&ip) => ip,
                _ => return Err(Refusal::NotBindable),
            },
        };
        Ok(SocketAddr::new(ip, port))
    }

    /// Where a guest's connection or datagram to `wanted` has to go.
    pub(super) fn destination(&self, wanted: SocketAddr) -> Result<Destination, Refusal> {
        let ip = wanted.ip();
        match self {
            Self::Pod { ip: own, .. } if ip == *own => Ok(Destination::Own(wanted)),
            Self::Pod { alias, .. } if is_localhost(ip) && ip.is_ipv4() || ip == *alias => {
                Ok(Destination::Loopback(wanted))
            }
            Self::Pod { .. } if is_prohibited(ip) || ip.is_loopback() => Err(Refusal::Prohibited),
            Self::Pod { .. } if ip.is_ipv6() => Err(Refusal::Unreachable),
            Self::Node { .. } if is_localhost(ip) => Ok(Destination::Loopback(wanted)),
            Self::Node { host_loopback: false, .. } if ip.is_loopback() => Err(Refusal::Prohibited),
            Self::Node { .. } if is_prohibited(ip) => Err(Refusal::Prohibited),
            _ => Ok(Destination::Remote(wanted)),
        }
    }

    /// Whether an address is the pod's own to bind to and listen on.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        match self {
            Self::Pod { ip: own, alias } => ip == *own || ip == *alias,
            Self::Node { addresses, .. } => is_localhost(ip) || addresses.contains(&ip),
        }
    }

    /// Whether a peer may reach a socket of the pod. Other pods' aliases never send, so this only backs that up.
    pub(super) fn may_receive_from(&self, peer: IpAddr) -> bool {
        match self {
            Self::Pod { alias, .. } => !peer.is_loopback() || peer == *alias,
            Self::Node { .. } => true,
        }
    }

    /// Whether a socket that is bound to `local` may send there. One on the pod's loopback address must not: the
    /// kernel would hand it to other pods past the node, where their policies are.
    pub(super) fn may_leave_from(&self, local: IpAddr, destination: Destination) -> bool {
        match (self, destination) {
            (Self::Pod { alias, .. }, Destination::Remote(_)) => local != *alias,
            _ => true,
        }
    }

    /// The address as the guest knows it.
    pub(super) fn as_seen_by_guest(&self, mut address: SocketAddr) -> SocketAddr {
        match self {
            Self::Pod { alias, .. } if address.ip() == *alias => {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
                address
            }
            _ => address,
        }
    }
}

fn is_localhost(ip: IpAddr) -> bool {
    ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
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

    fn pod() -> Place {
        Place::Pod { ip: Ipv4Addr::new(10, 4, 2, 5), alias: Ipv4Addr::new(127, 64, 0, 5) }
    }

    fn node(addresses: &[&str], host_loopback: bool) -> Place {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Place::Node { addresses, host_loopback }
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
    }

    #[test]
    fn a_guest_sees_its_alias_as_localhost() {
        assert_eq!(pod().as_seen_by_guest(address("127.64.0.5:80")), address("127.0.0.1:80"));
        assert_eq!(pod().as_seen_by_guest(address("10.4.2.5:80")), address("10.4.2.5:80"));
        assert_eq!(
            node(&["127.0.0.1"], false).as_seen_by_guest(address("127.0.0.1:1")),
            address("127.0.0.1:1")
        );
    }
}
