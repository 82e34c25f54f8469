//! `hostPort`: ports of the node that lead into a pod.

mod tcp;
mod udp;

use std::net::SocketAddr;
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
            let ip = net.primary_ip().ok_or_else(|| Error::internal(format!("{net} has no address")))?;
            // What a pod on the node's own addresses listens on is a port of the node already.
            let is_there = is_on_node && mapping.host_ip.is_none_or(|host_ip| host_ip == ip);
            if is_there && mapping.host_port == mapping.container_port {
                continue;
            }
            let target = SocketAddr::new(ip, mapping.container_port);
            let (tasks, closed) = (this.tasks.clone(), this.closed.clone());
            if mapping.protocol == Protocol::Udp {
                let socket = net.bind_host_port(mapping)?;
                this.spawn(udp::forward(socket, target, tasks, closed), io);
            } else {
                let listener = net.listen_host_port(mapping)?;
                this.spawn(tcp::forward(listener, target, tasks, closed), io);
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

impl Drop for HostPorts {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
