//! Sockets that the host makes for pods. Each lives in the network namespace of the thread that makes it.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::sockopt::IpBindAddressNoPort;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::TcpSocket;

use super::policy::Transport;

/// How many connections may wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener that does not block.
pub(super) fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, SocketType::STREAM)?;
    // Connections of an earlier listener that still wait for their end must not hold up this one.
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A socket for datagrams that does not block.
pub(super) fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, SocketType::DGRAM)?;
    bind(&socket, &address)?;
    Ok(socket.into())
}

/// A socket for an outgoing connection, which gets its port when it connects: that lets connections to different peers
/// share one.
pub(super) fn outgoing(source: Option<SocketAddr>, destination: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        nix::sys::socket::setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(source)?;
    }
    Ok(socket)
}

/// Whether something receives at an address of this namespace: a listener, or a datagram socket.
pub(super) fn is_receiving(address: SocketAddr, transport: Transport) -> bool {
    let (kind, reuse) = match transport {
        // With address reuse on both sides, only a listener stands in the way.
        Transport::Tcp => (SocketType::STREAM, true),
        Transport::Udp => (SocketType::DGRAM, false),
    };
    try_bind(address, kind, reuse) == Err(rustix::io::Errno::ADDRINUSE)
}

/// Whether no TCP socket, not even one that waits for its end, has this port.
pub(super) fn is_port_unused(address: SocketAddr) -> bool {
    try_bind(address, SocketType::STREAM, false).is_ok()
}

fn try_bind(address: SocketAddr, kind: SocketType, reuse: bool) -> rustix::io::Result<()> {
    let socket = socket(address, kind)?;
    if reuse {
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)
}

fn socket(address: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        // What listens on all addresses of both families does so by two sockets.
        set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_listeners_from_mere_ports() {
        let listening = listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listening.local_addr().unwrap();
        assert!(is_receiving(address, Transport::Tcp));
        assert!(!is_receiving(address, Transport::Udp));

        let client = std::net::TcpStream::connect(address).unwrap();
        let client_port = client.local_addr().unwrap();
        assert!(!is_port_unused(client_port));
        drop(listening);
        assert!(!is_receiving(address, Transport::Tcp));
    }

    #[test]
    fn sees_datagram_sockets() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(is_receiving(address, Transport::Udp));
        drop(socket);
        assert!(!is_receiving(address, Transport::Udp));
    }

    #[test]
    fn a_second_listener_finds_the_port_taken() {
        let first = listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = listener(first.local_addr().unwrap());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
