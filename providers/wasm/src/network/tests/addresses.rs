//! Addresses, routes and what is left of them.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use coracle_provider::{ErrorKind, NetworkMode, PortMapping, Protocol};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::super::namespace::Namespace;
use super::super::netlink::{MAIN_TABLE, Netlink, VethEnd};
use super::super::{DEFAULT_BLOCK, Network, NetworkConfig, NetworkError, PodRangeConfig};
use super::bed::{
    GuestRuntime, NODE_IP, RANGE, address_mode_config, ask, eventually, forwarded, interfaces, listen,
    on_a_machine, pod_network, sandbox, set, tell_peers,
};

#[test]
fn the_node_reaches_a_hundred_pods_on_one_port_from_its_own_address() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pods: Vec<_> =
            (0..100).map(|i| network.attach_at_once(&sandbox(&format!("pod-{i}"))).unwrap()).collect();
        let mut seen = HashSet::new();
        for pod in &pods {
            tell_peers(listen(pod, 8080));
        }
        for pod in &pods {
            let ip = pod.ips()[0];
            assert!(seen.insert(ip));
            assert_eq!(ask((ip, 8080)).unwrap(), NODE_IP);
        }
        // An address that no pod listens on answers, too: with a refusal.
        let mut others = (2..=200).map(|last| IpAddr::from(Ipv4Addr::new(10, 99, 7, last)));
        let free = others.find(|ip| !seen.contains(ip)).unwrap();
        let refused = ask((free, 8080)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn pods_and_the_node_have_their_ports_for_themselves() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let _everywhere = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        let _in_pod = listen(&pod, 8080);
        let twice = pod.listen_tcp(8080).unwrap_err();
        assert_eq!(twice.kind, ErrorKind::AlreadyExists);
        assert_eq!(twice.message, "port 8080 of pod default/web is in use already");
    });
}

#[test]
fn traffic_between_pods_passes_the_node() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let [from, to] = ["from", "to"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        tell_peers(listen(&to, 80));
        let guests = GuestRuntime::new(&network);
        let (source, target) = (SocketAddr::new(from.ips()[0], 0), SocketAddr::new(to.ips()[0], 80));
        let connect = || guests.run(connect_from(source, target));

        let before = forwarded();
        assert!(connect().await.is_ok());
        assert!(forwarded() > before);

        let interface = &interfaces()[0];
        set(&format!("ipv4/conf/{interface}/forwarding"), "0");
        assert!(connect().await.is_err());
        assert_eq!(ask(target).unwrap(), NODE_IP, "the node itself has nothing to forward");

        set(&format!("ipv4/conf/{interface}/forwarding"), "1");
        assert!(connect().await.is_ok());
    });
}

#[test]
fn pods_reach_the_node_but_not_its_loopback() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        tell_peers(std::net::TcpListener::bind("127.0.0.1:7000").unwrap());
        tell_peers(std::net::TcpListener::bind((NODE_IP, 7001)).unwrap());
        let guests = GuestRuntime::new(&network);
        let source = SocketAddr::new(pod.ips()[0], 0);
        assert!(guests.run(connect_from(source, (NODE_IP, 7001).into())).await.is_ok());
        // The kernel alone keeps them apart, whatever a guest's host does.
        assert!(guests.run(connect_from(source, ([127, 0, 0, 1], 7000).into())).await.is_err());
        assert_eq!(ask(([127, 0, 0, 1], 7000)).unwrap(), Ipv4Addr::LOCALHOST);
    });
}

#[test]
fn nothing_is_left_when_the_network_is_gone() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let listener = listen(&pod, 80);
        let guests = GuestRuntime::new(&network);
        assert_eq!(interfaces(), ["cora0a630700"]);
        drop((network, pod, listener, guests));
        eventually("the end of the interface", || interfaces().is_empty()).await;
        assert!(routes_to_pods().await.is_empty());

        let again = pod_network().await;
        again.remove().await.unwrap();
        assert!(interfaces().is_empty());
        assert!(routes_to_pods().await.is_empty());
    });
}

#[test]
fn a_range_is_for_one_agent_at_a_time() {
    on_a_machine(|| async {
        let first = pod_network().await;
        let second = Network::detect(address_mode_config()).await.unwrap_err();
        assert!(second.to_string().contains("another agent"), "{second}");
        assert_eq!(interfaces().len(), 1, "the first one's is untouched");
        drop(first);
        pod_network().await;
    });
}

