//! Opening connections.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::text;

/// Connects to the first address that answers. An error says which address did not, and why.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("dial tcp {address}: connect: {}", text::io_error(&error)),
        }
    }
    Err(last)
}

/// The same, within a time.
pub(crate) async fn dial_timeout(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    match timeout(limit, dial(host, port)).await {
        Ok(result) => result,
        Err(_) => Err(format!("dial tcp {}: i/o timeout", text::join_host_port(host, port))),
    }
}

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    match lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(format!("dial tcp: lookup {host}: {}", text::io_error(&error))),
    }
}
