//! The network of one pod, as its containers and the host use it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_provider::{
    Error, ErrorKind, NetworkMode, PodNetwork, PodRef, PortMapping, Protocol, Result, SandboxConfig,
};
use parking_lot::Mutex;
use wasmtime_wasi::WasiCtxBuilder;

use super::http_client::{HttpClient, TlsTrust};
use super::idle::IdleCell;
use super::names::Names;
use super::namespace::{self, Namespace};
use super::policy::{Destination, Place, Transport};
use super::pool::Lease;
use super::ports::EphemeralPorts;
use super::socket;

/// The network of one pod.
///
/// The address goes back with [`release`](Self::release), or when the last user is gone.
pub struct PodNet {
    pod: PodRef,
    /// Whose network was asked for, whether it could be had or not.
    asked: NetworkMode,
    pub(super) place: Place,
    /// The pods' namespace; none on the node's network.
    pub(super) namespace: Option<Arc<Namespace>>,
    lease: Mutex<Option<Lease>>,
    pub(super) released: AtomicBool,
    /// On the node's network: what sockets of the pod are bound to, and so which loopback services are its own.
    pub(super) bound: Mutex<HashSet<(Transport, SocketAddr)>>,
    pub(super) ephemeral_ports: EphemeralPorts,
    pub(super) names: Names,
    pub(super) tls: Arc<TlsTrust>,
    pub(super) http_client: IdleCell<HttpClient>,
}

impl PodNet {
    pub(super) fn in_namespace(
        config: &SandboxConfig,
        lease: Lease,
        namespace: Arc<Namespace>,
        tls: Arc<TlsTrust>,
    ) -> Arc<Self> {
        let place = Place::Pod { ip: lease.ip(), alias: lease.alias() };
        Self::new(config, place, Some(namespace), Some(lease), tls)
    }

    pub(super) fn on_node(
        config: &SandboxConfig,
        addresses: Vec<IpAddr>,
        host_loopback: bool,
        tls: Arc<TlsTrust>,
    ) -> Arc<Self> {
        Self::new(config, Place::Node { addresses, host_loopback }, None, None, tls)
    }

    fn new(
        config: &SandboxConfig,
        place: Place,
        namespace: Option<Arc<Namespace>>,
        lease: Option<Lease>,
        tls: Arc<TlsTrust>,
    ) -> Arc<Self> {
        Arc::new(Self {
            names: Names::new(config, &place),
            pod: config.pod.clone(),
            asked: config.network,
            place,
            namespace,
            lease: Mutex::new(lease),
            released: AtomicBool::new(false),
            bound: Mutex::default(),
            ephemeral_ports: EphemeralPorts::default(),
            tls,
            http_client: IdleCell::default(),
        })
    }

    /// The pod's own addresses, the primary one first; none on the node's network.
    pub fn ips(&self) -> Vec<IpAddr> {
        match self.place {
            Place::Pod { ip, .. } => vec![ip.into()],
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
        // The namespace belongs to all pods, so no container of another provider may join it.
        PodNetwork { mode: self.asked, ips, namespace: None }
    }

    /// The address that listeners of the pod get, if it has one.
    pub fn primary_ip(&self) -> Option<IpAddr> {
        match &self.place {
            Place::Pod { ip, .. } => Some((*ip).into()),
            Place::Node { addresses, .. } => addresses.first().copied(),
        }
    }

    /// Whether guests of this pod have to run on threads that [`Network::guest_thread_init`] moved into the pods'
    /// namespace. The others have to run on threads that it did not.
    ///
    /// [`Network::guest_thread_init`]: super::Network::guest_thread_init
    pub fn needs_pod_threads(&self) -> bool {
        self.namespace.is_some()
    }

    /// Listens on a TCP port of the pod, without blocking mode. Any thread may accept from it.
    ///
    /// `AlreadyExists` if the port is taken.
    pub fn listen_tcp(&self, port: u16) -> Result<TcpListener> {
        let ip = self
            .primary_ip()
            .ok_or_else(|| Error::internal(format!("{self} has no address to listen on")))?;
        if self.released.load(Ordering::Acquire) {
            return Err(Error::internal(format!("{self} has given its address back")));
        }
        let address = SocketAddr::new(ip, port);
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

    /// Connects to a port of the pod as the pod itself would by 127.0.0.1: what port-forward does. Works on any thread
    /// of any tokio runtime.
    pub async fn connect_loopback(self: &Arc<Self>, port: u16) -> io::Result<tokio::net::TcpStream> {
        let wanted = Destination::Loopback(SocketAddr::from(([127, 0, 0, 1], port)));
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

    /// Gives the address back, once the pod's guests have ended. One that still lives can make no further connections.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.http_client.clear();
        self.lease.lock().take();
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
