//! Between a client and the ports of a pod.

use std::sync::Arc;

use coracle_core::host::HostInterface;
use coracle_core::sessions::PodTarget;
use coracle_provider::PortConnection;
use coracle_streaming::portforward::{Forward, Handshake};
use tokio::io::{copy_bidirectional, join};
use tokio::task::JoinSet;
use tracing::debug;

/// Forwards connections until the client is gone.
pub(super) async fn run(handshake: Handshake, host: Arc<dyn HostInterface>, target: PodTarget) {
    let mut forwarder = match handshake.forwarder().await {
        Ok(forwarder) => forwarder,
        Err(error) => {
            debug!(%error, "forwarding ports came to nothing");
            return;
        }
    };
    let target = Arc::new(target);
    // They end with this future.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = forwarder.next() => match next {
                Some(forward) => drop(connections.spawn(connect(forward, host.clone(), target.clone()))),
                None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut forward: Forward, host: Arc<dyn HostInterface>, target: Arc<PodTarget>) {
    let port = forward.port();
    let error = match host.port_forward(&target, port).await {
        Ok(PortConnection { read, write }) => {
            // A connection that breaks is the business of its two ends.
            let _ = copy_bidirectional(&mut forward, &mut join(read, write)).await;
            return;
        }
        Err(error) => error.to_string(),
    };
    let uid = target.uid.as_deref().unwrap_or_default();
    let message = format!("error forwarding port {port} to pod {}, uid {uid}: {error}", target.name);
    // The client may be gone.
    let _ = forward.fail(&message).await;
}
