//! UDP: each client gets a socket of its own towards the pod, through which answers find the way back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client whom the pod has not answered for so long is forgotten; its next datagram makes it known again.
const IDLE: Duration = Duration::from_secs(90);
/// Clients at once through one host port. Datagrams of more are lost, as datagrams may be.
const MOST_CLIENTS: usize = 1024;
/// No datagram is longer.
const LONGEST_DATAGRAM: usize = 65_535;

/// The sockets towards the pod, by client.
type Flows = Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>;

struct Forward {
    socket: UdpSocket,
    target: SocketAddr,
    flows: Flows,
    tasks: TaskTracker,
    closed: CancellationToken,
}

/// Takes datagrams until it is dropped. Answers go back, in `tasks`, until `closed`.
pub(super) async fn forward(
    socket: std::net::UdpSocket,
    target: SocketAddr,
    tasks: TaskTracker,
    closed: CancellationToken,
) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, %target, "a host port does not work"),
    };
    Arc::new(Forward { socket, target, flows: Flows::default(), tasks, closed }).run().await;
}

impl Forward {
    async fn run(self: Arc<Self>) {
        let mut datagram = vec![0; LONGEST_DATAGRAM];
        loop {
            let received = self.socket.recv_from(&mut datagram).await;
            let sent = match received {
                Ok((length, client)) => self.clone().send(client, &datagram[..length]).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                // One that the pod refused, or one too many: the next may do better.
                tracing::debug!(%error, target = %self.target, "a datagram to a host port is lost");
            }
        }
    }

    async fn send(self: Arc<Self>, client: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let known = self.flows.lock().get(&client).cloned();
        let flow = match known {
            Some(flow) => flow,
            None => self.begin(client).await?,
        };
        flow.send(datagram).await.map(drop)
    }

    async fn begin(self: Arc<Self>, client: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if self.flows.lock().len() >= MOST_CLIENTS {
            return Err(io::Error::other("there are too many clients"));
        }
        let any: IpAddr = match self.target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let flow = Arc::new(UdpSocket::bind(SocketAddr::new(any, 0)).await?);
        flow.connect(self.target).await?;
        // Only `run` begins flows, one after the other.
        self.flows.lock().insert(client, flow.clone());
        let (tasks, closed, answers) = (self.tasks.clone(), self.closed.clone(), flow.clone());
        tasks.spawn(async move {
            closed.run_until_cancelled(self.answer(client, &answers)).await;
            self.flows.lock().remove(&client);
        });
        Ok(flow)
    }

    /// Hands the pod's answers to a client, until there are none for a while. A pod that does not listen ends it.
    async fn answer(&self, client: SocketAddr, flow: &UdpSocket) {
        let mut datagram = vec![0; LONGEST_DATAGRAM];
        while let Ok(Ok(length)) = tokio::time::timeout(IDLE, flow.recv(&mut datagram)).await {
            if let Err(error) = self.socket.send_to(&datagram[..length], client).await {
                tracing::debug!(%error, %client, "an answer from a host port is lost");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    struct World {
        host_port: SocketAddr,
        pod: UdpSocket,
        tasks: TaskTracker,
        closed: CancellationToken,
    }

    impl World {
        async fn new() -> Self {
            let pod = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let host_port = socket.local_addr().unwrap();
            let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
            let run = forward(socket, pod.local_addr().unwrap(), tasks.clone(), closed.clone());
            tasks.spawn(closed.clone().run_until_cancelled_owned(run));
            Self { host_port, pod, tasks, closed }
        }

        async fn client(&self) -> UdpSocket {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(self.host_port).await.unwrap();
            client
        }
    }

    async fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
        let mut datagram = [0; 64];
        let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut datagram));
        let (length, from) = received.await.expect("nothing came").unwrap();
        (String::from_utf8(datagram[..length].to_vec()).unwrap(), from)
    }

    #[tokio::test]
    async fn each_client_gets_its_own_answers_from_the_host_port() {
        let world = World::new().await;
        let clients = [world.client().await, world.client().await];
        for (client, name) in clients.iter().zip(["a", "b"]) {
            client.send(name.as_bytes()).await.unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (text, from) = receive(&world.pod).await;
            world.pod.send_to(format!("to {text}").as_bytes(), from).await.unwrap();
            seen.push(from);
        }
        assert_ne!(seen[0], seen[1]);
        for (client, name) in clients.iter().zip(["a", "b"]) {
            assert_eq!(receive(client).await, (format!("to {name}"), world.host_port));
        }
        clients[0].send(b"again").await.unwrap();
        let (_, from) = receive(&world.pod).await;
        assert!(seen.contains(&from), "the pod sees a client as one as long as it talks");
    }

    #[tokio::test]
    async fn it_ends_when_it_is_closed() {
        let world = World::new().await;
        let client = world.client().await;
        client.send(b"x").await.unwrap();
        receive(&world.pod).await;
        world.closed.cancel();
        world.tasks.close();
        tokio::time::timeout(PATIENCE, world.tasks.wait()).await.unwrap();
        std::net::UdpSocket::bind(world.host_port).unwrap();
    }
}