#[test]
fn an_assigned_range_in_use_is_an_error() {
    on_a_machine(|| async {
        let netlink = Netlink::connect().unwrap();
        let lo = netlink.index_of("lo").await.unwrap().unwrap();
        netlink.add_address(lo, [10, 99, 7, 77].into()).await.unwrap();
        let error = Network::detect(address_mode_config()).await.unwrap_err();
        assert!(
            matches!(&error, NetworkError::RangeInUse { by, .. } if by.contains("10.99.7.77/32")),
            "{error}"
        );
        assert!(interfaces().is_empty());
    });
}

#[test]
fn processes_without_a_range_find_different_ones() {
    on_a_machine(|| async {
        let netlink = Netlink::connect().unwrap();
        let lo = netlink.index_of("lo").await.unwrap().unwrap();
        let taken = "10.203.1.0/25".parse().unwrap();
        netlink.add_route(taken, [192, 0, 2, 99].into(), lo, None, MAIN_TABLE).await.unwrap();
        let config =
            NetworkConfig { pod_range: PodRangeConfig::FirstFree(DEFAULT_BLOCK), ..NetworkConfig::default() };
        let (a, b) = tokio::join!(Network::detect(config.clone()), Network::detect(config));
        let mut ranges = [a.unwrap(), b.unwrap()].map(|network| network.pod_ranges()[0].to_string());
        ranges.sort();
        assert_eq!(ranges, ["10.203.0.0/24", "10.203.2.0/24"]);
    });
}

#[test]
fn a_machine_without_an_address_gives_the_range_one() {
    on_a_machine(|| async {
        let config = NetworkConfig {
            pod_range: PodRangeConfig::FirstFree(DEFAULT_BLOCK),
            node_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ..NetworkConfig::default()
        };
        let network = Network::detect(config).await.unwrap();
        let [from, to] = ["from", "to"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        tell_peers(listen(&to, 80));
        let target = SocketAddr::new(to.ips()[0], 80);
        let gateway = Ipv4Addr::new(10, 203, 0, 1);
        assert_eq!(ask(target).unwrap(), gateway);

        tell_peers(std::net::TcpListener::bind((gateway, 7000)).unwrap());
        let guests = GuestRuntime::new(&network);
        let source = SocketAddr::new(from.ips()[0], 0);
        assert!(guests.run(connect_from(source, target)).await.is_ok());
        assert!(guests.run(connect_from(source, (gateway, 7000).into())).await.is_ok());
    });
}

#[test]
fn pods_of_a_range_that_nobody_knows_show_the_nodes_address() {
    on_a_machine(|| async {
        let elsewhere = Elsewhere::join_by_a_wire().await;
        for (pod_range, reached) in [
            (PodRangeConfig::FirstFree(DEFAULT_BLOCK), true),
            (PodRangeConfig::Assigned(vec![RANGE.parse().unwrap()]), false),
        ] {
            let network =
                Network::detect(NetworkConfig { pod_range, ..address_mode_config() }).await.unwrap();
            let pod = network.attach_at_once(&sandbox("web")).unwrap();
            let guests = GuestRuntime::new(&network);
            let source = SocketAddr::new(pod.ips()[0], 0);
            let outcome = guests.run(connect_from(source, elsewhere.listener)).await;
            assert_eq!(outcome.is_ok(), reached);
            assert_eq!(elsewhere.last_peer(), reached.then_some(Elsewhere::NODE.into()));
        }
    });
}

#[test]
fn a_node_that_forwards_nothing_keeps_pods_on_its_own_addresses() {
    on_a_machine(|| async {
        // What a firewall may do, done by other means.
        set("ipv4/ip_forward", "1");
        set("ipv4/conf/default/forwarding", "0");
        let first_free = PodRangeConfig::FirstFree(DEFAULT_BLOCK);
        let network =
            Network::detect(NetworkConfig { pod_range: first_free, ..address_mode_config() }).await.unwrap();
        assert!(network.pod_ranges().is_empty());
        eventually("the end of the interface", || interfaces().is_empty()).await;

        // Who assigned a range will see to the firewall, too.
        pod_network().await;
    });
}

#[test]
fn without_the_rights_pods_use_the_node() {
    on_a_machine(|| async {
        let mine = capabilities(None).unwrap();
        let fewer = mine.effective - CapabilitySet::NET_ADMIN - CapabilitySet::SYS_ADMIN;
        set_capabilities(None, CapabilitySets { effective: fewer, ..mine }).unwrap();
        let network = Network::detect(address_mode_config()).await.unwrap();
        assert!(network.pod_ranges().is_empty());
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        // What was asked for is answered with what there is.
        assert_eq!((pod.network().mode, pod.ips()), (NetworkMode::Pod, vec![]));
        assert_eq!(pod.network().ips, address_mode_config().node_addresses);
        let listener = listen(&pod, 8080);
        assert_eq!(listener.local_addr().unwrap(), (NODE_IP, 8080).into());
    });
}

#[test]
fn host_ports_and_host_networks_are_the_nodes() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let mapping =
            PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None };
        tell_peers(pod.listen_host_port(&mapping).unwrap());
        assert_eq!(ask((NODE_IP, 8080)).unwrap(), NODE_IP);
        let twice = pod.listen_host_port(&mapping).unwrap_err();
        assert_eq!(twice.kind, ErrorKind::AlreadyExists);
        assert!(twice.message.contains("hostPort 0.0.0.0:8080"), "{twice}");
        let udp = PortMapping { protocol: Protocol::Udp, ..mapping };
        assert_eq!(pod.listen_host_port(&udp).unwrap_err().kind, ErrorKind::Unimplemented);

        let mut config = sandbox("agent");
        config.network = NetworkMode::Node;
        let agent = network.attach_at_once(&config).unwrap();
        assert!(!agent.needs_pod_threads());
        assert_eq!(agent.network().mode, NetworkMode::Node);
        assert_eq!(listen(&agent, 9000).local_addr().unwrap(), (NODE_IP, 9000).into());
    });
}

