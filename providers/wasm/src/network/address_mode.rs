//! Address mode: one network namespace for all pods of this process, in which the whole pod range is local.
//!
//! ```text
//!   node's namespace                          pods' namespace
//!   RANGE via POD_HOP, src the node's ── veth ── default via NODE_HOP
//!                                             local RANGE dev lo
//!                                             10: iif lo from RANGE to RANGE lookup 100 (default via NODE_HOP)
//!                                             20: lookup local
//! ```
//!
//! A pod's address needs no set-up: it is local already. Rule 10 sends traffic between pods through the node although
//! it could stay inside, so that Services and NetworkPolicy, which live in the node's forwarding path, hold for it.
//!
//! Everything in the node's namespace hangs on the veth, and the veth on the pods' namespace, which only this process
//! holds: after `kill -9` the kernel removes it all, though connections that were being closed may hold it for some
//! minutes. So the next process with the same range removes what is left by name.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::time::timeout;

use super::NetworkError;
use super::masquerade::Masquerade;
use super::namespace::Namespace;
use super::netlink::{MAIN_TABLE, Mac, Netlink, VethEnd};
use super::pool::AddressPool;
use super::range::PodRange;
use super::socket;

/// The next hop of pods. Exists on no interface: it only names the hardware address of the node's end.
const NODE_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The node's next hop to pods, likewise.
const POD_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The pods' end of the veth.
const POD_INTERFACE: &str = "eth0";
/// The table with the way from pod to pod.
const BETWEEN_PODS_TABLE: u32 = 100;
const BETWEEN_PODS_PRIORITY: u32 = 10;
const LOCAL_PRIORITY: u32 = 20;

