//! The few requests to the kernel's routing that a pod network needs.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::NetworkError;
use super::namespace::Namespace;

/// The kernel's routing tables that are always there.
pub(super) const MAIN_TABLE: u32 = 254;
pub(super) const LOCAL_TABLE: u32 = 255;

/// How often, and in which intervals, an interface is looked at until it works.
const RUNNING_ATTEMPTS: usize = 1500;
const RUNNING_INTERVAL: Duration = Duration::from_millis(2);

type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// One end of a veth pair.
pub(super) struct VethEnd<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
}

/// A connection to the routing of one network namespace. Dropping it closes it.
pub(super) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Connects to the namespace of the current thread.
    pub(super) fn connect() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(failed_to("open a netlink socket"))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Connects to the given namespace.
    pub(super) fn connect_in(namespace: &Namespace) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        namespace
            .run(move || {
                let _entered = runtime.enter();
                Self::connect()
            })
            .map_err(failed_to("open a netlink socket for pods"))?
    }

    /// The index of an interface, if it exists.
    pub(super) async fn index_of(&self, name: &str) -> Result<Option<u32>> {
        let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
        match links.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is_errno(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(refused(format!("look up the interface {name}"))(error)),
        }
    }

    /// Waits until an interface sends. The kernel gets a veth going some time, up to a second, after both of its ends are up,
    /// and drops what is sent until then.
    pub(super) async fn wait_until_running(&self, name: &str) -> Result<()> {
        for _ in 0..RUNNING_ATTEMPTS {
            let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
            let link = links.try_next().await.map_err(refused(format!("look up the interface {name}")))?;
            if link.is_some_and(|link| link.header.flags.contains(LinkFlags::Running)) {
                return Ok(());
            }
            sleep(RUNNING_INTERVAL).await;
        }
        Err(NetworkError::system(format!("bring up the interface {name}"), io::Error::from(Errno::ENETDOWN)))
    }

    /// The MTU of the interface that has this address, if there is one. An address on the loopback device says nothing
    /// about the way to other machines.
    pub(super) async fn mtu_of(&self, address: IpAddr) -> Result<Option<u32>> {
        let action = || refused(format!("look up the interface of {address}"));
        // IPv6 addresses are told without `Local`.
        let wanted = [AddressAttribute::Local(address), AddressAttribute::Address(address)];
        let addresses = self.handle.address().get().execute();
        let addresses: Vec<_> = addresses.try_collect().await.map_err(action())?;
        let Some(owner) = addresses
            .iter()
            .find(|message| message.attributes.iter().any(|attribute| wanted.contains(attribute)))
        else {
            return Ok(None);
        };
        let mut links = Box::pin(self.handle.link().get().match_index(owner.header.index).execute());
        let link = links.try_next().await.map_err(action())?;
        let link = link.filter(|link| !link.header.flags.contains(LinkFlags::Loopback));
        Ok(link.and_then(|link| {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(mtu),
                _ => None,
            })
        }))
    }

    /// Removes an interface and all that hangs on it: its peer, addresses and routes. Without one, nothing happens.
    pub(super) async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(index) = self.index_of(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if is_errno(&error, Errno::ENODEV) => Ok(()),
            result => result.map_err(refused(format!("remove the interface {name}"))),
        }
    }

    /// Makes a pair of interfaces, the peer in another namespace. Both have their hardware addresses from the start:
    /// those that the kernel picks may be changed later by udev.
    pub(super) async fn add_veth(
        &self,
        end: VethEnd<'_>,
        peer: VethEnd<'_>,
        peer_namespace: &Namespace,
        mtu: Option<u32>,
    ) -> Result<()> {
        let mut peer_link = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.name)
            .address(peer.mac.to_vec())
            .setns_by_fd(peer_namespace.fd().as_raw_fd());
        let mut link = LinkVeth::new(end.name, peer.name).address(end.mac.to_vec());
        if let Some(mtu) = mtu {
            (link, peer_link) = (link.mtu(mtu), peer_link.mtu(mtu));
        }
        let link = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer_link.build()))).build();
        let action = format!("make the interface {}", end.name);
        self.handle.link().add(link).execute().await.map_err(refused(action))
    }

    /// Brings an interface up and returns its index.
    pub(super) async fn set_up(&self, name: &str) -> Result<u32> {
        let action = format!("bring up the interface {name}");
        let missing = || NetworkError::system(&action, io::Error::from(Errno::ENODEV));
        let index = self.index_of(name).await?.ok_or_else(missing)?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(refused(action))?;
        Ok(index)
    }

    pub(super) async fn add_address(&self, index: u32, address: IpAddr) -> Result<()> {
        let mut request = self.handle.address().add(index, address, IpNet::from(address).prefix_len());
        // Nobody else is on the wire who could have it, and until that is known it could not be used.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(refused(format!("assign the address {address}")))
    }

    /// Says which hardware address a next hop has, so that nobody has to ask for it.
    pub(super) async fn add_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac);
        request.execute().await.map_err(refused(format!("add the neighbour {address}")))
    }

    /// Routes a range through a next hop. Fails if there is a route for just this range.
    pub(super) async fn add_route(
        &self,
        to: IpNet,
        via: IpAddr,
        index: u32,
        source: Option<IpAddr>,
        table: u32,
    ) -> Result<()> {
        let route = || {
            let route = route_to(to)?.gateway(via).map_err(io::Error::other)?;
            let route = route.onlink().output_interface(index).table_id(table);
            match source {
                Some(source) => route.pref_source(source).map_err(io::Error::other),
                None => Ok(route),
            }
        };
        self.add(route().map(RouteMessageBuilder::build), to).await
    }

    /// Makes every address of a range local to an interface, for look-ups in a table.
    pub(super) async fn add_local_range(&self, range: IpNet, index: u32, table: u32) -> Result<()> {
        let route = route_to(range).map(|route| {
            let local = route.output_interface(index).table_id(table);
            local.kind(RouteType::Local).scope(RouteScope::Host).build()
        });
        self.add(route, range).await
    }

    async fn add(&self, route: io::Result<RouteMessage>, to: IpNet) -> Result<()> {
        let action = format!("add a route to {to}");
        let route = route.map_err(failed_to(&action))?;
        self.handle.route().add(route).execute().await.map_err(refused(action))
    }

    /// Has packets that this namespace itself sends to a range, from `from` or from anywhere, looked up in `table`.
    pub(super) async fn add_rule(
        &self,
        from: Option<IpNet>,
        to: IpNet,
        priority: u32,
        table: u32,
    ) -> Result<()> {
        let rule = self.handle.rule().add().action(RuleAction::ToTable).priority(priority).table_id(table);
        let mut rule = rule.input_interface("lo");
        let message = rule.message_mut();
        message.header.family = family(to);
        message.header.dst_len = to.prefix_len();
        message.attributes.push(RuleAttribute::Destination(to.network()));
        if let Some(from) = from {
            message.header.src_len = from.prefix_len();
            message.attributes.push(RuleAttribute::Source(from.network()));
        }
        rule.execute().await.map_err(refused(format!("add a routing rule for {to}")))
    }

    /// Has the table of local addresses looked up at `priority` instead of first of all, in the family of `range`.
    pub(super) async fn move_local_rule(&self, range: IpNet, priority: u32) -> Result<()> {
        let mut rule = self.handle.rule().add().action(RuleAction::ToTable);
        rule.message_mut().header.family = family(range);
        let rule = rule.priority(priority).table_id(LOCAL_TABLE);
        rule.execute().await.map_err(refused("add the rule for local addresses"))?;
        let mut first = RuleMessage::default();
        first.header.family = family(range);
        first.header.table = LOCAL_TABLE as u8;
        first.header.action = RuleAction::ToTable;
        first.attributes.push(RuleAttribute::Priority(0));
        self.handle.rule().del(first).execute().await.map_err(refused("remove the first routing rule"))
    }

    /// The destinations of all routes of all tables in the family of `like`, local addresses included, default routes not.
    pub(super) async fn destinations(&self, like: IpNet) -> Result<Vec<IpNet>> {
        let mut all = RouteMessageBuilder::<IpAddr>::new().build();
        all.header.address_family = family(like);
        let routes = self.handle.route().get(all).execute();
        let routes: Vec<RouteMessage> =
            routes.map(|route| route.map_err(refused("list the routes"))).try_collect().await?;
        Ok(routes.iter().filter_map(destination).filter(|net| net.prefix_len() > 0).collect())
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn family(range: IpNet) -> AddressFamily {
    match range {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

/// Fails only where the families of addresses do not fit together.
fn route_to(range: IpNet) -> io::Result<RouteMessageBuilder<IpAddr>> {
    let route = RouteMessageBuilder::<IpAddr>::new();
    route.destination_prefix(range.network(), range.prefix_len()).map_err(io::Error::other)
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    route.attributes.iter().find_map(|attribute| {
        let address = match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => IpAddr::from(*address),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => IpAddr::from(*address),
            _ => return None,
        };
        IpNet::new(address, route.header.destination_prefix_length).ok()
    })
}

fn failed_to(action: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    move |error| NetworkError::system(action, error)
}

fn refused(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |error| NetworkError::system(action, into_io(error))
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn is_errno(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code().abs() == errno as i32)
}
