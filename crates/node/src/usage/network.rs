//! The machine's network interfaces.

use coracle_provider::InterfaceStats;

use crate::error::NodeError;
use crate::files::Files;

pub(super) const DEV: &str = "proc/self/net/dev";
pub(super) const ROUTE: &str = "proc/self/net/route";

/// What interfaces of pods, and those that lead nowhere, are called (cAdvisor's `isIgnoredDevice`, and bridges).
const IGNORED: [&str; 6] = ["lo", "veth", "docker", "nerdctl", "cali", "cora"];

/// What the interfaces have carried, the one with the default route first.
pub(super) fn interfaces(files: &Files) -> Result<Vec<InterfaceStats>, NodeError> {
    let dev = files.read(DEV)?;
    let mut interfaces: Vec<_> = dev.lines().filter_map(interface).collect();
    // Without IPv4 there may be no such file.
    let default = files.read(ROUTE).ok().as_deref().and_then(default_interface).map(str::to_owned);
    interfaces.sort_by_key(|interface| default.as_ref() != Some(&interface.name));
    Ok(interfaces)
}

/// A line: the name, 8 numbers of what was received, and 8 of what was sent. The first of each is bytes, the third errors.
fn interface(line: &str) -> Option<InterfaceStats> {
    let (name, numbers) = line.split_once(':')?;
    let name = name.trim();
    if IGNORED.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
    Some(InterfaceStats {
        name: name.to_owned(),
        rx_bytes: *numbers.first()?,
        rx_errors: *numbers.get(2)?,
        tx_bytes: *numbers.get(8)?,
        tx_errors: *numbers.get(10)?,
    })
}

/// The interface of the route to 0.0.0.0.
fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then_some(name)
    })
}
