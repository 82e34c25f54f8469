//! `wasi:sockets` as guests find it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{HostAlias, NetworkMode};
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::super::{Network, NetworkConfig, PodNet, add_to_linker};
use super::bed::{
    GuestRuntime, NODE_IP, address_mode_config, forwarded, listen, on_a_machine, pod_network, sandbox,
    tell_peers,
};
use super::guests::{
    Guest, SOCKETS, run_sockets, run_sockets_past_the_rewriting, sockets, sockets_for_version,
};

#[test]
fn a_guest_has_its_pods_addresses() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        let (ip, other_ip) = (pod.ips()[0], other.ips()[0]);
        for (bind, outcome) in [
            ("0.0.0.0:80", format!("{ip}:80")),
            (&*format!("{ip}:80"), format!("{ip}:80")),
            ("127.0.0.1:80", "127.0.0.1:80".into()),
            ("127.0.0.2:80", "error: AddrNotAvailable".into()),
            (&*format!("{other_ip}:80"), "error: AddrNotAvailable".into()),
            ("192.0.2.10:80", "error: AddrNotAvailable".into()),
            ("[::]:80", "error: AddrNotAvailable".into()),
        ] {
            assert_eq!(sockets(&guests, &pod, &format!("bind {bind}")).await, outcome, "{bind}");
        }
    });
}

#[test]
fn a_guest_reaches_the_node_and_other_pods_from_its_address() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        tell_peers(std::net::TcpListener::bind((NODE_IP, 7000)).unwrap());
        tell_peers(listen(&other, 7000));
        for target in [NODE_IP.into(), other.ips()[0]] {
            let outcome = sockets(&guests, &pod, &format!("connect {target}:7000")).await;
            assert!(outcome.starts_with(&format!("{}:", pod.ips()[0])), "{outcome}");
            assert!(outcome.ends_with(&format!("-> {target}:7000")), "{outcome}");
        }
    });
}

#[test]
fn what_is_not_the_guests_is_refused() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        // All of these would answer, were it not for the policy.
        tell_peers(std::net::TcpListener::bind("[::]:7000").unwrap());
        for (target, outcome) in [
            ("127.0.0.1:7000", "error: ConnectionRefused"),
            ("127.64.0.3:7000", "error: PermissionDenied"),
            ("127.0.0.53:7000", "error: PermissionDenied"),
            ("169.254.169.254:7000", "error: PermissionDenied"),
            ("169.254.1.1:7000", "error: PermissionDenied"),
            ("[::1]:7000", "error: PermissionDenied"),
            ("[::ffff:127.0.0.1]:7000", "error: PermissionDenied"),
            ("[2001:db8::1]:7000", "error: HostUnreachable"),
        ] {
            assert_eq!(sockets(&guests, &pod, &format!("connect {target}")).await, outcome, "{target}");
            // A datagram to the pod's own localhost is only lost.
            if target != "127.0.0.1:7000" {
                let datagram = sockets(&guests, &pod, &format!("udp-call 0.0.0.0:0 {target} x")).await;
                assert!(datagram.starts_with("error: "), "{target}: {datagram}");
            }
        }
    });
}

#[test]
fn localhost_is_within_the_pod() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let [a, b] = ["a", "b"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        let ip = a.ips()[0];
        let before = forwarded();
        for (listen, connect, server) in [
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.1".to_owned()),
            ("0.0.0.0:0", "127.0.0.1", ip.to_string()),
            ("0.0.0.0:0", &*ip.to_string(), ip.to_string()),
        ] {
            let outcome = sockets(&guests, &a, &format!("loopback {listen} {connect}")).await;
            assert!(outcome.starts_with("127.0.0.1:"), "{outcome}");
            assert!(outcome.contains(&format!("-> {server}:")), "{outcome}");
            assert!(outcome.contains("seen as 127.0.0.1:"), "{outcome}");
        }
        assert_eq!(forwarded(), before, "it stays within the pod");

        // The same port of two pods' localhost are two ports.
        let served = guests.start(run_in(&a, "udp-echo 127.0.0.1:5000"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(
            sockets(&guests, &a, "udp-call 0.0.0.0:0 127.0.0.1:5000 hi").await,
            "hi from 127.0.0.1:5000"
        );
        assert_eq!(
            sockets(&guests, &a, "udp-call 127.0.0.1:0 127.0.0.1:5000 hi").await,
            "hi from 127.0.0.1:5000"
        );
        assert_eq!(sockets(&guests, &b, "bind 127.0.0.1:5000").await, "127.0.0.1:5000");
        served.abort();
    });
}

