//! Sockets and names of WASI 0.3. Each command prints one line about what came of it; `-` for a local address leaves the
//! socket unbound:
//!
//! - `bind ADDRESS` the address that a listener got
//! - `connect ADDRESS` both ends of a connection
//! - `loopback LISTEN CONNECT` both ends of a connection to a listener of its own, and who it is to that; `CONNECT` leaves out
//!   the port
//! - `udp-call LOCAL REMOTE TEXT` the answer to a datagram, and where it came from
//! - `udp-connect LOCAL REMOTE TEXT` the answer on a connected socket, and both of its ends
//! - `udp-loopback LISTEN CONNECT` where a datagram to a socket of its own came from
//! - `resolve NAME` its addresses

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wasip3::cli::environment;
use wasip3::sockets::ip_name_lookup;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
    UdpSocket,
};
use wasip3::wit_stream;

struct Sockets;

wasip3::cli::command::export!(Sockets);

impl wasip3::exports::cli::run::Guest for Sockets {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        let outcome = match words[..] {
            ["bind", address] => listener(address).map(|socket| local(&socket)),
            ["connect", address] => connect(address).await,
            ["loopback", listen, to] => loopback(listen, to).await,
            ["udp-call", local, remote, text] => udp_call(local, remote, text).await,
            ["udp-connect", local, remote, text] => udp_connect(local, remote, text).await,
            ["udp-loopback", listen, to] => udp_loopback(listen, to).await,
            ["resolve", name] => return resolve(name).await,
            _ => return Err(()),
        };
        match outcome {
            Ok(line) => println!("{line}"),
            Err(error) => println!("error: {error:?}"),
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<IpSocketAddress, ErrorCode> {
    match text.parse().map_err(|_| ErrorCode::InvalidArgument)? {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            Ok(IpSocketAddress::Ipv4(Ipv4SocketAddress { port: v4.port(), address: (a, b, c, d) }))
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let address = (a, b, c, d, e, f, g, h);
            Ok(IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: v6.port(),
                flow_info: 0,
                address,
                scope_id: 0,
            }))
        }
    }
}

fn show(address: Result<IpSocketAddress, ErrorCode>) -> String {
    match address {
        Ok(IpSocketAddress::Ipv4(v4)) => format!("{}:{}", ip(IpAddress::Ipv4(v4.address)), v4.port),
        Ok(IpSocketAddress::Ipv6(v6)) => format!("[{}]:{}", ip(IpAddress::Ipv6(v6.address)), v6.port),
        Err(error) => format!("{error:?}"),
    }
}

fn ip(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).into(),
    }
}

fn family(address: &IpSocketAddress) -> IpAddressFamily {
    match address {
        IpSocketAddress::Ipv4(_) => IpAddressFamily::Ipv4,
        IpSocketAddress::Ipv6(_) => IpAddressFamily::Ipv6,
    }
}

fn local(socket: &TcpSocket) -> String {
    show(socket.get_local_address())
}

fn port(address: Result<IpSocketAddress, ErrorCode>) -> u16 {
    match address {
        Ok(IpSocketAddress::Ipv4(v4)) => v4.port,
        Ok(IpSocketAddress::Ipv6(v6)) => v6.port,
        Err(_) => 0,
    }
}

/// A socket that listens as long as nobody drops it.
fn listener(address: &str) -> Result<TcpSocket, ErrorCode> {
    let socket = if address == "-" {
        TcpSocket::create(IpAddressFamily::Ipv4)?
    } else {
        let address = parse(address)?;
        let socket = TcpSocket::create(family(&address))?;
        socket.bind(address)?;
        socket
    };
    drop(socket.listen()?);
    Ok(socket)
}

async fn connect(address: &str) -> Result<String, ErrorCode> {
    let address = parse(address)?;
    let socket = TcpSocket::create(family(&address))?;
    socket.connect(address).await?;
    Ok(format!("{} -> {}", local(&socket), show(socket.get_remote_address())))
}

async fn loopback(listen: &str, to: &str) -> Result<String, ErrorCode> {
    let address = parse(listen)?;
    let server = TcpSocket::create(family(&address))?;
    server.bind(address)?;
    let mut clients = server.listen()?;
    let client = TcpSocket::create(IpAddressFamily::Ipv4)?;
    client.connect(parse(&format!("{to}:{}", port(server.get_local_address())))?).await?;
    let accepted = clients.next().await.ok_or(ErrorCode::ConnectionAborted)?;
    let (mut writer, reader) = wit_stream::new();
    let sent = client.send(reader);
    writer.write_all(b"x".to_vec()).await;
    let (mut received, _) = accepted.receive();
    if received.next().await != Some(b'x') {
        return Err(ErrorCode::ConnectionBroken);
    }
    drop((writer, sent));
    let peer = show(accepted.get_remote_address());
    Ok(format!("{} -> {}, seen as {peer}", local(&client), show(client.get_remote_address())))
}

fn udp(local: &str, remote: &IpSocketAddress) -> Result<UdpSocket, ErrorCode> {
    let socket = UdpSocket::create(family(remote))?;
    if local != "-" {
        socket.bind(parse(local)?)?;
    }
    Ok(socket)
}

async fn udp_call(local: &str, remote: &str, text: &str) -> Result<String, ErrorCode> {
    let remote = parse(remote)?;
    let socket = udp(local, &remote)?;
    socket.send(text.as_bytes().to_vec(), Some(remote)).await?;
    let (answer, peer) = socket.receive().await?;
    Ok(format!("{} from {}", String::from_utf8_lossy(&answer), show(Ok(peer))))
}

async fn udp_connect(local: &str, remote: &str, text: &str) -> Result<String, ErrorCode> {
    let remote = parse(remote)?;
    let socket = udp(local, &remote)?;
    socket.connect(remote)?;
    socket.send(text.as_bytes().to_vec(), None).await?;
    let (answer, _) = socket.receive().await?;
    let ends = (show(socket.get_local_address()), show(socket.get_remote_address()));
    let own = ends.0.rsplit_once(':').map_or("", |(ip, _)| ip);
    Ok(format!("{}: {own} -> {}", String::from_utf8_lossy(&answer), ends.1))
}

async fn udp_loopback(listen: &str, to: &str) -> Result<String, ErrorCode> {
    let address = parse(listen)?;
    let server = UdpSocket::create(family(&address))?;
    server.bind(address)?;
    let client = UdpSocket::create(IpAddressFamily::Ipv4)?;
    let target = parse(&format!("{to}:{}", port(server.get_local_address())))?;
    client.send(b"ping".to_vec(), Some(target)).await?;
    let (_, peer) = server.receive().await?;
    Ok(show(Ok(peer)).rsplit_once(':').map_or_else(String::new, |(ip, _)| ip.to_owned()))
}

async fn resolve(name: &str) -> Result<(), ()> {
    match ip_name_lookup::resolve_addresses(name.to_owned()).await {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.into_iter().map(|address| ip(address).to_string()).collect();
            println!("{}", addresses.join(" "));
        }
        Err(error) => println!("error: {error:?}"),
    }
    Ok(())
}
