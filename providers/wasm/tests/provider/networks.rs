//! Pods with addresses of their own. Each test has a machine for itself: a network namespace.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{
    ContainerConfig, ContainerState, NetworkMode, PortMapping, Protocol, RuntimeService, SandboxStatus,
};
use coracle_wasm::network::{Network, NetworkConfig, PodRangeConfig};
use http::StatusCode;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Builder;

use crate::client::Client;
use crate::support::{Host, guest, strings, within};

const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const LOOPBACK_DEVICE: u32 = 1;

/// Runs a test on a machine of its own. Without the rights to make one it says so, past the capture of output, and the
/// test counts for nothing.
fn on_a_machine<F: Future>(test: impl FnOnce(Network) -> F + Send + 'static) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let machine = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: {name} needs CAP_NET_ADMIN and CAP_SYS_ADMIN: {error}");
            return;
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let up = LinkUnspec::new_with_index(LOOPBACK_DEVICE).up().build();
            netlink.link().set(up).execute().await.unwrap();
            netlink.address().add(LOOPBACK_DEVICE, NODE_IP.into(), 32).execute().await.unwrap();
            let network = Network::detect(NetworkConfig {
                pod_range: PodRangeConfig::Assigned(vec!["10.99.7.0/24".parse().unwrap()]),
                node_addresses: vec![NODE_IP.into()],
                ..NetworkConfig::default()
            });
            test(network.await.unwrap()).await;
        });
    });
    if let Err(panic) = machine.join() {
        std::panic::resume_unwind(panic);
    }
}

fn address(sandbox: &SandboxStatus, port: u16) -> SocketAddr {
    SocketAddr::new(sandbox.network.ips[0], port)
}

/// A pod with a service on port 8080.
async fn serve(host: &Host, uid: &str, mode: NetworkMode, ports: Vec<PortMapping>) -> Arc<SandboxStatus> {
    let mut config = host.sandbox_config(uid);
    config.network = mode;
    config.port_mappings = ports;
    let sandbox = host.provider.run_sandbox(config).await.unwrap();
    let container = ContainerConfig {
        name: "c".into(),
        image_ref: host.pull(&guest("http")).await.unwrap(),
        serving_port: 8080,
        log_path: "c/0.log".into(),
        ..ContainerConfig::default()
    };
    let container = host.provider.create_container(&sandbox.id, container).await.unwrap();
    let started = host.provider.start_container(&container.id).await.unwrap();
    assert_eq!(started.state, ContainerState::Running, "{}", started.message);
    sandbox
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    Client::connect(address).await.get(path).await
}

#[test]
fn pods_serve_on_their_own_addresses_and_reach_each_other() {
    on_a_machine(async |network| {
        let host = Host::start_on(network).await;
        let one = serve(&host, "one", NetworkMode::Pod, vec![]).await;
        let two = serve(&host, "two", NetworkMode::Pod, vec![]).await;
        assert_ne!(one.network.ips, two.network.ips);
        for pod in [&one, &two] {
            assert_eq!(get(address(pod, 8080), "/x").await, (StatusCode::OK, "hello from wasm: /x\n".into()));
        }
        let answer = get(address(&one, 8080), &format!("/fetch/{}/y", address(&two, 8080))).await;
        assert_eq!(answer, (StatusCode::OK, "hello from wasm: /y\n".into()));

        host.provider.stop_sandbox(&one.id).await.unwrap();
        assert!(TcpStream::connect(address(&one, 8080)).await.is_err());
        assert_eq!(get(address(&two, 8080), "/").await.0, StatusCode::OK);
    });
}

#[test]
fn a_host_port_leads_into_the_pod_as_long_as_it_lives() {
    on_a_machine(async |network| {
        let host = Host::start_on(network).await;
        let mapping =
            PortMapping { protocol: Protocol::Tcp, container_port: 8080, host_port: 18080, host_ip: None };
        let sandbox = serve(&host, "one", NetworkMode::Pod, vec![mapping.clone()]).await;
        let on_node = SocketAddr::new(IpAddr::from(NODE_IP), 18080);
        assert_eq!(get(on_node, "/x").await, (StatusCode::OK, "hello from wasm: /x\n".into()));

        let mut second = host.sandbox_config("two");
        second.port_mappings = vec![mapping];
        let error = host.provider.run_sandbox(second.clone()).await.unwrap_err();
        assert!(error.message.contains("18080"), "{error}");

        host.provider.stop_sandbox(&sandbox.id).await.unwrap();
        assert!(TcpStream::connect(on_node).await.is_err());
        host.provider.run_sandbox(second).await.unwrap();
    });
}

#[test]
fn a_host_port_for_datagrams_leads_into_the_pod_and_back() {
    on_a_machine(async |network| {
        let host = Host::start_on(network).await;
        let mapping =
            PortMapping { protocol: Protocol::Udp, container_port: 5300, host_port: 15300, host_ip: None };
        let mut config = host.sandbox_config("dns");
        config.port_mappings = vec![mapping.clone()];
        let sandbox = host.provider.run_sandbox(config).await.unwrap();
        let container = ContainerConfig {
            name: "c".into(),
            image_ref: host.pull(&guest("sockets")).await.unwrap(),
            args: strings(&["udp-echo", "0.0.0.0:5300"]),
            log_path: "c/0.log".into(),
            ..ContainerConfig::default()
        };
        let container = host.provider.create_container(&sandbox.id, container).await.unwrap();
        host.provider.start_container(&container.id).await.unwrap();

        let on_node = SocketAddr::new(IpAddr::from(NODE_IP), 15300);
        let client = UdpSocket::bind((NODE_IP, 0)).await.unwrap();
        let answer = within(async {
            let mut answer = [0; 16];
            loop {
                // The guest may not listen yet, and then this is lost.
                client.send_to(b"ping", on_node).await.unwrap();
                let received = tokio::time::timeout(Duration::from_millis(50), client.recv_from(&mut answer));
                if let Ok(Ok((length, from))) = received.await {
                    return (answer[..length].to_vec(), from);
                }
            }
        });
        assert_eq!(answer.await, (b"ping".to_vec(), on_node));

        let mut second = host.sandbox_config("second");
        second.port_mappings = vec![mapping];
        let error = host.provider.run_sandbox(second.clone()).await.unwrap_err();
        assert!(error.message.contains("15300"), "{error}");
        host.provider.stop_sandbox(&sandbox.id).await.unwrap();
        host.provider.run_sandbox(second).await.unwrap();
    });
}

#[test]
fn a_pod_on_the_nodes_network_lives_beside_those_with_their_own() {
    on_a_machine(async |network| {
        let host = Host::start_on(network).await;
        let pod = serve(&host, "pod", NetworkMode::Pod, vec![]).await;
        let node = serve(&host, "node", NetworkMode::Node, vec![]).await;
        assert!(node.network.ips.is_empty());
        let on_node = SocketAddr::new(IpAddr::from(NODE_IP), 8080);
        let answer = get(on_node, &format!("/fetch/{}/x", address(&pod, 8080))).await;
        assert_eq!(answer, (StatusCode::OK, "hello from wasm: /x\n".into()));
    });
}
