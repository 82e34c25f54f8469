//! The network of one pod, as its containers and the host use it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_provider::{
    Error, ErrorKind, NetworkMode, PodNetwork, PodRef, PortMapping, Protocol, Result, SandboxConfig,
};
use parking_lot::Mutex;
use wasmtime_wasi::WasiCtxBuilder;

use super::cni::Attached;
use super::egress::Egress;
use super::http_client::{HttpClient, TlsTrust};
use super::idle::IdleCell;
use super::names::Names;
use super::namespace::{self, Namespace};
use super::policy::{Destination, Place, Transport, of_family};
use super::pool::Lease;
use super::ports::EphemeralPorts;
use super::{range, socket};

/// The network of one pod.
///
/// The address goes back with [`release`](Self::release), or when the last user is gone.
pub struct PodNet {
    pod: PodRef,
    /// Whose network was asked for, whether it could be had or not.
    asked: NetworkMode,
    pub(super) place: Place,
    /// The pods' namespace, or the pod's own; none on the node's network.
    pub(super) namespace: Option<Arc<Namespace>>,
    /// Where the pod's own namespace is found.
    namespace_path: Option<PathBuf>,
    leases: Mutex<Vec<Lease>>,
    pub(super) released: AtomicBool,
    /// On the node's network: what sockets of the pod are bound to, and so which loopback services are its own.
    pub(super) bound: Mutex<HashSet<(Transport, SocketAddr)>>,
    pub(super) ephemeral_ports: EphemeralPorts,
    pub(super) names: Names,
    pub(super) egress: Option<Egress>,
    pub(super) tls: Arc<TlsTrust>,
    pub(super) http_client: IdleCell<HttpClient>,
}

impl PodNet {
    /// A pod with addresses in the namespace that pods share.
    ///
    /// `InvalidArgument` here and below: an annotation of the pod is malformed.
    pub(super) fn in_shared(
        config: &SandboxConfig,
        leases: Vec<Lease>,
        namespace: Arc<Namespace>,
        tls: Arc<TlsTrust>,
    ) -> Result<Arc<Self>> {
        let ips: Vec<_> = leases.iter().map(Lease::ip).collect();
        let number = leases.first().map_or(0, Lease::offset);
        let mut aliases = vec![range::alias_v4(number).into()];
        if ips.iter().any(IpAddr::is_ipv6) {
            aliases.push(range::alias_v6(number).into());
        }
        Self::new(config, Place::Pod { ips, aliases }, Some((namespace, None)), leases, tls)
    }

    /// A pod with a namespace of its own.
    pub(super) fn in_own(
        config: &SandboxConfig,
        attached: Attached,
        tls: Arc<TlsTrust>,
    ) -> Result<Arc<Self>> {
        let Attached { ips, namespace, path } = attached;
        Self::new(config, Place::Namespace { ips }, Some((namespace, Some(path))), vec![], tls)
    }

    /// A pod on the node's addresses.
    pub(super) fn on_node(
        config: &SandboxConfig,
        addresses: Vec<IpAddr>,
        host_loopback: bool,
        tls: Arc<TlsTrust>,
    ) -> Result<Arc<Self>> {
        Self::new(config, Place::Node { addresses, host_loopback }, None, vec![], tls)
    }

    fn new(
        config: &SandboxConfig,
        place: Place,
        namespace: Option<(Arc<Namespace>, Option<PathBuf>)>,
        leases: Vec<Lease>,
        tls: Arc<TlsTrust>,
    ) -> Result<Arc<Self>> {
        let (namespace, namespace_path) = namespace.unzip();
        Ok(Arc::new(Self {
            names: Names::new(config, &place),
            egress: Egress::from_annotations(&config.annotations)?,
            pod: config.pod.clone(),
            asked: config.network,
            place,
            namespace,
            namespace_path: namespace_path.flatten(),
            leases: Mutex::new(leases),
            released: AtomicBool::new(false),
            bound: Mutex::default(),
            ephemeral_ports: EphemeralPorts::default(),
            tls,
            http_client: IdleCell::default(),
        }))
    }

    /// The pod's own addresses, the primary one first; none on the node's network.
    pub fn ips(&self) -> Vec<IpAddr> {
        match &self.place {
            Place::Pod { ips, .. } | Place::Namespace { ips } => ips.clone(),
            Place::Node { .. } => vec![],
        }
    }

    /// The network as the sandbox's status shows it: the mode is the one that was asked for, and a pod that asked for an
    /// address of its own and cannot have one shows the node's.
    pub fn network(&self) -> PodNetwork {
        let ips = match (&self.place, self.asked) {
            (Place::Node { addresses, .. }, NetworkMode::Pod) => addresses.clone(),
            _ => self.ips(),
        };
        // One that belongs to all pods no container of another provider may join.
        PodNetwork { mode: self.asked, ips, namespace: self.namespace_path.clone() }
    }

    /// The addresses by which the pod is reached, one of each family at most, the primary one first.
    pub fn reached_at(&self) -> Vec<IpAddr> {
        let mut ips: Vec<IpAddr> = vec![];
        for ip in self.place.ips() {
            if of_family(&ips, *ip).is_none() {
                ips.push(*ip);
            }
        }
        ips
    }

    /// Whether guests of this pod have to run on threads that [`Network::guest_thread_init`] moved into the namespace that
    /// pods share.
    ///
    /// [`Network::guest_thread_init`]: super::Network::guest_thread_init
    pub fn needs_pod_threads(&self) -> bool {
        matches!(self.place, Place::Pod { .. })
    }

