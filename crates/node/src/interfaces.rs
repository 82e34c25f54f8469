//! Network interfaces and default routes, as the kernel lists them.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::error::NodeError;
use crate::files::Files;

const ROUTES_V4: &str = "proc/net/route";
const ROUTES_V6: &str = "proc/net/ipv6_route";

/// A network interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    pub(crate) point_to_point: bool,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Interfaces, in the kernel's order.
pub(crate) fn interfaces() -> Result<Vec<Interface>, NodeError> {
    let listed = getifaddrs().map_err(|error| NodeError::Interfaces(io::Error::from(error)))?;
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in listed {
        let known = interfaces.iter().position(|interface| interface.name == entry.interface_name);
        let index = known.unwrap_or_else(|| {
            interfaces.push(Interface {
                name: entry.interface_name.clone(),
                up: entry.flags.contains(InterfaceFlags::IFF_UP),
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                point_to_point: entry.flags.contains(InterfaceFlags::IFF_POINTOPOINT),
                addresses: Vec::new(),
            });
            interfaces.len() - 1
        });
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        interfaces[index].addresses.extend(address);
    }
    Ok(interfaces)
}

/// A default route: the interface that it leaves by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) interface: String,
    pub(crate) v6: bool,
}

/// Default routes, those of IPv4 first; none if the kernel has no table of routes.
pub(crate) fn default_routes(files: &Files) -> Result<Option<Vec<DefaultRoute>>, NodeError> {
    let v4 = match files.read(ROUTES_V4) {
        Ok(table) => table,
        Err(NodeError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let v6 = files.read(ROUTES_V6).unwrap_or_default();
    let v4 = v4.lines().filter_map(default_v4).map(|name| (name, false));
    let v6 = v6.lines().filter_map(default_v6).map(|name| (name, true));
    Ok(Some(v4.chain(v6).map(|(name, v6)| DefaultRoute { interface: name.to_owned(), v6 }).collect()))
}

/// `Iface Destination Gateway …`, addresses in hexadecimal.
fn default_v4(line: &str) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (name, destination) = (*fields.first()?, *fields.get(1)?);
    (destination == "00000000").then_some(name)
}

/// `destination length source length gateway metric … interface`. Without a gateway it is the kernel's own, on `lo`.
fn default_v6(line: &str) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let zero = |field: &str| field.bytes().all(|digit| digit == b'0');
    let (destination, gateway, name) = (*fields.first()?, *fields.get(4)?, *fields.get(9)?);
    (zero(destination) && !zero(gateway)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_in_the_kernels_tables() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        let files = Files::below(root.path());
        assert_eq!(default_routes(&files).unwrap(), None);

        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth6\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
        );
        std::fs::write(root.path().join(ROUTES_V4), v4).unwrap();
        std::fs::write(root.path().join(ROUTES_V6), v6).unwrap();
        let route = |interface: &str, v6| DefaultRoute { interface: interface.to_owned(), v6 };
        assert_eq!(default_routes(&files).unwrap(), Some(vec![route("eth0", false), route("eth6", true)]));
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let interfaces = interfaces().unwrap();
        let loopback = interfaces.iter().find(|interface| interface.loopback).unwrap();
        assert!(loopback.addresses.iter().all(IpAddr::is_loopback), "{loopback:?}");
    }
}