#[test]
fn a_socket_on_localhost_cannot_reach_other_pods() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let [a, b] = ["a", "b"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        let served = guests.start(run_in(&b, "udp-echo 0.0.0.0:5000"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let target = SocketAddr::new(b.ips()[0], 5000);
        assert_eq!(
            sockets(&guests, &a, &format!("udp-call 0.0.0.0:0 {target} hi")).await,
            format!("hi from {target}")
        );
        // The kernel would deliver these past the node.
        let connected = sockets(&guests, &a, &format!("udp-connect 127.0.0.1:0 {target} hi")).await;
        assert_eq!(connected, "error: HostUnreachable");
        assert_eq!(
            sockets(&guests, &a, &format!("udp-call 127.0.0.1:0 {target} hi")).await,
            "error: HostUnreachable"
        );
        served.abort();
    });
}

#[test]
fn guests_of_any_version_get_these_functions() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.host_aliases = vec![HostAlias { ip: [192, 0, 2, 99].into(), hostnames: vec!["db".into()] }];
        let pod = network.attach_at_once(&config).unwrap();
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        tell_peers(listen(&other, 7000));
        let served = guests.start(run_in(&pod, "udp-echo 127.0.0.1:5000"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (ip, other) = (pod.ips()[0], other.ips()[0]);
        for version in ["0.2.0", "0.2.1", "0.2.3", "0.2.6", "0.2.9"] {
            let component = sockets_for_version(version);
            // Each line depends on functions that wasmtime-wasi's own would not do this way.
            for (arguments, outcome) in [
                ("bind 0.0.0.0:80", format!("{ip}:80")),
                ("bind 127.0.0.1:80", "127.0.0.1:80".into()),
                (&*format!("connect {other}:7000"), format!("{ip}:")),
                ("loopback 127.0.0.1:81 127.0.0.1", "127.0.0.1:".into()),
                ("udp-loopback 127.0.0.1:82 127.0.0.1", format!("client {ip}, answer from 127.0.0.1:82")),
                ("udp-loopback 0.0.0.0:82 127.0.0.1", format!("client {ip}, answer from {ip}:82")),
                ("udp-call 0.0.0.0:0 169.254.169.254:53 x", "error: PermissionDenied".into()),
                ("udp-connect 0.0.0.0:0 127.0.0.1:5000 hi", format!("hi: {ip} -> 127.0.0.1")),
                ("udp-connect 127.0.0.1:0 127.0.0.1:5000 hi", "hi: 127.0.0.1 -> 127.0.0.1".into()),
                ("resolve db", "192.0.2.99".into()),
            ] {
                let (component, pod, arguments) = (component.clone(), pod.clone(), arguments.to_owned());
                let what = format!("{version} {arguments}");
                let run = async move { run_sockets(&component, pod, arguments).await };
                let printed = guests.run(run).await.unwrap();
                assert!(printed.starts_with(&outcome), "{what}: {printed}");
            }
        }
        served.abort();
    });
}

#[test]
fn a_linker_without_the_functions_to_replace_is_an_error() {
    let mut linker = Linker::<Guest>::new(&Engine::default());
    let error = add_to_linker(&mut linker).unwrap_err().to_string();
    assert_eq!(error, "the linker has no tcp-socket in wasi:sockets/tcp@0.2.12 to replace");
}

#[test]
fn what_gets_past_the_rewriting_is_refused() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let ip = pod.ips()[0];
        tell_peers(std::net::TcpListener::bind((NODE_IP, 7000)).unwrap());
        for (arguments, outcome) in [
            ("bind 0.0.0.0:80", "error: PermissionDenied".to_owned()),
            ("bind 127.0.0.1:80", "error: PermissionDenied".into()),
            ("connect 192.0.2.10:7000", "error: PermissionDenied".into()),
            ("connect 127.0.0.1:7000", "error: PermissionDenied".into()),
            ("udp-call 0.0.0.0:0 192.0.2.10:53 x", "error: PermissionDenied".into()),
            ("resolve localhost", "error: Uncategorized".into()),
            (&*format!("bind {ip}:80"), format!("{ip}:80")),
        ] {
            let run = run_sockets_past_the_rewriting(pod.clone(), arguments.to_owned());
            assert_eq!(guests.run(run).await.unwrap(), outcome, "{arguments}");
        }
        pod.release();
        let run = run_sockets_past_the_rewriting(pod.clone(), format!("bind {ip}:80"));
        assert_eq!(guests.run(run).await.unwrap(), "error: PermissionDenied");
    });
}

