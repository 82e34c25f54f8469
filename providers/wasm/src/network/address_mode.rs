//! Address mode: one network namespace for all pods of this process, in which the whole pod range is local.
//!
//! ```text
//!   node's namespace                          pods' namespace
//!   RANGE via POD_HOP, src the node's ── veth ── default via NODE_HOP
//!                                             local RANGE dev lo
//!                                              5: iif lo to ALIASES lookup 101 (local ALIASES dev lo); IPv6 only
//!                                             10: iif lo from RANGE to RANGE lookup 100 (default via NODE_HOP)
//!                                             20: lookup local
//! ```
//!
//! There is one such set for each family that pods have addresses of. A pod's address needs no set-up: it is local
//! already. Rule 10 sends traffic between pods through the node although it could stay inside, so that Services and
//! NetworkPolicy, which live in the node's forwarding path, hold for it. Rule 5 stands for 127.0.0.0/8: what comes in from
//! the node finds no aliases of ::1.
//!
//! Everything in the node's namespace hangs on the veth, and the veth on the pods' namespace, which only this process
//! holds: after `kill -9` the kernel removes it all, though connections that were being closed may hold it for some
//! minutes. So the next process with the same range removes what is left by name.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::time::timeout;

use super::NetworkError;
use super::masquerade::Masquerade;
use super::namespace::Namespace;
use super::netlink::{LOCAL_TABLE, MAIN_TABLE, Mac, Netlink, VethEnd};
use super::policy::of_family;
use super::pool::{AddressPool, Lease};
use super::range::{ALIASES_V6, PodRange, PodRanges};
use super::socket;

