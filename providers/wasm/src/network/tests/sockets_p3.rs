//! `wasi:sockets` 0.3 as guests find it.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_provider::{HostAlias, NetworkMode};
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::super::{Network, NetworkConfig, add_p3_to_linker};
use super::bed::{
    GuestRuntime, NODE_IP, address_mode_config, listen, on_a_machine, pod_network, sandbox, tell_peers,
};
use super::guests::{
    Guest, SOCKETS, run_sockets, run_sockets_p3, run_sockets_p3_past_the_rewriting, sockets_p3,
};

#[test]
fn a_guest_has_its_pods_addresses() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.host_aliases = vec![HostAlias { ip: [192, 0, 2, 99].into(), hostnames: vec!["db".into()] }];
        let pod = network.attach_at_once(&config).unwrap();
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        tell_peers(std::net::TcpListener::bind((NODE_IP, 7000)).unwrap());
        tell_peers(listen(&other, 7000));
        let (ip, other) = (pod.ips()[0], other.ips()[0]);
        // Each line depends on a function that wasmtime-wasi's own would not do this way.
        for (arguments, outcome) in [
            ("bind 0.0.0.0:80", format!("{ip}:80")),
            ("bind -", format!("{ip}:")),
            ("bind 127.0.0.1:80", "127.0.0.1:80".into()),
            ("bind 127.0.0.2:80", "error: ErrorCode::AddressNotBindable".into()),
            ("bind 192.0.2.10:80", "error: ErrorCode::AddressNotBindable".into()),
            ("bind [::]:80", "error: ErrorCode::AddressNotBindable".into()),
            (&*format!("bind {other}:80"), "error: ErrorCode::AddressNotBindable".into()),
            (&*format!("connect {other}:7000"), format!("{ip}:")),
            ("connect 192.0.2.10:7000", format!("{ip}:")),
            ("resolve db", "192.0.2.99".into()),
            ("resolve nowhere.example", "error: ErrorCode::PermanentResolverFailure".into()),
        ] {
            let printed = sockets_p3(&guests, &pod, arguments).await;
            assert!(printed.starts_with(&outcome), "{arguments}: {printed}");
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
            ("127.0.0.1:7000", "error: ErrorCode::ConnectionRefused"),
            ("127.64.0.3:7000", "error: ErrorCode::AccessDenied"),
            ("127.0.0.53:7000", "error: ErrorCode::AccessDenied"),
            ("169.254.169.254:7000", "error: ErrorCode::AccessDenied"),
            ("[::1]:7000", "error: ErrorCode::AccessDenied"),
            ("[2001:db8::1]:7000", "error: ErrorCode::RemoteUnreachable"),
        ] {
            assert_eq!(sockets_p3(&guests, &pod, &format!("connect {target}")).await, outcome, "{target}");
            // A datagram to the pod's own localhost is only lost.
            if target != "127.0.0.1:7000" {
                for command in ["udp-call", "udp-connect"] {
                    let datagram = sockets_p3(&guests, &pod, &format!("{command} - {target} x")).await;
                    assert_eq!(datagram, outcome, "{command} {target}");
                }
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
        for (listen, server) in [("127.0.0.1:0", "127.0.0.1".to_owned()), ("0.0.0.0:0", ip.to_string())] {
            let outcome = sockets_p3(&guests, &a, &format!("loopback {listen} 127.0.0.1")).await;
            assert!(outcome.starts_with("127.0.0.1:"), "{outcome}");
            assert!(outcome.contains(&format!("-> {server}:")), "{outcome}");
            assert!(outcome.contains("seen as 127.0.0.1:"), "{outcome}");
        }
        let echo = |pod: &std::sync::Arc<_>, address: &str| {
            let (pod, arguments) = (std::sync::Arc::clone(pod), format!("udp-echo {address}"));
            guests.start(async move { run_sockets(&SOCKETS, pod, arguments).await })
        };
        let served = [echo(&a, "127.0.0.1:5000"), echo(&b, "0.0.0.0:5000")];
        tokio::time::sleep(Duration::from_millis(300)).await;
        let target = SocketAddr::new(b.ips()[0], 5000);
        for (arguments, outcome) in [
            ("udp-call - 127.0.0.1:5000 hi", "hi from 127.0.0.1:5000".to_owned()),
            ("udp-call 127.0.0.1:0 127.0.0.1:5000 hi", "hi from 127.0.0.1:5000".into()),
            ("udp-connect - 127.0.0.1:5000 hi", format!("hi: {ip} -> 127.0.0.1:5000")),
            (&*format!("udp-call - {target} hi"), format!("hi from {target}")),
            // The kernel would deliver these past the node.
            (&*format!("udp-call 127.0.0.1:0 {target} hi"), "error: ErrorCode::RemoteUnreachable".into()),
            (&*format!("udp-connect 127.0.0.1:0 {target} hi"), "error: ErrorCode::RemoteUnreachable".into()),
            ("udp-loopback 0.0.0.0:0 127.0.0.1", ip.to_string()),
        ] {
            assert_eq!(sockets_p3(&guests, &a, arguments).await, outcome, "{arguments}");
        }
        served.iter().for_each(|served| served.abort());
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
            (&a, "bind -", "192.0.2.10:"),
            (&a, "connect 127.0.0.1:7000", "error: ErrorCode::ConnectionRefused"),
            (&a, "connect 127.0.0.1:7001", "192.0.2.10:"),
            (&b, "connect 127.0.0.1:7001", "error: ErrorCode::ConnectionRefused"),
            (&a, "loopback 127.0.0.1:80 127.0.0.1", "127.0.0.1:"),
            (&a, "udp-call - 127.0.0.1:7000 x", "error: ErrorCode::ConnectionRefused"),
        ] {
            let printed = sockets_p3(&guests, pod, arguments).await;
            assert!(printed.starts_with(outcome), "{arguments}: {printed}");
        }
    });
}

#[test]
fn what_gets_past_the_rewriting_is_refused() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        tell_peers(std::net::TcpListener::bind((NODE_IP, 7000)).unwrap());
        for arguments in [
            "bind 0.0.0.0:80",
            "bind 127.0.0.1:80",
            "connect 192.0.2.10:7000",
            "connect 127.0.0.1:7000",
            "udp-call - 192.0.2.10:53 x",
            "udp-connect - 192.0.2.10:53 x",
        ] {
            let run = run_sockets_p3_past_the_rewriting(pod.clone(), arguments.to_owned());
            assert_eq!(guests.run(run).await.unwrap(), "error: ErrorCode::AccessDenied", "{arguments}");
        }
        let run = run_sockets_p3_past_the_rewriting(pod.clone(), "resolve localhost".into());
        let printed = guests.run(run).await.unwrap();
        assert!(printed.starts_with("error: "), "{printed}");
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
            ["bind 0.0.0.0:80", "connect 192.0.2.10:80", "udp-call - 192.0.2.10:80 x", "resolve x"]
        {
            let outside = run_sockets_p3(pod.clone(), arguments.into()).await.unwrap_err();
            let inside = guests.run(run_sockets_p3(agent.clone(), arguments.into())).await.unwrap_err();
            for error in [outside, inside] {
                assert!(format!("{error:?}").contains("outside its network"), "{arguments}: {error:?}");
            }
        }
    });
}

#[test]
fn a_linker_without_the_functions_to_replace_is_an_error() {
    let mut linker = Linker::<Guest>::new(&Engine::default());
    let error = add_p3_to_linker(&mut linker).unwrap_err().to_string();
    assert_eq!(error, "the linker has no tcp-socket in wasi:sockets/types@0.3.0 to replace");
}
