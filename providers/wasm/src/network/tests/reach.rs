//! What a guest reaches, and what it does not: every place, by every transport, in both families.
//!
//! Something answers at each place. Where a guest gets no answer, it is the pod's network that keeps it away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::HostAlias;
use wasmtime_wasi_http::RequestOptions;

use super::super::namespace::Namespace;
use super::super::netlink::Netlink;
use super::super::policy::Place;
use super::super::{PodNet, socket};
use super::bed::{GuestRuntime, RANGE, RANGE_V6, network_of, on_a_machine, sandbox};
use super::guests::{sockets, sockets_p3};
use super::requests::{accept, get};

/// Where something answers at every place, and where it does on the machine's loopback alone.
const PORT: u16 = 7000;
const LOOPBACK_PORT: u16 = 7100;
/// How long a guest waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);

#[derive(Clone, Copy, Debug)]
enum By {
    Tcp,
    TcpP3,
    Udp,
    UdpP3,
    Http,
    /// A connection to a name that stands for the place.
    Name,
}

/// Everything that one guest tries.
struct Attempt<'a> {
    guests: &'a GuestRuntime,
    pod: &'a Arc<PodNet>,
    to: SocketAddr,
}

impl Attempt<'_> {
    async fn succeeds(&self, by: By) -> bool {
        let Self { guests, pod, to } = *self;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let attempt = async {
            match by {
                By::Tcp => is_ok(&sockets(guests, pod, &format!("connect {to}")).await),
                By::TcpP3 => is_ok(&sockets_p3(guests, pod, &format!("connect {to}")).await),
                By::Udp => is_ok(&sockets(guests, pod, &format!("udp-call {any} {to} x")).await),
                By::UdpP3 => is_ok(&sockets_p3(guests, pod, &format!("udp-call - {to} x")).await),
                By::Http => guests
                    .run(get(pod, &format!("http://{to}/peer"), RequestOptions::default()))
                    .await
                    .is_ok(),
                By::Name => {
                    let name = name_of(to.ip());
                    is_ok(&sockets(guests, pod, &format!("connect {name}:{}", to.port())).await)
                }
            }
        };
        tokio::time::timeout(PATIENCE, attempt).await.unwrap_or(false)
    }
}

fn is_ok(printed: &str) -> bool {
    !printed.starts_with("error: ")
}

/// The name that stands for an address in the pod's hosts.
fn name_of(ip: IpAddr) -> String {
    format!("place-{}", ip.to_string().replace([':', '.'], "-"))
}

#[test]
fn a_guest_reaches_exactly_what_it_may() {
    on_a_machine(|| async {
        let netlink = Netlink::connect().unwrap();
        let lo = netlink.index_of("lo").await.unwrap().unwrap();
        for prohibited in ["169.254.169.254", "169.254.7.7", "fd00:ec2::254", "fe80::7"] {
            netlink.add_address(lo, prohibited.parse().unwrap()).await.unwrap();
        }
        let network = network_of(&[RANGE, RANGE_V6]).await;
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        let own = ["10.99.7.77", "fd99:7::77"];
        network.keep("uid-pod", &own.map(|ip| ip.parse().unwrap())).unwrap();

        let Place::Pod { ips: other_ips, aliases } = &other.place else { panic!("{other:?}") };
        let texts = |ips: &[IpAddr]| [ips[0].to_string(), ips[1].to_string()];
        let (other_ips, other_loopback) = (texts(other_ips), texts(aliases));
        let [other_v4, other_v6] = other_ips.each_ref().map(String::as_str);
        let [loopback_v4, loopback_v6] = other_loopback.each_ref().map(String::as_str);
        let places = [
            ("its own addresses", own[0], own[1], PORT, true),
            ("its own loopback", "127.0.0.1", "::1", PORT, true),
            ("another pod", other_v4, other_v6, PORT, true),
            ("another pod's loopback", loopback_v4, loopback_v6, PORT, false),
            ("the node", "192.0.2.10", "2001:db8::10", PORT, true),
            ("the node's loopback", "127.0.0.1", "::1", LOOPBACK_PORT, false),
            ("the node by other names", "127.0.0.53", "::ffff:192.0.2.10", PORT, false),
            ("nowhere in particular", "0.0.0.0", "::", PORT, false),
            ("link-local addresses", "169.254.7.7", "fe80::7", PORT, false),
            ("cloud metadata", "169.254.169.254", "fd00:ec2::254", PORT, false),
            ("metadata by other names", "0.0.0.1", "::ffff:169.254.169.254", PORT, false),
        ];
        let mut config = sandbox("pod");
        let all = places.iter().flat_map(|(_, v4, v6, ..)| [v4, v6]);
        config.host_aliases = all
            .map(|ip| ip.parse::<IpAddr>().unwrap())
            .map(|ip| HostAlias { ip, hostnames: vec![name_of(ip)] })
            .collect();
        let pod = network.attach_at_once(&config).unwrap();
        assert_eq!(texts(&pod.ips()), own);

        let inside = pod.namespace.as_ref().unwrap();
        for ip in own.iter().chain([&other_v4, &other_v6, &loopback_v4, &loopback_v6]) {
            answer_at(Some(inside), SocketAddr::new(ip.parse().unwrap(), PORT));
        }
        for (ip, port) in
            [("0.0.0.0", PORT), ("::", PORT), ("127.0.0.1", LOOPBACK_PORT), ("::1", LOOPBACK_PORT)]
        {
            answer_at(None, SocketAddr::new(ip.parse().unwrap(), port));
        }

        let guests = GuestRuntime::new(&network);
        for (place, v4, v6, port, reached) in places {
            for ip in [v4, v6] {
                let to = SocketAddr::new(ip.parse().unwrap(), port);
                for by in [By::Tcp, By::TcpP3, By::Udp, By::UdpP3, By::Http, By::Name] {
                    let attempt = Attempt { guests: &guests, pod: &pod, to };
                    assert_eq!(attempt.succeeds(by).await, reached, "{place}: {to} by {by:?}");
                }
            }
        }
    });
}

/// Answers requests, connections and datagrams at an address.
fn answer_at(inside: Option<&Arc<Namespace>>, address: SocketAddr) {
    let open = move || (socket::listener(address).unwrap(), socket::datagrams(address).unwrap());
    let (listener, datagrams) = match inside {
        Some(namespace) => namespace.run(open).unwrap(),
        None => open(),
    };
    accept(tokio::net::TcpListener::from_std(listener).unwrap());
    let datagrams = tokio::net::UdpSocket::from_std(datagrams).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        loop {
            let Ok((length, peer)) = datagrams.recv_from(&mut buffer).await else { continue };
            // A guest that has ended hears nothing.
            let _ = datagrams.send_to(&buffer[..length], peer).await;
        }
    });
}
