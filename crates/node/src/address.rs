//! The addresses that a node is reached at (upstream: `nodestatus.NodeAddress` without a cloud provider,
//! `validateNodeIP`, and apimachinery's `ResolveBindAddress`).

use std::net::{IpAddr, ToSocketAddrs};

use crate::error::NodeError;
use crate::files::Files;
use crate::interfaces::{DefaultRoute, Interface, default_routes, interfaces};

/// The addresses of this node, the one for everybody first. `node_ips` is `--node-ip`: one address, or one of each
/// family; `0.0.0.0` and `::` only say which family is preferred. Without it: the host name if it is an address, then
/// what the node's name resolves to, then the address of the interface with the default route. May wait for a
/// resolver: not for a thread that others wait for.
pub fn node_addresses(
    node_ips: &[IpAddr],
    hostname: &str,
    node_name: &str,
) -> Result<Vec<IpAddr>, NodeError> {
    let host = Host { interfaces: interfaces()?, routes: default_routes(&Files::system())?, resolve };
    host.node_addresses(node_ips, hostname, node_name)
}

/// Whether an address is on one of this machine's interfaces, or its loopback. What cannot be found out is not.
pub fn is_own_address(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_on_interface =
        || interfaces().is_ok_and(|all| all.iter().any(|interface| interface.addresses.contains(&address)));
    address.is_loopback() || is_on_interface()
}

fn resolve(name: &str) -> Vec<IpAddr> {
    let Ok(addresses) = (name, 0).to_socket_addrs() else { return Vec::new() };
    addresses.map(|address| address.ip().to_canonical()).collect()
}

struct Host<R> {
    interfaces: Vec<Interface>,
    /// None if the kernel has no table of them.
    routes: Option<Vec<DefaultRoute>>,
    resolve: R,
}

impl<R: Fn(&str) -> Vec<IpAddr>> Host<R> {
    fn node_addresses(
        &self,
        node_ips: &[IpAddr],
        hostname: &str,
        node_name: &str,
    ) -> Result<Vec<IpAddr>, NodeError> {
        let given: Vec<IpAddr> = node_ips.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
        for ip in given.iter().copied() {
            self.validate(ip).map_err(|problem| NodeError::NodeIp { ip, problem })?;
        }
        match (given.as_slice(), node_ips.first()) {
            (given @ [_, _, ..], _) => Ok(given.to_vec()),
            (_, Some(first)) if !first.is_unspecified() => Ok(vec![*first]),
            (_, first) => {
                let prefer_v6 = first.is_some_and(IpAddr::is_ipv6);
                self.find(hostname, node_name, prefer_v6).map(|ip| vec![ip])
            }
        }
    }

    fn find(&self, hostname: &str, node_name: &str, prefer_v6: bool) -> Result<IpAddr, NodeError> {
        if let Ok(ip) = hostname.parse() {
            return Ok(ip);
        }
        if let Some(ip) = self.look_up(node_name, prefer_v6) {
            return Ok(ip);
        }
        let families = [prefer_v6, !prefer_v6];
        let (found, problem) = match &self.routes {
            None => (self.of_interfaces(families), "no interface has a global address"),
            Some(routes) if routes.is_empty() => (None, "there is no default route"),
            Some(routes) => {
                (self.of_routes(routes, families), "no interface with a default route has a global address")
            }
        };
        found.ok_or_else(|| NodeError::NoAddress { node: node_name.to_owned(), problem })
    }

    fn look_up(&self, name: &str, prefer_v6: bool) -> Option<IpAddr> {
        let usable: Vec<IpAddr> =
            (self.resolve)(name).into_iter().filter(|ip| self.validate(*ip).is_ok()).collect();
        let preferred = usable.iter().find(|ip| ip.is_ipv6() == prefer_v6);
        preferred.or(usable.first()).copied()
    }

    fn of_interfaces(&self, families: [bool; 2]) -> Option<IpAddr> {
        let usable = |i: &&Interface| i.up && !i.loopback && !i.point_to_point;
        families.into_iter().find_map(|v6| self.interfaces.iter().filter(usable).find_map(|i| global(i, v6)))
    }

    fn of_routes(&self, routes: &[DefaultRoute], families: [bool; 2]) -> Option<IpAddr> {
        let of_family = |v6| {
            routes.iter().filter(move |route| route.v6 == v6).find_map(|route| {
                let mut named = self.interfaces.iter().filter(|i| i.up && i.name == route.interface);
                // Where links have only link-local addresses (RFC 5549), the global one is on the loopback.
                let mut loopbacks = self.interfaces.iter().filter(|i| i.up && i.loopback);
                named.find_map(|i| global(i, v6)).or_else(|| loopbacks.find_map(|i| global(i, v6)))
            })
        };
        families.into_iter().find_map(of_family)
    }

