//! Name look-ups of guests at a name server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use coracle_provider::DnsConfig;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::super::netlink::Netlink;
use super::bed::{GuestRuntime, NODE_IP, on_a_machine, pod_network, sandbox};
use super::guests::{http, sockets, sockets_p3};
use super::requests::accept;

/// Who asked for what.
pub(super) type Questions = Arc<Mutex<Vec<(IpAddr, String)>>>;

/// A name server that knows one name.
pub(super) async fn name_server(known: &'static str) -> Questions {
    let socket = UdpSocket::bind((NODE_IP, 53)).await.unwrap();
    let questions = Questions::default();
    let asked = questions.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            let query = message.queries[0].clone();
            let name = query.name().to_string();
            asked.lock().push((peer.ip(), format!("{} {name}", query.query_type())));
            message.metadata.message_type = MessageType::Response;
            if name != known {
                message.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type() == RecordType::A {
                let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 77)));
                message.add_answer(Record::from_rdata(query.name().clone(), 30, address));
            }
            socket.send_to(&message.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    questions
}

pub(super) fn dns() -> DnsConfig {
    DnsConfig {
        servers: vec![NODE_IP.to_string()],
        searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
        options: vec!["ndots:5".into(), "timeout:1".into(), "attempts:1".into()],
    }
}

#[test]
fn names_resolve_as_the_pods_configuration_says() {
    on_a_machine(|| async {
        let questions = name_server("db.svc.cluster.local.").await;
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.dns = dns();
        let pod = network.attach_at_once(&config).unwrap();
        let ip = pod.ips()[0];

        assert_eq!(sockets(&guests, &pod, "resolve db").await, "192.0.2.77");
        // From the pod's own address, and only for what a pod can reach.
        assert_eq!(
            questions.lock().split_off(0),
            [(ip, "A db.default.svc.cluster.local.".into()), (ip, "A db.svc.cluster.local.".into())]
        );

        assert!(sockets(&guests, &pod, "resolve example.com").await.starts_with("error: "));
        assert_eq!(
            questions.lock().split_off(0),
            ["example.com.default.svc.cluster.local.", "example.com.svc.cluster.local.", "example.com."]
                .map(|name| (ip, format!("A {name}")))
        );
    });
}

#[test]
fn names_in_requests_and_in_both_versions_of_sockets_resolve_alike() {
    on_a_machine(|| async {
        let questions = name_server("db.svc.cluster.local.").await;
        let netlink = Netlink::connect().unwrap();
        let lo = netlink.index_of("lo").await.unwrap().unwrap();
        netlink.add_address(lo, [192, 0, 2, 77].into()).await.unwrap();
        accept(tokio::net::TcpListener::bind("192.0.2.77:8000").await.unwrap());
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.dns = dns();
        let asked =
            ["db.default.svc.cluster.local.", "db.svc.cluster.local."].map(|name| format!("A {name}"));
        // A pod for each: what one has found out it remembers.
        for way in ["sockets", "sockets of WASI 0.3", "requests"] {
            let pod = network.attach_at_once(&config).unwrap();
            let answer = match way {
                "sockets" => sockets(&guests, &pod, "connect db:8000").await,
                "requests" => http(&guests, &pod, "/fetch/db:8000/peer").await,
                _ => sockets_p3(&guests, &pod, "resolve db").await,
            };
            assert!(
                answer.starts_with("192.0.2.77") || answer.starts_with(&pod.ips()[0].to_string()),
                "{answer}"
            );
            let questions: Vec<_> = questions.lock().drain(..).map(|(_, question)| question).collect();
            assert_eq!(questions, asked, "{way}");
        }
    });
}

#[test]
fn a_server_that_does_not_answer_is_a_failure() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.dns = dns();
        let pod = network.attach_at_once(&config).unwrap();
        assert!(sockets(&guests, &pod, "resolve db").await.starts_with("error: "));
        assert_eq!(sockets(&guests, &pod, "resolve localhost").await, "127.0.0.1");
        assert_eq!(sockets(&guests, &pod, "resolve web").await, pod.ips()[0].to_string());
    });
}
