//! `hostPort`: ports of the node that lead into a pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{Error, PortMapping, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::network::PodNet;

/// Connections at once through one host port; more wait. Stops clients that use up the node's descriptors.
const MOST_CONNECTIONS: usize = 1024;

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
            let forward = Forward {
                listener: net.listen_host_port(mapping)?,
                target: SocketAddr::new(ip, mapping.container_port),
                tasks: this.tasks.clone(),
                closed: this.closed.clone(),
            };
            this.tasks.spawn_on(this.closed.clone().run_until_cancelled_owned(forward.run()), io);
        }
        Ok(this)
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

struct Forward {
    listener: std::net::TcpListener,
    target: SocketAddr,
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl Forward {
    async fn run(self) {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!(%error, target = %self.target, "a host port does not work"),
        };
        let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(slot) = slots.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((client, _)) => {
                    let closed = self.closed.clone();
                    let target = self.target;
                    self.tasks.spawn(async move {
                        closed.run_until_cancelled(relay(client, target)).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, target = %self.target, "cannot accept a connection to a host port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Joins two connections until both ends are done. A pod that does not listen looks like a closed port.
async fn relay(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut pod) = TcpStream::connect(target).await {
        let _ = client.set_nodelay(true);
        let _ = pod.set_nodelay(true);
        // A connection that breaks is no news.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
    }
}
