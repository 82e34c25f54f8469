//! Sockets and names, for component hosts. Each command prints one line about what came of it:
//!
//! - `bind ADDRESS` the address that a listener got
//! - `connect ADDRESS` both ends of a connection
//! - `connect-often ADDRESS COUNT` how many connections came about, one after another
//! - `loopback LISTEN CONNECT` both ends of a connection to a listener of its own; `CONNECT` may leave out the port
//! - `udp-echo ADDRESS` nothing: it sends every datagram back
//! - `udp-call LOCAL REMOTE TEXT` the answer to a datagram, and where it came from
//! - `udp-connect LOCAL REMOTE TEXT` the answer on a connected socket, and both of its ends
//! - `udp-loopback LISTEN CONNECT` as `loopback`, with datagrams
//! - `resolve NAME` its addresses

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["bind", address] => bind(address),
        ["connect", address] => connect(address),
        ["connect-often", address, count] => connect_often(address, count),
        ["loopback", listen, connect] => loopback(listen, connect),
        ["udp-echo", address] => udp_echo(address),
        ["udp-call", local, remote, text] => udp_call(local, remote, text),
        ["udp-connect", local, remote, text] => udp_connect(local, remote, text),
        ["udp-loopback", listen, connect] => udp_loopback(listen, connect),
        ["resolve", name] => resolve(name),
        _ => Err(io::Error::other("unknown command")),
    };
    match result {
        Ok(outcome) => println!("{outcome}"),
        Err(error) => println!("error: {:?}", error.kind()),
    }
}

fn bind(address: &str) -> io::Result<String> {
    Ok(TcpListener::bind(address)?.local_addr()?.to_string())
}

fn connect(address: &str) -> io::Result<String> {
    let connection = TcpStream::connect(address)?;
    Ok(format!("{} -> {}", connection.local_addr()?, connection.peer_addr()?))
}

fn connect_often(address: &str, count: &str) -> io::Result<String> {
    let count: u32 = count.parse().map_err(io::Error::other)?;
    for done in 0..count {
        // Closing first leaves the port waiting on this side.
        TcpStream::connect(address).map_err(|error| io::Error::new(error.kind(), format!("after {done}")))?;
    }
    Ok(format!("{count} connections"))
}

fn loopback(listen: &str, connect: &str) -> io::Result<String> {
    let listener = TcpListener::bind(listen)?;
    let mut client = TcpStream::connect(with_port_of(connect, listener.local_addr()?))?;
    let (mut server, peer) = listener.accept()?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    Ok(format!("{} -> {}, seen as {peer}", client.local_addr()?, client.peer_addr()?))
}

fn udp_echo(address: &str) -> io::Result<String> {
    let socket = UdpSocket::bind(address)?;
    let mut buffer = [0; 1024];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer)?;
    }
}

fn udp_call(local: &str, remote: &str, text: &str) -> io::Result<String> {
    let socket = UdpSocket::bind(local)?;
    socket.send_to(text.as_bytes(), remote)?;
    let mut buffer = [0; 1024];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    Ok(format!("{} from {peer}", String::from_utf8_lossy(&buffer[..length])))
}

fn udp_connect(local: &str, remote: &str, text: &str) -> io::Result<String> {
    let socket = UdpSocket::bind(local)?;
    socket.connect(remote)?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    Ok(format!("{answer}: {} -> {}", socket.local_addr()?.ip(), socket.peer_addr()?))
}

fn udp_loopback(listen: &str, connect: &str) -> io::Result<String> {
    let server = UdpSocket::bind(listen)?;
    let client = UdpSocket::bind("0.0.0.0:0")?;
    client.send_to(b"ping", with_port_of(connect, server.local_addr()?))?;
    let mut buffer = [0; 16];
    let (length, peer) = server.recv_from(&mut buffer)?;
    server.send_to(&buffer[..length], peer)?;
    let (_, from) = client.recv_from(&mut buffer)?;
    Ok(format!("client {}, answer from {from}", peer.ip()))
}

fn resolve(name: &str) -> io::Result<String> {
    let addresses: Vec<_> = (name, 0).to_socket_addrs()?.map(|address| address.ip().to_string()).collect();
    Ok(addresses.join(" "))
}

fn with_port_of(address: &str, bound: SocketAddr) -> String {
    if address.contains(':') { address.to_owned() } else { format!("{address}:{}", bound.port()) }
}