#[test]
fn a_guest_on_the_wrong_thread_traps() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let mut config = sandbox("agent");
        config.network = NetworkMode::Node;
        let agent = network.attach_at_once(&config).unwrap();
        for arguments in
            ["bind 0.0.0.0:80", "connect 192.0.2.10:80", "udp-call 0.0.0.0:0 192.0.2.10:80 x", "resolve x"]
        {
            let outside = run_in(&pod, arguments).await.unwrap_err();
            let inside = guests.run(run_in(&agent, arguments)).await.unwrap_err();
            for error in [outside, inside] {
                assert!(format!("{error:?}").contains("outside its network"), "{arguments}: {error:?}");
            }
        }
    });
}

#[test]
fn a_guest_connects_as_often_as_it_likes() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        tell_peers(std::net::TcpListener::bind((NODE_IP, 7000)).unwrap());
        assert_eq!(sockets(&guests, &pod, "connect-often 192.0.2.10:7000 1000").await, "1000 connections");
    });
}

#[test]
fn on_the_nodes_addresses_a_guest_reaches_its_own_pods_loopback_only() {
    on_a_machine(|| async {
        let config = NetworkConfig { pod_range: Default::default(), ..address_mode_config() };
        let network = Network::detect(config).await.unwrap();
        let guests = GuestRuntime::new(&network);
        let [a, b] = ["a", "b"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        tell_peers(std::net::TcpListener::bind("127.0.0.1:7000").unwrap());
        tell_peers(listen(&a, 7001));
        for (pod, arguments, outcome) in [
            (&a, "bind 0.0.0.0:80", "192.0.2.10:80"),
            (&a, "bind 127.0.0.1:80", "127.0.0.1:80"),
            (&a, "bind 127.0.0.2:80", "error: AddrNotAvailable"),
            (&a, "connect 127.0.0.1:7000", "error: ConnectionRefused"),
            (&a, "connect 127.0.0.1:7001", "192.0.2.10:"),
            (&b, "connect 127.0.0.1:7001", "error: ConnectionRefused"),
            (&b, "connect 192.0.2.10:7001", "192.0.2.10:"),
            (&a, "connect 169.254.169.254:80", "error: PermissionDenied"),
            (&a, "loopback 127.0.0.1:80 127.0.0.1", "127.0.0.1:"),
            (&a, "loopback 0.0.0.0:80 127.0.0.1", "192.0.2.10:"),
            (&a, "udp-loopback 127.0.0.1:82 127.0.0.1", "client 127.0.0.1, answer from 127.0.0.1:82"),
            (&a, "udp-call 0.0.0.0:0 127.0.0.1:7000 x", "error: ConnectionRefused"),
        ] {
            let printed = sockets(&guests, pod, arguments).await;
            assert!(printed.starts_with(outcome), "{arguments}: {printed}");
        }
        // A port that the guest had is no longer its own.
        sockets(&guests, &a, "bind 127.0.0.1:7002").await;
        tell_peers(std::net::TcpListener::bind("127.0.0.1:7002").unwrap());
        assert_eq!(sockets(&guests, &a, "connect 127.0.0.1:7002").await, "error: ConnectionRefused");
    });
}

#[test]
fn the_nodes_loopback_is_open_where_that_was_asked_for() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("agent");
        config.network = NetworkMode::Node;
        let by_pod = network.attach_at_once(&config).unwrap();
        let config =
            NetworkConfig { node_addresses: vec![NODE_IP.into()], host_loopback: true, ..Default::default() };
        let by_operator = Network::detect(config).await.unwrap().attach_at_once(&sandbox("web")).unwrap();
        tell_peers(std::net::TcpListener::bind("127.0.0.1:7000").unwrap());
        for pod in [by_pod, by_operator] {
            let printed = sockets(&guests, &pod, "connect 127.0.0.1:7000").await;
            assert!(printed.ends_with("-> 127.0.0.1:7000"), "{printed}");
            // The pod's own services come first.
            let printed = sockets(&guests, &pod, "loopback 0.0.0.0:7001 127.0.0.1").await;
            assert!(printed.contains("-> 192.0.2.10:7001"), "{printed}");
        }
    });
}

fn run_in(
    pod: &Arc<PodNet>,
    arguments: &str,
) -> impl Future<Output = wasmtime::Result<String>> + Send + 'static {
    let (pod, arguments) = (pod.clone(), arguments.to_owned());
    async move { run_sockets(&SOCKETS, pod, arguments).await }
}
