//! A machine for a test, and what it takes to look at it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use coracle_provider::{PodRef, SandboxConfig};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::{Builder, Runtime};

use super::super::netlink::Netlink;
use super::super::{Network, NetworkConfig, PodNet, PodRangeConfig};

/// The machine's own address.
pub(super) const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The range that its pods get.
pub(super) const RANGE: &str = "10.99.7.0/24";
/// The machine's own address of the other family.
pub(super) const NODE_IP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The range that pods get where they have both families.
pub(super) const RANGE_V6: &str = "fd99:7::/64";

/// Runs a test on a machine of its own, with nothing but a loopback device and [`NODE_IP`]. Without the rights to make one it
/// says so, past the capture of output, and the test counts for nothing.
pub(in crate::network) fn on_a_machine<F: Future>(test: impl FnOnce() -> F + Send + 'static) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    let result = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: {name} needs CAP_NET_ADMIN and CAP_SYS_ADMIN: {error}");
            return;
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let netlink = Netlink::connect().unwrap();
            let lo = netlink.set_up("lo").await.unwrap();
            netlink.add_address(lo, NODE_IP.into()).await.unwrap();
            netlink.add_address(lo, NODE_IP_V6.into()).await.unwrap();
            test().await;
        });
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A network in which pods have addresses of their own.
pub(super) async fn pod_network() -> Network {
    let network = Network::detect(address_mode_config()).await.unwrap();
    assert_eq!(network.pod_ranges(), [RANGE.parse().unwrap()]);
    network
}

/// A network in which pods have addresses of these ranges.
pub(super) async fn network_of(ranges: &[&str]) -> Network {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let config = NetworkConfig {
        pod_range: PodRangeConfig::Assigned(ranges),
        node_addresses: vec![NODE_IP.into(), NODE_IP_V6.into()],
        ..NetworkConfig::default()
    };
    Network::detect(config).await.unwrap()
}

pub(super) fn address_mode_config() -> NetworkConfig {
    NetworkConfig {
        pod_range: PodRangeConfig::Assigned(vec![RANGE.parse().unwrap()]),
        node_addresses: vec![NODE_IP.into()],
        ..NetworkConfig::default()
    }
}

pub(super) fn sandbox(name: &str) -> SandboxConfig {
    SandboxConfig {
        pod: PodRef { uid: format!("uid-{name}"), namespace: "default".into(), name: name.into() },
        hostname: name.into(),
        ..SandboxConfig::default()
    }
}

/// A runtime whose threads are in the pods' network.
pub(super) struct GuestRuntime(Option<Runtime>);

impl GuestRuntime {
    pub(super) fn new(network: &Network) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(network.guest_thread_init())
            .build()
            .unwrap();
        Self(Some(runtime))
    }

    /// Runs a future on the runtime, at most for a few seconds.
    pub(super) async fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let task = self.0.as_ref().unwrap().spawn(future);
        tokio::time::timeout(Duration::from_secs(30), task).await.expect("it takes too long").unwrap()
    }

    /// Starts a future on the runtime.
    pub(super) fn start<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.0.as_ref().unwrap().spawn(future)
    }
}

impl Drop for GuestRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The listener of a pod with one address.
pub(super) fn listen(pod: &PodNet, port: u16) -> TcpListener {
    let [listener] = pod.listen_tcp(port).unwrap().try_into().unwrap();
    listener
}

/// Tells each that connects to a listener where it comes from.
pub(super) fn tell_peers(listener: TcpListener) {
    listener.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let peer = connection.peer_addr().unwrap();
            // Those that only want to connect have gone by now.
            let _ = connection.write_all(peer.to_string().as_bytes());
        }
    });
}

/// What a listener of [`tell_peers`] says: the address that this end has for it.
pub(super) fn ask(address: impl Into<SocketAddr>) -> std::io::Result<IpAddr> {
    let mut connection = TcpStream::connect_timeout(&address.into(), Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.parse::<SocketAddr>().unwrap().ip())
}

/// The machine's interfaces. Opening the folder through the thread's own view of /proc shows its own namespace.
pub(super) fn interfaces() -> Vec<String> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    devices.lines().filter_map(name).filter(|name| name.starts_with("cora")).collect()
}

/// Waits until a condition holds, for a few seconds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come about");
}

/// How many packets the machine has forwarded.
pub(super) fn forwarded() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut ip = counters.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
    let (names, values) = (ip.next().unwrap(), ip.next().unwrap());
    let (_, value) = names.zip(values).find(|(name, _)| *name == "ForwDatagrams").unwrap();
    value.parse().unwrap()
}

/// Changes a setting of the machine.
pub(super) fn set(setting: &str, value: &str) {
    std::fs::write(Path::new("/proc/sys/net").join(setting), value).unwrap();
}