#[test]
fn an_address_goes_back_when_it_is_released() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let ip = pod.ips()[0];
        assert_eq!(network.keep("uid-web", &[ip]).unwrap_err().kind, ErrorKind::AlreadyExists);
        pod.release();
        assert!(pod.listen_tcp(80).is_err());
        network.keep("uid-web", &[ip]).unwrap();
        assert_eq!(network.attach_at_once(&sandbox("web")).unwrap().ips(), [ip]);
    });
}

#[test]
fn port_forward_reaches_the_pods_loopback() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        tell_peers(listen(&pod, 80));
        let connection = pod.connect_loopback(80).await.unwrap();
        assert_eq!(connection.peer_addr().unwrap(), SocketAddr::new(pod.ips()[0], 80));
        assert!(connection.local_addr().unwrap().ip().is_loopback());
        let nothing = pod.connect_loopback(81).await.unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::ConnectionRefused);
    });
}

async fn connect_from(source: SocketAddr, target: SocketAddr) -> io::Result<()> {
    let socket = match source {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.bind(source)?;
    let limit = std::time::Duration::from_secs(1);
    tokio::time::timeout(limit, socket.connect(target)).await??;
    Ok(())
}

async fn routes_to_pods() -> Vec<IpAddr> {
    let routes = Netlink::connect().unwrap().destinations(RANGE.parse().unwrap()).await.unwrap();
    routes
        .iter()
        .map(|route| route.network())
        .filter(|ip: &IpAddr| ip.to_string().starts_with("10."))
        .collect()
}

/// Another machine, which knows no way to pods.
struct Elsewhere {
    listener: SocketAddr,
    peers: std::sync::mpsc::Receiver<IpAddr>,
    _namespace: std::sync::Arc<Namespace>,
}

impl Elsewhere {
    /// This machine's address at the wire.
    const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    async fn join_by_a_wire() -> Self {
        let namespace = Namespace::create().unwrap();
        let (here, there) = (Netlink::connect().unwrap(), Netlink::connect_in(&namespace).unwrap());
        let end = |name, last| VethEnd { name, mac: [2, 0, 0, 0, 1, last] };
        here.add_veth(end("wire0", 1), end("wire1", 2), &namespace, None).await.unwrap();
        for (netlink, interface, own, other) in
            [(&here, "wire0", Self::NODE, Self::OTHER), (&there, "wire1", Self::OTHER, Self::NODE)]
        {
            let index = netlink.set_up(interface).await.unwrap();
            let (own, other) = (IpAddr::from(own), IpAddr::from(other));
            netlink.add_address(index, own).await.unwrap();
            netlink.add_route(other.into(), other, index, Some(own), MAIN_TABLE).await.unwrap();
        }
        here.wait_until_running("wire0").await.unwrap();
        there.wait_until_running("wire1").await.unwrap();

        let listener = namespace.run(|| std::net::TcpListener::bind((Self::OTHER, 7000))).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, peers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((_, peer)) = listener.accept() {
                if sender.send(peer.ip()).is_err() {
                    return;
                }
            }
        });
        Self { listener: address, peers, _namespace: namespace }
    }

    fn last_peer(&self) -> Option<IpAddr> {
        self.peers.recv_timeout(std::time::Duration::from_millis(200)).ok()
    }
}