/// The next hop of pods. Exists on no interface: it only names the hardware address of the node's end.
const NODE_HOPS: Hops = (Ipv4Addr::new(169, 254, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// The node's next hop to pods, likewise.
const POD_HOPS: Hops = (Ipv4Addr::new(169, 254, 1, 2), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
/// The pods' end of the veth.
const POD_INTERFACE: &str = "eth0";
/// The table with the way from pod to pod.
const BETWEEN_PODS_TABLE: u32 = 100;
/// The table with the aliases of ::1.
const ALIASES_TABLE: u32 = 101;
const ALIASES_PRIORITY: u32 = 5;
const BETWEEN_PODS_PRIORITY: u32 = 10;
const LOCAL_PRIORITY: u32 = 20;

/// What one address of the range is tried to be reached on from another, and for how long.
const PROBE_PORT: u16 = 1;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of the namespace of the thread that opens them.
const SETTINGS: &str = "/proc/sys/net";

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
];

/// The same for IPv6, which is off where pods have no addresses of it.
const POD_SETTINGS_V6: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/lo/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    // A range that is local as a whole counts as no address to bind to.
    ("ipv6/ip_nonlocal_bind", "1"),
];
const NO_IPV6: &[(&str, &str)] =
    &[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

/// Next hops of both families.
type Hops = (Ipv4Addr, Ipv6Addr);

/// A pod network that is set up. Dropping it removes it, once the last thread and socket inside are gone.
#[derive(Debug)]
pub(super) struct AddressMode {
    pub(super) namespace: Arc<Namespace>,
    pub(super) ranges: PodRanges,
    /// One for each range.
    pools: Vec<Arc<AddressPool>>,
    interface: String,
    _masquerade: Option<Masquerade>,
    _claims: Vec<RangeClaim>,
}

impl AddressMode {
    /// Sets up the network for ranges that somebody assigned to this node. The node's connections to pods come from
    /// its first address of the same family, or from the first address of the range if there is none.
    pub(super) async fn set_up(ranges: PodRanges, node: &[IpAddr]) -> Result<Self, NetworkError> {
        // A wider route, to the pods of the whole cluster for example, does no harm: the narrower one wins.
        Self::set_up_unless(ranges, node, |range, route| range.contains(route)).await
    }

    /// Sets up the network for the first /24 of a block that no route of this machine touches. Other machines do not know
    /// the way to such a range, so its pods show them the node's address.
    pub(super) async fn set_up_first_free(block: Ipv4Net, node: &[IpAddr]) -> Result<Self, NetworkError> {
        let ranges = block.subnets(24).map_err(|_| NetworkError::NoFreeRange(block))?;
        for net in ranges {
            let touches = |range: &IpNet, route: &IpNet| range.contains(route) || route.contains(range);
            let ranges = PodRanges::new(&[net.into()])?;
            match Self::set_up_unless(ranges, node, touches).await {
                Err(NetworkError::RangeInUse { .. }) => continue,
                result => {
                    let mode = result?;
                    let masquerade = Masquerade::add(net, &mode.interface)?;
                    return Ok(Self { _masquerade: Some(masquerade), ..mode });
                }
            }
        }
        Err(NetworkError::NoFreeRange(block))
    }

    async fn set_up_unless(
        ranges: PodRanges,
        node_ips: &[IpAddr],
        collides: impl Fn(&IpNet, &IpNet) -> bool,
    ) -> Result<Self, NetworkError> {
        let claims = ranges.iter().map(RangeClaim::take).collect::<Result<_, _>>()?;
        let interface = ranges.interface_name();
        let node = Netlink::connect()?;
        node.delete_link(&interface).await?;
        for range in ranges.iter() {
            let routes = node.destinations(range.net()).await?;
            if let Some(route) = routes.iter().find(|route| collides(&range.net(), route)) {
                let by = format!("this machine has a route to {route}");
                return Err(NetworkError::RangeInUse { range: range.net(), by });
            }
        }

        let namespace =
            Namespace::create().map_err(|error| NetworkError::system("make a network namespace", error))?;
        configure_pods(&namespace, ranges.has_v6())?;
        let mtu = match node_ips.first() {
            Some(ip) => node.mtu_of(*ip).await?,
            None => None,
        };
        let (node_mac, pod_mac) = (mac(&ranges, 0), mac(&ranges, 1));
        let node_end = VethEnd { name: &interface, mac: node_mac };
        let pod_end = VethEnd { name: POD_INTERFACE, mac: pod_mac };
        node.add_veth(node_end, pod_end, &namespace, mtu).await?;
        let pods = Netlink::connect_in(&namespace)?;
        let (lo, eth0) = (pods.set_up("lo").await?, pods.set_up(POD_INTERFACE).await?);
        let index = node.set_up(&interface).await?;
        for range in ranges.iter() {
            route_pods(&pods, range, lo, eth0, node_mac).await?;
            route_node(&node, range, index, pod_mac, of_family(node_ips, range.net().addr())).await?;
            forward_packets(range.net())?;
        }
        pods.wait_until_running(POD_INTERFACE).await?;
        node.wait_until_running(&interface).await?;
        let pools = ranges.iter().map(AddressPool::new).collect();
        Ok(Self { namespace, ranges, pools, interface, _masquerade: None, _claims: claims })
    }

    /// An address of each range.
    ///
    /// `ResourceExhausted` if every address of one is taken.
    pub(super) fn allocate(&self) -> coracle_provider::Result<Vec<Lease>> {
        self.pools.iter().map(AddressPool::allocate).collect()
    }

    /// These addresses, one of each range in any order.
    ///
    /// `AlreadyExists` if another pod has one, `InvalidArgument` if they are none of this network's.
    pub(super) fn allocate_exact(&self, ips: &[IpAddr]) -> coracle_provider::Result<Vec<Lease>> {
        let exact = |pool: &Arc<AddressPool>| {
            let ip = of_family(ips, pool.range().net().addr()).ok_or_else(|| {
                let range = pool.range();
                coracle_provider::Error::invalid(format!(
                    "none of {ips:?} is an address of the range {range}"
                ))
            })?;
            pool.allocate_exact(ip)
        };
        if ips.len() != self.pools.len() {
            let message = format!("{ips:?} is not one address of each of the ranges {}", self.ranges);
            return Err(coracle_provider::Error::invalid(message));
        }
        self.pools.iter().map(exact).collect()
    }

    /// Tries whether packets from pod to pod arrive.
    pub(super) async fn check_forwarding(&self) -> Result<(), NetworkError> {
        let failed = |error| NetworkError::system("try the pods' network", error);
        let given = self.allocate().and_then(|from| Ok((from, self.allocate()?)));
        let (from, to) = given.map_err(|error| failed(io::Error::other(error)))?;
        for (range, (from, to)) in self.ranges.iter().zip(from.iter().zip(&to)) {
            let (from, to) = (SocketAddr::from((from.ip(), 0)), SocketAddr::from((to.ip(), PROBE_PORT)));
            let runtime = tokio::runtime::Handle::current();
            let sockets = self.namespace.run(move || {
                let _entered = runtime.enter();
                Ok((socket::listener(to)?, socket::outgoing(Some(from), to)?))
            });
            let (_listener, client) = sockets.flatten().map_err(failed)?;
            if !matches!(timeout(PROBE_TIMEOUT, client.connect(to)).await, Ok(Ok(_))) {
                return Err(NetworkError::NotForwarding(range.net()));
            }
        }
        Ok(())
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

fn configure_pods(namespace: &Namespace, has_v6: bool) -> Result<(), NetworkError> {
    let written = namespace.run(move || {
        // /proc/sys/net shows the namespace of the thread that opens it.
        let write = |settings: &[(&str, &str)]| {
            settings.iter().try_for_each(|&(setting, value)| write_setting(setting, value))
        };
        write(POD_SETTINGS)?;
        match write(if has_v6 { POD_SETTINGS_V6 } else { NO_IPV6 }) {
            // A kernel without IPv6 needs nothing to be off.
            Err(error) if !has_v6 && is_not_found(&error) => Ok(()),
            result => result,
        }
    });
    written.map_err(|error| NetworkError::system("configure the pods' namespace", error))?
}

async fn route_pods(
    pods: &Netlink,
    range: PodRange,
    lo: u32,
    eth0: u32,
    node_mac: Mac,
) -> Result<(), NetworkError> {
    let range = range.net();
    let (hop, anywhere) = (hop(range, NODE_HOPS), anywhere(range));
    pods.add_neighbour(eth0, hop, node_mac).await?;
    pods.add_route(anywhere, hop, eth0, None, MAIN_TABLE).await?;
    pods.add_route(anywhere, hop, eth0, None, BETWEEN_PODS_TABLE).await?;
    pods.add_rule(Some(range), range, BETWEEN_PODS_PRIORITY, BETWEEN_PODS_TABLE).await?;
    if matches!(range, IpNet::V6(_)) {
        pods.add_local_range(ALIASES_V6.into(), lo, ALIASES_TABLE).await?;
        pods.add_rule(None, ALIASES_V6.into(), ALIASES_PRIORITY, ALIASES_TABLE).await?;
    }
    pods.move_local_rule(range, LOCAL_PRIORITY).await?;
    pods.add_local_range(range, lo, LOCAL_TABLE).await
}

async fn route_node(
    node: &Netlink,
    range: PodRange,
    index: u32,
    pod_mac: Mac,
    node_ip: Option<IpAddr>,
) -> Result<(), NetworkError> {
    let hop = hop(range.net(), POD_HOPS);
    node.add_neighbour(index, hop, pod_mac).await?;
    let source = match node_ip {
        Some(ip) => ip,
        None => {
            node.add_address(index, range.gateway()).await?;
            range.gateway()
        }
    };
    node.add_route(range.net(), hop, index, Some(source), MAIN_TABLE).await
}

fn hop(range: IpNet, (v4, v6): Hops) -> IpAddr {
    match range {
        IpNet::V4(_) => v4.into(),
        IpNet::V6(_) => v6.into(),
    }
}

fn anywhere(range: IpNet) -> IpNet {
    match range {
        IpNet::V4(_) => Ipv4Net::default().into(),
        IpNet::V6(_) => Ipv6Net::default().into(),
    }
}

/// Lets the node forward packets, as every pod network with routes needs it.
fn forward_packets(range: IpNet) -> Result<(), NetworkError> {
    let setting = match range {
        IpNet::V4(_) => "ipv4/ip_forward",
        IpNet::V6(_) => "ipv6/conf/all/forwarding",
    };
    if read_setting(setting).is_some_and(|value| value == "1") {
        return Ok(());
    }
    if matches!(range, IpNet::V6(_)) {
        keep_advertised_routes()?;
    }
    write_setting(setting, "1")
}

/// A machine that forwards IPv6 no longer listens to router advertisements, from which it may have its default route,
/// unless it is told to.
fn keep_advertised_routes() -> Result<(), NetworkError> {
    let interfaces = fs::read_dir(Path::new(SETTINGS).join("ipv6/conf"));
    for interface in interfaces.into_iter().flatten().flatten() {
        let setting = format!("ipv6/conf/{}/accept_ra", interface.file_name().to_string_lossy());
        if read_setting(&setting).is_some_and(|value| value == "1") {
            write_setting(&setting, "2")?;
        }
    }
    Ok(())
}

fn read_setting(setting: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new(SETTINGS).join(setting)).ok()?;
    Some(value.trim().to_owned())
}

fn write_setting(setting: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new(SETTINGS).join(setting);
    fs::write(&path, value)
        .map_err(|error| NetworkError::system(format!("set {} to {value}", path.display()), error))
}

fn is_not_found(error: &NetworkError) -> bool {
    matches!(error, NetworkError::System { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// A locally administered hardware address for one end of the veth of these ranges.
fn mac(ranges: &PodRanges, end: u8) -> Mac {
    let [a, b, c, d] = ranges.id().to_be_bytes();
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
