//! Pods with addresses of IPv6, alone and beside IPv4.

use std::net::{IpAddr, SocketAddr};

use super::super::policy::Place;
use super::bed::{
    GuestRuntime, NODE_IP, NODE_IP_V6, RANGE, RANGE_V6, ask, network_of, on_a_machine, sandbox, set,
    tell_peers,
};
use super::guests::{http, sockets, sockets_p3};
use super::requests::accept;

fn in_range_v6(ip: IpAddr) -> bool {
    RANGE_V6.parse::<ipnet::IpNet>().unwrap().contains(&ip)
}

#[test]
fn the_node_reaches_pods_in_both_families_from_its_own_addresses() {
    on_a_machine(|| async {
        let network = network_of(&[RANGE, RANGE_V6]).await;
        let pods = ["a", "b"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        for pod in &pods {
            let ips = pod.network().ips;
            assert!(ips.len() == 2 && ips[0].is_ipv4() && in_range_v6(ips[1]), "{ips:?}");
            pod.listen_tcp(8080).unwrap().into_iter().for_each(tell_peers);
            assert_eq!(ask((ips[0], 8080)).unwrap(), NODE_IP);
            assert_eq!(ask((ips[1], 8080)).unwrap(), NODE_IP_V6);
        }
        assert_ne!(pods[0].ips()[1], pods[1].ips()[1]);
        let ips = pods[0].ips();
        assert!(network.keep("uid-c", &ips).is_err(), "they are taken");
        pods[0].release();
        assert!(network.keep("uid-c", &ips[..1]).is_err(), "one of each family");
        network.keep("uid-c", &ips).unwrap();
        assert_eq!(network.attach_at_once(&sandbox("c")).unwrap().ips(), ips);
    });
}

#[test]
fn the_order_of_the_ranges_says_which_family_is_the_primary_one() {
    on_a_machine(|| async {
        let network = network_of(&[RANGE_V6, RANGE]).await;
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        assert!(in_range_v6(pod.ips()[0]) && pod.ips()[1].is_ipv4());
        let guests = GuestRuntime::new(&network);
        let ips = pod.ips();
        assert_eq!(sockets(&guests, &pod, "resolve web").await, format!("{} {}", ips[0], ips[1]));
    });
}

#[test]
fn guests_have_their_pods_addresses_of_both_families() {
    on_a_machine(|| async {
        let network = network_of(&[RANGE, RANGE_V6]).await;
        let guests = GuestRuntime::new(&network);
        let [pod, other] = ["web", "other"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        let (v4, v6) = (pod.ips()[0], pod.ips()[1]);
        other.listen_tcp(7000).unwrap().into_iter().for_each(tell_peers);
        let target = SocketAddr::new(other.ips()[1], 7000);
        tell_peers(std::net::TcpListener::bind((NODE_IP_V6, 7000)).unwrap());
        for (arguments, outcome) in [
            ("bind [::]:80", format!("[{v6}]:80")),
            ("bind [::1]:80", "[::1]:80".into()),
            ("bind 0.0.0.0:80", format!("{v4}:80")),
            (&*format!("connect {target}"), format!("[{v6}]:")),
            (&*format!("connect [{NODE_IP_V6}]:7000"), format!("[{v6}]:")),
            ("bind [2001:db8::10]:80", "error: ".into()),
        ] {
            for printed in
                [sockets(&guests, &pod, arguments).await, sockets_p3(&guests, &pod, arguments).await]
            {
                assert!(printed.starts_with(&outcome), "{arguments}: {printed}");
            }
        }
        for (listener, server) in [("[::1]:81", "::1".to_owned()), ("[::]:81", v6.to_string())] {
            let printed = sockets(&guests, &pod, &format!("loopback {listener} [::1]:81")).await;
            assert!(printed.starts_with("[::1]:"), "{printed}");
            assert!(printed.contains(&format!("-> [{server}]:81, seen as [::1]:")), "{printed}");
        }
        assert_eq!(sockets(&guests, &pod, "resolve localhost").await, "127.0.0.1 ::1");

        let server = tokio::net::TcpListener::bind((NODE_IP_V6, 8000)).await.unwrap();
        accept(server);
        let peer: SocketAddr =
            http(&guests, &pod, &format!("/fetch/[{NODE_IP_V6}]:8000/peer")).await.parse().unwrap();
        assert_eq!(peer.ip(), v6);
    });
}

#[test]
fn ipv6_between_pods_passes_the_node_and_aliases_stay_inside() {
    on_a_machine(|| async {
        let network = network_of(&[RANGE_V6]).await;
        let guests = GuestRuntime::new(&network);
        let [from, to] = ["from", "to"].map(|name| network.attach_at_once(&sandbox(name)).unwrap());
        assert!(from.ips().len() == 1 && in_range_v6(from.ips()[0]));
        to.listen_tcp(7000).unwrap().into_iter().for_each(tell_peers);
        let connect = format!("connect [{}]:7000", to.ips()[0]);
        let before = forwarded_v6();
        assert!(!sockets(&guests, &from, &connect).await.starts_with("error"));
        assert!(forwarded_v6() > before);
        set("ipv6/conf/all/forwarding", "0");
        let run = tokio::time::timeout(std::time::Duration::from_secs(1), sockets(&guests, &from, &connect));
        assert!(run.await.map_or(true, |printed| printed.starts_with("error")));
        set("ipv6/conf/all/forwarding", "1");

        // The pod has no IPv4, but a localhost of it, as pods have.
        assert_eq!(sockets(&guests, &from, "bind 127.0.0.1:80").await, "127.0.0.1:80");
        assert_eq!(sockets(&guests, &from, "connect 127.0.0.1:80").await, "error: ConnectionRefused");
        assert_eq!(sockets(&guests, &from, "connect 192.0.2.10:80").await, "error: HostUnreachable");

        let Place::Pod { aliases, .. } = &to.place else { panic!("{to:?}") };
        let alias = SocketAddr::new(aliases[1], 7100);
        let inside = to.namespace.as_ref().unwrap();
        tell_peers(inside.run(move || super::super::socket::listener(alias)).unwrap().unwrap());
        assert!(inside.run(move || std::net::TcpStream::connect(alias)).unwrap().is_ok());
        let netlink = super::super::netlink::Netlink::connect().unwrap();
        let cora = netlink.index_of(&super::bed::interfaces()[0]).await.unwrap().unwrap();
        let hop = "fe80::2".parse().unwrap();
        netlink.add_route(alias.ip().into(), hop, cora, Some(NODE_IP_V6.into()), 254).await.unwrap();
        assert!(ask(alias).is_err(), "not even a node that routes it there reaches an alias");
    });
}

fn forwarded_v6() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let line = counters.lines().find(|line| line.starts_with("Ip6OutForwDatagrams")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_node_that_begins_to_forward_goes_on_listening_to_routers() {
    on_a_machine(|| async {
        set("ipv6/conf/all/forwarding", "0");
        set("ipv6/conf/lo/accept_ra", "1");
        network_of(&[RANGE_V6]).await;
        let read =
            |setting: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{setting}")).unwrap();
        assert_eq!((read("all/forwarding").trim(), read("lo/accept_ra").trim()), ("1", "2"));
    });
}
