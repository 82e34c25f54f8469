//! Pods with a list of what they may reach.

use std::net::IpAddr;

use coracle_provider::{ErrorKind, HostAlias, NetworkMode};

use super::bed::{GuestRuntime, NODE_IP, listen, on_a_machine, pod_network, sandbox, tell_peers};
use super::guests::{http, sockets, sockets_p3};
use super::names::{dns, name_server};
use super::requests::accept;

const ANNOTATION: &str = "wasm.coracle.dev/egress-allow";

#[test]
fn a_guest_reaches_what_its_list_has_and_nothing_else() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        tell_peers(listen(&other, 7000));
        for port in [7000, 7001] {
            tell_peers(std::net::TcpListener::bind((NODE_IP, port)).unwrap());
        }
        accept(tokio::net::TcpListener::bind((NODE_IP, 8000)).await.unwrap());
        let mut config = sandbox("web");
        let other_ip = other.ips()[0];
        config.annotations = [(ANNOTATION.into(), format!("{NODE_IP}:7000,192.0.2.10:8000"))].into();
        config.host_aliases = vec![HostAlias { ip: other_ip, hostnames: vec!["other".into()] }];
        let mut modes = vec![(network.attach_at_once(&config).unwrap(), true)];
        config.network = NetworkMode::Node;
        modes.push((network.attach_at_once(&config).unwrap(), false));
        for (pod, has_own) in modes {
            for (arguments, allowed) in [
                ("connect 192.0.2.10:7000".to_owned(), true),
                ("connect 192.0.2.10:7001".into(), false),
                (format!("connect {other_ip}:7000"), false),
                ("connect other:7000".into(), false),
                ("udp-call 0.0.0.0:0 192.0.2.10:53 x".into(), false),
                ("loopback 127.0.0.1:81 127.0.0.1".into(), true),
                ("loopback 0.0.0.0:82 127.0.0.1".into(), true),
            ] {
                let printed = sockets(&guests, &pod, &arguments).await;
                assert_eq!(!printed.starts_with("error: "), allowed, "{arguments}: {printed}");
                if !allowed {
                    assert_eq!(printed, "error: PermissionDenied", "{arguments}");
                }
                if has_own && arguments.starts_with("connect 1") {
                    let printed = sockets_p3(&guests, &pod, &arguments).await;
                    assert_eq!(!printed.starts_with("error: "), allowed, "{arguments}: {printed}");
                }
            }
            let answer = http(&guests, &pod, "/fetch/192.0.2.10:8000/peer").await;
            assert!(answer.parse::<std::net::SocketAddr>().is_ok(), "{answer}");
            let answer = http(&guests, &pod, &format!("/fetch/{other_ip}:7000/")).await;
            assert!(answer.contains("DestinationIpProhibited"), "{answer}");
        }
    });
}

#[test]
fn names_of_host_aliases_can_be_listed() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        for port in [7000, 7001] {
            tell_peers(std::net::TcpListener::bind((NODE_IP, port)).unwrap());
        }
        let mut config = sandbox("web");
        config.annotations = [(ANNOTATION.into(), "gateway:7000".into())].into();
        config.host_aliases = vec![HostAlias { ip: NODE_IP.into(), hostnames: vec!["gateway".into()] }];
        let pod = network.attach_at_once(&config).unwrap();
        assert_eq!(sockets(&guests, &pod, "connect 192.0.2.10:7000").await, "error: PermissionDenied");
        assert!(!sockets(&guests, &pod, "connect gateway:7000").await.starts_with("error"));
        assert_eq!(sockets(&guests, &pod, "connect gateway:7001").await, "error: PermissionDenied");
    });
}

#[test]
fn listed_names_are_asked_for_and_open_what_they_lead_to() {
    on_a_machine(|| async {
        let questions = name_server("db.svc.cluster.local.").await;
        let known: IpAddr = [192, 0, 2, 77].into();
        let netlink = super::super::netlink::Netlink::connect().unwrap();
        let lo = netlink.index_of("lo").await.unwrap().unwrap();
        netlink.add_address(lo, known).await.unwrap();
        for port in [7000, 7001] {
            tell_peers(std::net::TcpListener::bind((known, port)).unwrap());
        }
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.dns = dns();
        config.annotations = [(ANNOTATION.into(), "db.svc.cluster.local:7000".into())].into();
        let pod = network.attach_at_once(&config).unwrap();

        assert_eq!(sockets(&guests, &pod, "connect 192.0.2.77:7000").await, "error: PermissionDenied");
        let secret = sockets(&guests, &pod, "resolve my-secret.example.com").await;
        assert!(secret.starts_with("error: "), "{secret}");
        let secret = sockets_p3(&guests, &pod, "resolve my-secret.example.com").await;
        assert_eq!(secret, "error: ErrorCode::AccessDenied");
        assert!(questions.lock().is_empty(), "it was not even asked for: {:?}", questions.lock());

        assert!(!sockets(&guests, &pod, "connect db.svc.cluster.local:7000").await.starts_with("error"));
        assert!(!questions.lock().is_empty());
        assert!(!sockets(&guests, &pod, "connect 192.0.2.77:7000").await.starts_with("error"));
        assert_eq!(sockets(&guests, &pod, "connect 192.0.2.77:7001").await, "error: PermissionDenied");
    });
}

#[test]
fn a_pod_whose_list_is_malformed_gets_no_network() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let mut config = sandbox("web");
        config.annotations = [(ANNOTATION.into(), "10.0.0.0/33".into())].into();
        let refused = network.attach_at_once(&config).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::InvalidArgument);
        assert!(refused.message.contains(ANNOTATION) && refused.message.contains("10.0.0.0/33"), "{refused}");
    });
}
