//! `hostPort`: ports of the node that lead into a pod.

mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use coracle_provider::{Error, PortMapping, Protocol, Result};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::network::PodNet;

/// The open host ports of a sandbox. Dropping it closes them and the connections through them.
#[derive(Default)]
pub(super) struct HostPorts {
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl HostPorts {
    /// Listens on all of them, or fails on the first one that cannot be had.
    pub(super) fn open(net: &Arc<PodNet>, mappings: &[PortMapping], io: &Handle) -> Result<Self> {
        let this = Self::default();
        let is_on_node = net.ips().is_empty();
        for mapping in mappings {
            for (mapping, target) in ways(net, mapping)? {
                // What a pod on the node's own addresses listens on is a port of the node already.
                let is_there =
                    is_on_node && mapping.host_ip.is_none_or(|ip| ip.is_unspecified() || ip == target.ip());
                if is_there && mapping.host_port == mapping.container_port {
                    continue;
                }
                let (tasks, closed) = (this.tasks.clone(), this.closed.clone());
                if mapping.protocol == Protocol::Udp {
                    let socket = net.bind_host_port(&mapping)?;
                    this.spawn(udp::forward(socket, target, tasks, closed), io);
                } else {
                    let listener = net.listen_host_port(&mapping)?;
                    this.spawn(tcp::forward(listener, target, tasks, closed), io);
                }
            }
        }
        Ok(this)
    }

    fn spawn(&self, forward: impl Future<Output = ()> + Send + 'static, io: &Handle) {
        self.tasks.spawn_on(self.closed.clone().run_until_cancelled_owned(forward), io);
    }

    /// Closes them, and waits until they are.
    pub(super) async fn close(self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Where the node listens for a mapping, and where in the pod that leads: without a `hostIP` to all of the node's addresses
/// of each family that the pod has.
fn ways(net: &PodNet, mapping: &PortMapping) -> Result<Vec<(PortMapping, SocketAddr)>> {
    let ips = net.reached_at();
    let primary = *ips.first().ok_or_else(|| Error::internal(format!("{net} has no address")))?;
    let to = |host_ip: Option<IpAddr>, ip: IpAddr| {
        (PortMapping { host_ip, ..mapping.clone() }, SocketAddr::new(ip, mapping.container_port))
    };
    Ok(match mapping.host_ip {
        Some(host_ip) => {
            let same_family = ips.iter().find(|ip| ip.is_ipv4() == host_ip.is_ipv4());
            vec![to(Some(host_ip), *same_family.unwrap_or(&primary))]
        }
        None => ips.iter().map(|ip| to(Some(unspecified_like(*ip)), *ip)).collect(),
    })
}

fn unspecified_like(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

impl Drop for HostPorts {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