    /// Whether others can reach this node at an address.
    fn validate(&self, ip: IpAddr) -> Result<(), &'static str> {
        if ip.is_loopback() {
            return Err("can't be a loopback address");
        }
        if ip.is_multicast() {
            return Err("can't be a multicast address");
        }
        if is_link_local(ip) {
            return Err("can't be a link-local unicast address");
        }
        if ip.is_unspecified() {
            return Err("can't be an all zeros address");
        }
        if !self.interfaces.iter().any(|interface| interface.addresses.contains(&ip)) {
            return Err("is on none of the host's network interfaces");
        }
        Ok(())
    }
}

fn global(interface: &Interface, v6: bool) -> Option<IpAddr> {
    interface.addresses.iter().copied().find(|ip| ip.is_ipv6() == v6 && is_global_unicast(*ip))
}

/// As Go's `IsGlobalUnicast`: private addresses are global enough.
fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        Interface { name: name.to_owned(), up: true, addresses: ips(addresses), ..Interface::default() }
    }

    fn route(interface: &str, v6: bool) -> DefaultRoute {
        DefaultRoute { interface: interface.to_owned(), v6 }
    }

    fn host() -> Host<impl Fn(&str) -> Vec<IpAddr>> {
        let interfaces = vec![
            Interface { loopback: true, ..interface("lo", &["127.0.0.1", "::1"]) },
            Interface { point_to_point: true, ..interface("tun0", &["10.8.0.1"]) },
            interface("eth0", &["169.254.0.1", "10.0.0.7", "fe80::1", "fd00::7"]),
            interface("eth1", &["10.1.0.7"]),
        ];
        let resolve = |name: &str| match name {
            "named" => ips(&["127.0.1.1", "10.99.0.1", "fd00::7", "10.1.0.7"]),
            "only-v6" => ips(&["fd00::7"]),
            _ => vec![],
        };
        Host { interfaces, routes: Some(vec![route("eth0", false), route("eth0", true)]), resolve }
    }

    #[test]
    fn the_loopback_is_the_machines_own_and_others_addresses_are_not() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("198.51.100.1", false),
            ("2001:db8:ffff::1", false),
        ] {
            assert_eq!(is_own_address(address.parse().unwrap()), expected, "{address}");
        }
        let own = interfaces().unwrap().into_iter().flat_map(|interface| interface.addresses);
        assert!(own.into_iter().all(is_own_address));
    }

    #[test]
    fn an_address_is_chosen_as_upstream_chooses() {
        let table: &[(&[&str], &str, &str, &[&str])] = &[
            (&["10.1.0.7"], "h", "named", &["10.1.0.7"]),
            (&["fd00::7", "10.0.0.7"], "h", "named", &["fd00::7", "10.0.0.7"]),
            (&[], "192.0.2.1", "named", &["192.0.2.1"]),
            (&[], "h", "named", &["10.1.0.7"]),
            (&["::"], "h", "named", &["fd00::7"]),
            (&[], "h", "only-v6", &["fd00::7"]),
            (&[], "h", "nameless", &["10.0.0.7"]),
            (&["0.0.0.0"], "h", "nameless", &["10.0.0.7"]),
            (&["::"], "h", "nameless", &["fd00::7"]),
        ];
        for (given, hostname, node, expected) in table {
            let found = host().node_addresses(&ips(given), hostname, node).unwrap();
            assert_eq!(found, ips(expected), "{given:?} {hostname} {node}");
        }
    }

    #[test]
    fn a_node_ip_has_to_be_one_of_the_hosts() {
        for (ip, problem) in [
            ("127.0.0.1", "can't be a loopback address"),
            ("224.0.0.1", "can't be a multicast address"),
            ("fe80::1", "can't be a link-local unicast address"),
            ("192.0.2.1", "is on none of the host's network interfaces"),
        ] {
            let error = host().node_addresses(&ips(&[ip]), "h", "n").unwrap_err();
            assert_eq!(error.to_string(), format!("--node-ip {ip} {problem}"));
        }
    }

    #[test]
    fn without_routes_the_interfaces_decide() {
        let found = |host: Host<_>| host.node_addresses(&[], "h", "nameless").map_err(|e| e.to_string());
        let missing = "no address found for node nameless:";

        assert_eq!(found(Host { routes: None, ..host() }), Ok(ips(&["10.0.0.7"])));
        assert_eq!(
            found(Host { routes: Some(vec![]), ..host() }),
            Err(format!("{missing} there is no default route; set --node-ip"))
        );
        let links = vec![
            Interface { loopback: true, ..interface("lo", &["127.0.0.1", "10.255.0.1"]) },
            interface("eth0", &["169.254.0.1"]),
        ];
        assert_eq!(found(Host { interfaces: links, ..host() }), Ok(ips(&["10.255.0.1"])));
        let down = vec![Interface { up: false, ..interface("eth0", &["10.0.0.7"]) }];
        assert_eq!(
            found(Host { interfaces: down, ..host() }),
            Err(format!("{missing} no interface with a default route has a global address; set --node-ip"))
        );
    }
}
