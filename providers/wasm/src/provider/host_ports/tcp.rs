//! TCP: each connection is joined to one of its own into the pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once through one host port; more wait. Stops clients that use up the node's descriptors.
const MOST_CONNECTIONS: usize = 1024;

/// Takes connections until it is dropped. Those that it has taken go on in `tasks` until `closed`.
pub(super) async fn forward(
    listener: std::net::TcpListener,
    target: SocketAddr,
    tasks: TaskTracker,
    closed: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, %target, "a host port does not work"),
    };
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                let closed = closed.clone();
                tasks.spawn(async move {
                    closed.run_until_cancelled(relay(client, target)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, %target, "cannot accept a connection to a host port");
                tokio::time::sleep(Duration::from_millis(100)).await;
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
