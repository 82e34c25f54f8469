//! Ports for connections that guests begin.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::policy::Transport;
use super::socket;

/// The ports that Linux takes by default.
const PORTS: Range<u16> = 32_768..61_000;
/// How many ports are looked at for one that nothing uses.
const ATTEMPTS: usize = 8;

/// Picks the ports that a pod's connections come from, one after the other.
///
/// A guest's socket has to be bound to the pod's address before it connects. A port that the kernel chose then would be
/// kept from all other connections of the pod, whatever their peer, until a minute after this one's end; one that is
/// named is not, because wasmtime-wasi allows the reuse of addresses.
#[derive(Debug)]
pub(super) struct EphemeralPorts {
    ports: Range<u16>,
    next: AtomicU32,
}

impl EphemeralPorts {
    fn new(ports: Range<u16>) -> Self {
        // A random start keeps clear of the ports that an earlier pod with this address used.
        let start = RandomState::new().hash_one(()) as u32;
        Self { ports, next: AtomicU32::new(start) }
    }

    /// A port for a connection from this address. Must run in the pod's namespace.
    pub(super) fn pick(&self, ip: IpAddr) -> SocketAddr {
        let mut picked = SocketAddr::new(ip, self.advance());
        for _ in 0..ATTEMPTS {
            if socket::is_port_unused(picked) {
                return picked;
            }
            picked.set_port(self.advance());
        }
        // Under load most ports wait for the end of an old connection. Such a one will do: it is only taken for the same
        // peer, and there for a second.
        while socket::is_receiving(picked, Transport::Tcp) {
            picked.set_port(self.advance());
        }
        picked
    }

    fn advance(&self) -> u16 {
        let offset = self.next.fetch_add(1, Ordering::Relaxed) % u32::from(self.ports.end - self.ports.start);
        self.ports.start + offset as u16
    }
}

impl Default for EphemeralPorts {
    fn default() -> Self {
        Self::new(PORTS)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::net::sockopt::set_socket_reuseaddr;
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn passes_over_ports_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let ports = EphemeralPorts::new(port..port + 2);
        for _ in 0..5 {
            assert_eq!(ports.pick(LOCALHOST).port(), port + 1);
        }
    }

    #[test]
    fn takes_ports_that_wait_for_the_end_of_a_connection_to_another_peer() {
        let ports = EphemeralPorts::new(21_000..21_020);
        for _ in 0..3 {
            // A peer of its own for each round: to the same one, the kernel wants a second in between.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..20 {
                let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
                set_socket_reuseaddr(&client, true).unwrap();
                bind(&client, &ports.pick(LOCALHOST)).unwrap();
                connect(&client, &listener.local_addr().unwrap()).unwrap();
                let server = listener.accept().unwrap();
                // Who closes first has the port wait.
                drop(TcpStream::from(client));
                drop(server);
            }
        }
    }
}