/// What one address of the range is tried to be reached on from another, and for how long.
const PROBE_PORT: u16 = 1;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the pods' namespace, which starts with a copy of the node's.
const POD_SETTINGS: &[(&str, &str)] = &[
    // Packets from pod to pod come in with a source address that is local here.
    ("ipv4/conf/all/accept_local", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // The way through the node is wanted even where there is a shorter one.
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    // Nothing from outside may reach the loopback aliases.
    ("ipv4/conf/all/route_localnet", "0"),
    ("ipv4/conf/default/route_localnet", "0"),
    // Guests' connections take explicit ports, which run out while old ones wait.
    ("ipv4/tcp_tw_reuse", "1"),
    // Pods may listen on any port, as in containers.
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// A pod network that is set up. Dropping it removes it, once the last thread and socket inside are gone.
#[derive(Debug)]
pub(super) struct AddressMode {
    pub(super) namespace: Arc<Namespace>,
    pub(super) pool: Arc<AddressPool>,
    interface: String,
    _masquerade: Option<Masquerade>,
    _claim: RangeClaim,
}

impl AddressMode {
    /// Sets up the network for a range that somebody assigned to this node. The node's connections to pods come from
    /// `node_ip`, or from the first address of the range if there is none.
    pub(super) async fn set_up(range: PodRange, node_ip: Option<Ipv4Addr>) -> Result<Self, NetworkError> {
        // A wider route, to the pods of the whole cluster for example, does no harm: the narrower one wins.
        Self::set_up_unless(range, node_ip, |route| range.net().contains(route)).await
    }

    /// Sets up the network for the first /24 of a block that no route of this machine touches. Other machines do not know
    /// the way to such a range, so its pods show them the node's address.
    pub(super) async fn set_up_first_free(
        block: Ipv4Net,
        node_ip: Option<Ipv4Addr>,
    ) -> Result<Self, NetworkError> {
        let ranges = block.subnets(24).map_err(|_| NetworkError::NoFreeRange(block))?;
        for net in ranges {
            let touches = |route: &Ipv4Net| net.contains(route) || route.contains(&net);
            let range = PodRange::new(net.into())?;
            match Self::set_up_unless(range, node_ip, touches).await {
                Err(NetworkError::RangeInUse { .. }) => continue,
                result => return Ok(Self { _masquerade: Some(Masquerade::add(range)?), ..result? }),
            }
        }
        Err(NetworkError::NoFreeRange(block))
    }

    async fn set_up_unless(
        range: PodRange,
        node_ip: Option<Ipv4Addr>,
        collides: impl Fn(&Ipv4Net) -> bool,
    ) -> Result<Self, NetworkError> {
        let claim = RangeClaim::take(range)?;
        let interface = range.interface_name();
        let node = Netlink::connect()?;
        node.delete_link(&interface).await?;
        if let Some(route) = node.destinations().await?.iter().find(|route| collides(route)) {
            let by = format!("this machine has a route to {route}");
            return Err(NetworkError::RangeInUse { range: range.net(), by });
        }

        let namespace =
            Namespace::create().map_err(|error| NetworkError::system("make a network namespace", error))?;
        configure_pods(&namespace)?;
        let mtu = match node_ip {
            Some(ip) => node.mtu_of(ip).await?,
            None => None,
        };
        let node_end = VethEnd { name: &interface, mac: mac(range, 0) };
        let pod_end = VethEnd { name: POD_INTERFACE, mac: mac(range, 1) };
        node.add_veth(node_end, pod_end, &namespace, mtu).await?;
        let pods = Netlink::connect_in(&namespace)?;
        route_pods(&pods, range).await?;
        route_node(&node, range, &interface, node_ip).await?;
        pods.wait_until_running(POD_INTERFACE).await?;
        node.wait_until_running(&interface).await?;
        forward_packets()?;
        Ok(Self { namespace, pool: AddressPool::new(range), interface, _masquerade: None, _claim: claim })
    }

    /// Tries whether packets from pod to pod arrive.
    pub(super) async fn check_forwarding(&self) -> Result<(), NetworkError> {
        let failed = |error| NetworkError::system("try the pods' network", error);
        let (from, to) = self
            .pool
            .allocate()
            .and_then(|from| Ok((from, self.pool.allocate()?)))
            .map_err(|error| failed(io::Error::other(error)))?;
        let (from, to) = (SocketAddr::from((from.ip(), 0)), SocketAddr::from((to.ip(), PROBE_PORT)));
        let runtime = tokio::runtime::Handle::current();
        let sockets = self.namespace.run(move || {
            let _entered = runtime.enter();
            Ok((socket::listener(to)?, socket::outgoing(Some(from), to)?))
        });
        let (_listener, client) = sockets.flatten().map_err(failed)?;
        match timeout(PROBE_TIMEOUT, client.connect(to)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NetworkError::NotForwarding(self.pool.range().net())),
        }
    }

    /// Removes the node's side at once, rather than when the last thread and socket inside are gone.
    pub(super) async fn remove(&self) -> Result<(), NetworkError> {
        Netlink::connect()?.delete_link(&self.interface).await
    }
}

/// The right to a range in this network namespace: an abstract Unix socket of that name, which the kernel takes back
/// however the process ends.
#[derive(Debug)]
struct RangeClaim(#[expect(dead_code, reason = "held, not used")] UnixDatagram);

impl RangeClaim {
    fn take(range: PodRange) -> Result<Self, NetworkError> {
        let claim = unix::net::SocketAddr::from_abstract_name(format!("coracle/pod-range/{range}"))
            .and_then(|name| UnixDatagram::bind_addr(&name));
        match claim {
            Ok(socket) => Ok(Self(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(NetworkError::RangeInUse {
                range: range.net(),
                by: "another agent on this machine serves it".into(),
            }),
            Err(error) => Err(NetworkError::system(format!("claim the pod range {range}"), error)),
        }
    }
}

fn configure_pods(namespace: &Namespace) -> Result<(), NetworkError> {
    let written = namespace.run(|| {
        // /proc/sys/net shows the namespace of the thread that opens it.
        POD_SETTINGS.iter().try_for_each(|&(setting, value)| match write_setting(setting, value) {
            // A kernel without IPv6 needs none of it.
            Err(error) if setting.starts_with("ipv6/") && is_not_found(&error) => Ok(()),
            result => result,
        })
    });
    written.map_err(|error| NetworkError::system("configure the pods' namespace", error))?
}

async fn route_pods(pods: &Netlink, range: PodRange) -> Result<(), NetworkError> {
    let lo = pods.set_up("lo").await?;
    let eth0 = pods.set_up(POD_INTERFACE).await?;
    pods.add_neighbour(eth0, NODE_HOP, mac(range, 0)).await?;
    let anywhere = Ipv4Net::default();
    pods.add_route(anywhere, NODE_HOP, eth0, None, MAIN_TABLE).await?;
    pods.add_route(anywhere, NODE_HOP, eth0, None, BETWEEN_PODS_TABLE).await?;
    pods.add_rule_within(range.net(), BETWEEN_PODS_PRIORITY, BETWEEN_PODS_TABLE).await?;
    pods.move_local_rule(LOCAL_PRIORITY).await?;
    pods.add_local_range(range.net(), lo).await
}

async fn route_node(
    node: &Netlink,
    range: PodRange,
    interface: &str,
    node_ip: Option<Ipv4Addr>,
) -> Result<(), NetworkError> {
    let index = node.set_up(interface).await?;
    node.add_neighbour(index, POD_HOP, mac(range, 1)).await?;
    let source = match node_ip {
        Some(ip) => ip,
        None => {
            node.add_address(index, range.gateway()).await?;
            range.gateway()
        }
    };
    node.add_route(range.net(), POD_HOP, index, Some(source), MAIN_TABLE).await
}

/// Lets the node forward packets, as every pod network with routes needs it.
fn forward_packets() -> Result<(), NetworkError> {
    const SETTING: &str = "ipv4/ip_forward";
    let is_on =
        fs::read_to_string(Path::new("/proc/sys/net").join(SETTING)).is_ok_and(|value| value.trim() == "1");
    if is_on { Ok(()) } else { write_setting(SETTING, "1") }
}

fn write_setting(setting: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net").join(setting);
    fs::write(&path, value)
        .map_err(|error| NetworkError::system(format!("set {} to {value}", path.display()), error))
}

fn is_not_found(error: &NetworkError) -> bool {
    matches!(error, NetworkError::System { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// A locally administered hardware address for one end of the veth of a range.
fn mac(range: PodRange, end: u8) -> Mac {
    let [a, b, c, d] = range.net().network().octets();
    [0x02, end, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PodRange {
        PodRange::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_range_is_claimed_once_and_is_free_after_a_drop() {
        let range = range("10.255.255.240/29");
        let claim = RangeClaim::take(range).unwrap();
        assert!(matches!(RangeClaim::take(range), Err(NetworkError::RangeInUse { .. })));
        drop(claim);
        assert!(RangeClaim::take(range).is_ok());
    }
}