    /// What threads have to do that run guests of this pod, which has a namespace of its own, and a number that only this
    /// namespace has. None for other pods: guests of those on the node's network have to run on threads that entered no
    /// namespace.
    pub fn own_thread_init(&self) -> Option<(u64, impl Fn() + Clone + Send + Sync + 'static)> {
        let namespace = self.namespace.clone().filter(|_| matches!(self.place, Place::Namespace { .. }))?;
        Some((namespace.id(), move || namespace.enter_or_abort()))
    }

    /// Listens on a TCP port of the pod, without blocking mode: once in each family. Any thread may accept from it.
    ///
    /// `AlreadyExists` if the port is taken.
    pub fn listen_tcp(&self, port: u16) -> Result<Vec<TcpListener>> {
        let ips = self.place.listen_ips();
        if ips.is_empty() {
            return Err(Error::internal(format!("{self} has no address to listen on")));
        }
        if self.released.load(Ordering::Acquire) {
            return Err(Error::internal(format!("{self} has given its address back")));
        }
        ips.into_iter().map(|ip| self.listen_at(SocketAddr::new(ip, port))).collect()
    }

    fn listen_at(&self, address: SocketAddr) -> Result<TcpListener> {
        let port = address.port();
        let listener =
            self.in_place(move || socket::listener(address)).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => {
                    Error::new(ErrorKind::AlreadyExists, format!("port {port} of {self} is in use already"))
                }
                _ => Error::internal(format!("{self} cannot listen on {address}: {error}")),
            })?;
        self.note_bound(address, Transport::Tcp);
        Ok(listener)
    }

    /// Listens on a TCP port of the node, in the node's namespace.
    ///
    /// `AlreadyExists` if the port is taken, `Unimplemented` for anything but TCP.
    pub fn listen_host_port(&self, mapping: &PortMapping) -> Result<TcpListener> {
        self.open_host_port(mapping, Protocol::Tcp, socket::listener)
    }

    /// The same for UDP.
    pub fn bind_host_port(&self, mapping: &PortMapping) -> Result<UdpSocket> {
        self.open_host_port(mapping, Protocol::Udp, socket::datagrams)
    }

    fn open_host_port<S>(
        &self,
        mapping: &PortMapping,
        protocol: Protocol,
        open: impl FnOnce(SocketAddr) -> io::Result<S>,
    ) -> Result<S> {
        if mapping.protocol != protocol {
            return Err(Error::unimplemented(format!(
                "hostPort {} over {:?}",
                mapping.host_port, mapping.protocol
            )));
        }
        let address = SocketAddr::new(mapping.host_ip.unwrap_or([0, 0, 0, 0].into()), mapping.host_port);
        if !namespace::is_outside() {
            return Err(Error::internal(format!(
                "hostPort {address} of {self} was asked for on a guest's thread"
            )));
        }
        open(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Error::new(
                ErrorKind::AlreadyExists,
                format!("hostPort {address} of {self} is in use on this node already"),
            ),
            io::ErrorKind::AddrNotAvailable => {
                Error::invalid(format!("hostPort {address} of {self}: this node has no such address"))
            }
            _ => Error::internal(format!("{self} cannot listen on hostPort {address}: {error}")),
        })
    }

    /// Connects to a port of the pod as the pod itself would by localhost: what port-forward does. Works on any thread of
    /// any tokio runtime.
    pub async fn connect_loopback(self: &Arc<Self>, port: u16) -> io::Result<tokio::net::TcpStream> {
        let first = self.connect_localhost(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        if first.is_ok() || !self.place.ips().iter().any(IpAddr::is_ipv6) {
            return first;
        }
        let second = self.connect_localhost(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await;
        second.or(first)
    }

    async fn connect_localhost(self: &Arc<Self>, wanted: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let wanted = Destination::Loopback(wanted);
        let runtime = tokio::runtime::Handle::current();
        let net = self.clone();
        let (socket, target) = self.in_place(move || {
            let _entered = runtime.enter();
            let target = net.target(wanted, Transport::Tcp).map_err(io::Error::from)?;
            let source = net.source_ip(wanted).map(|ip| SocketAddr::new(ip, 0));
            Ok((socket::outgoing(source, target)?, target))
        })?;
        socket.connect(target).await
    }

    /// Gives the addresses back, once the pod's guests have ended. One that still lives can make no further connections.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.http_client.clear();
        self.leases.lock().clear();
    }

    /// Lets a guest use TCP and UDP under this pod's policy, through the functions of
    /// [`add_to_linker`](super::add_to_linker). Whatever gets past those functions is refused.
    pub fn configure(self: &Arc<Self>, builder: &mut WasiCtxBuilder) {
        let net = self.clone();
        builder
            .allow_tcp(true)
            .allow_udp(true)
            // The functions of `add_to_linker` resolve names. Those that they replace ask the node's resolver.
            .allow_ip_name_lookup(false)
            .socket_addr_check(move |address, reason| {
                let permitted = net.permits(address, reason);
                Box::pin(async move { permitted })
            });
    }

    /// Runs a short closure where this pod's sockets have to be made.
    fn in_place<R, F>(&self, work: F) -> io::Result<R>
    where
        F: FnOnce() -> io::Result<R> + Send + 'static,
        R: Send + 'static,
    {
        match &self.namespace {
            Some(namespace) if !namespace.is_current() => namespace.run(work)?,
            None if !namespace::is_outside() => {
                Err(io::Error::other("a socket of the node was asked for on a guest's thread"))
            }
            _ => work(),
        }
    }
}

impl std::fmt::Debug for PodNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodNet").field("pod", &self.pod).field("place", &self.place).finish_non_exhaustive()
    }
}

impl std::fmt::Display for PodNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{}", self.pod.namespace, self.pod.name)
    }
}
