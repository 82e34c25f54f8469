//! Where a pod's packets come from and may go: its policy, applied to what is there.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use wasmtime_wasi::sockets::SocketAddrUse;

use super::names::LookupError;
use super::namespace;
use super::pod::PodNet;
use super::policy::{Destination, Place, Refusal, Transport, of_family, unspecified_like};
use super::socket;

impl PodNet {
    /// Whether sockets that the current thread makes are in the right namespace.
    pub(super) fn is_right_thread(&self) -> bool {
        match &self.namespace {
            Some(namespace) => namespace.is_current(),
            None => namespace::is_outside(),
        }
    }

    /// Where a guest's connection or datagram to `wanted` has to go, by the pod's place and its egress list.
    pub(super) fn destination(&self, wanted: SocketAddr) -> Result<Destination, Refusal> {
        let destination = self.place.destination(wanted)?;
        match (destination, &self.egress) {
            (Destination::Remote(to), Some(egress)) if !egress.allows(to) => Err(Refusal::Prohibited),
            _ => Ok(destination),
        }
    }

    /// The addresses of a name that the pod knows by itself.
    pub(super) fn resolve_locally(&self, name: &str) -> Option<Vec<IpAddr>> {
        let addresses = self.names.resolve_locally(name)?;
        self.learn(name, &addresses);
        Some(addresses)
    }

    /// The addresses of a name. Must run in the pod's namespace.
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Some(addresses) = self.resolve_locally(name) {
            return Ok(addresses);
        }
        if self.egress.as_ref().is_some_and(|egress| !egress.allows_name(name)) {
            return Err(LookupError::Denied);
        }
        let addresses = self.names.ask(name).await?;
        self.learn(name, &addresses);
        Ok(addresses)
    }

    fn learn(&self, name: &str, addresses: &[IpAddr]) {
        if let Some(egress) = &self.egress {
            egress.learn(name, addresses);
        }
    }

    /// The address that a connection or datagram to `destination` goes to. Must run in the pod's namespace.
    pub(super) fn target(
        &self,
        destination: Destination,
        transport: Transport,
    ) -> Result<SocketAddr, Refusal> {
        match (destination, &self.place) {
            (Destination::Remote(address) | Destination::Own(address), _) => Ok(address),
            (Destination::Loopback(wanted), Place::Pod { ips, aliases }) => {
                let at = |ip| SocketAddr::new(ip, wanted.port());
                let on_loopback = of_family(aliases, wanted.ip()).map(at);
                let there = on_loopback.filter(|address| socket::is_receiving(*address, transport));
                there.or(of_family(ips, wanted.ip()).map(at)).ok_or(Refusal::Refused)
            }
            // Such a pod's localhost is an address like any other.
            (Destination::Loopback(wanted), Place::Namespace { .. }) => Ok(wanted),
            (Destination::Loopback(wanted), Place::Node { host_loopback, .. }) => {
                self.bound_at(wanted, transport).or(host_loopback.then_some(wanted)).ok_or(Refusal::Refused)
            }
        }
    }

    /// The address and port to bind a socket to before it connects; none where the kernel may choose. Must run in the
    /// pod's namespace.
    pub(super) fn source(&self, destination: Destination) -> Option<SocketAddr> {
        let ip = self.source_ip(destination)?;
        Some(self.ephemeral_ports.pick(ip))
    }

    /// The address that connections to `destination` come from; none where the kernel may choose.
    pub(super) fn source_ip(&self, destination: Destination) -> Option<IpAddr> {
        match (&self.place, destination) {
            (Place::Node { .. } | Place::Namespace { .. }, _) => None,
            (Place::Pod { ips, .. }, Destination::Remote(to)) => of_family(ips, to.ip()),
            // Within the pod, traffic takes the short way and not the one through the node.
            (Place::Pod { aliases, .. }, Destination::Own(to) | Destination::Loopback(to)) => {
                of_family(aliases, to.ip())
            }
        }
    }

    /// Remembers that the pod has bound this address.
    pub(super) fn note_bound(&self, address: SocketAddr, transport: Transport) {
        if matches!(self.place, Place::Node { .. }) {
            self.bound.lock().insert((transport, address));
        }
    }

    /// Forgets an address that the pod no longer has.
    pub(super) fn forget_bound(&self, address: SocketAddr, transport: Transport) {
        self.bound.lock().remove(&(transport, address));
    }

    /// Where a socket of the pod receives what is sent to a port of the node's loopback: there, or on another of the node's
    /// addresses.
    fn bound_at(&self, wanted: SocketAddr, transport: Transport) -> Option<SocketAddr> {
        let Place::Node { addresses, .. } = &self.place else { return None };
        let bound = self.bound.lock();
        let is_bound = |address: SocketAddr| bound.contains(&(transport, address));
        let at = |ip: IpAddr| SocketAddr::new(ip, wanted.port());
        if is_bound(wanted) || is_bound(at(unspecified_like(wanted.ip()))) {
            return Some(wanted);
        }
        addresses.iter().map(|ip| at(*ip)).find(|address| is_bound(*address))
    }

    /// The second wall, behind the rewriting: addresses as they reach the system.
    pub(super) fn permits(&self, address: SocketAddr, reason: SocketAddrUse) -> bool {
        if self.released.load(Ordering::Acquire) || !self.is_right_thread() {
            return false;
        }
        let ip = address.ip();
        match reason {
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                // On the node's network the kernel picks the source of a connection, and a port with it.
                let is_client =
                    matches!(self.place, Place::Node { .. }) && ip.is_unspecified() && address.port() == 0;
                is_client || self.place.is_own(ip)
            }
            SocketAddrUse::TcpListen => self.place.is_own(ip),
            SocketAddrUse::TcpConnect => self.permits_sending(address, Transport::Tcp),
            SocketAddrUse::UdpSend => self.permits_sending(address, Transport::Udp),
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => self.place.may_receive_from(ip),
        }
    }

    fn permits_sending(&self, address: SocketAddr, transport: Transport) -> bool {
        // On the node's network a service of the pod itself has an address that is not its alone.
        if matches!(self.place, Place::Node { .. }) && self.bound.lock().contains(&(transport, address)) {
            return true;
        }
        match self.destination(address) {
            Ok(Destination::Remote(_) | Destination::Own(_)) => true,
            Ok(Destination::Loopback(_)) => match &self.place {
                // Here the alias has taken the place of 127.0.0.1.
                Place::Pod { aliases, .. } => aliases.contains(&address.ip()),
                Place::Namespace { .. } => true,
                Place::Node { host_loopback, .. } => {
                    *host_loopback || self.bound_at(address, transport) == Some(address)
                }
            },
            Err(_) => false,
        }
    }
}
