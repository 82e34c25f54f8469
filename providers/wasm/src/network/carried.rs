//! What the networks of pods have carried, as the kernel counts it for each interface.

use std::fs;
use std::io;

use coracle_provider::InterfaceStats;

use super::namespace::Namespace;
use super::pod::PodNet;
use super::policy::Place;

/// The counters of the interfaces in the namespace of the thread that reads it.
const DEV: &str = "/proc/thread-self/net/dev";

impl PodNet {
    /// What the pod's interfaces have carried, the one that CNI makes first; none unless the pod has a namespace of its
    /// own: others share their interfaces with pods or with the node.
    pub fn carried(&self) -> Option<io::Result<Vec<InterfaceStats>>> {
        let namespace = self.namespace.as_ref().filter(|_| matches!(self.place, Place::Namespace { .. }))?;
        Some(carried_in(namespace))
    }
}

fn carried_in(namespace: &Namespace) -> io::Result<Vec<InterfaceStats>> {
    let dev = namespace.run(|| fs::read_to_string(DEV))??;
    let mut interfaces: Vec<_> = dev.lines().filter_map(interface).filter(|it| it.name != "lo").collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(interfaces)
}

/// A line: the name, 8 numbers of what was received, and 8 of what was sent. The first of each is bytes, the third errors.
fn interface(line: &str) -> Option<InterfaceStats> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
    Some(InterfaceStats {
        name: name.trim().to_owned(),
        rx_bytes: *numbers.first()?,
        rx_errors: *numbers.get(2)?,
        tx_bytes: *numbers.get(8)?,
        tx_errors: *numbers.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = "  eth0: 1000 10 1 0 0 0 0 0 2000 20 2 0 0 0 0 0";
        let expected = InterfaceStats {
            name: "eth0".into(),
            rx_bytes: 1000,
            rx_errors: 1,
            tx_bytes: 2000,
            tx_errors: 2,
        };
        assert_eq!(interface(line), Some(expected));
        for line in ["Inter-|   Receive  |  Transmit", " face |bytes packets", "eth0: 1 2 3", ""] {
            assert_eq!(interface(line), None, "{line}");
        }
    }

    #[test]
    fn the_interfaces_of_a_namespace_are_those_in_it() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED, needs root: network namespaces");
            return;
        }
        let namespace = Namespace::create().unwrap();
        assert_eq!(carried_in(&namespace).unwrap(), []);
        let made = namespace.run(|| {
            let add = ["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"];
            Command::new("ip").args(add).status()
        });
        assert!(made.unwrap().unwrap().success());
        let names: Vec<_> = carried_in(&namespace).unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["eth0", "eth1"]);
    }
}
