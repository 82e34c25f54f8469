//! Outgoing HTTP requests of guests.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_provider::HostAlias;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::super::http_client::send;
use super::super::{Network, NetworkConfig, PodNet};
use super::bed::{GuestRuntime, NODE_IP, address_mode_config, listen, on_a_machine, pod_network, sandbox};
use super::guests::http;

#[test]
fn requests_come_from_the_pod_and_share_connections() {
    on_a_machine(|| async {
        serve((NODE_IP, 7000).into()).await;
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = pod_knowing(&network, "server.example", NODE_IP.into());
        let first = http(&guests, &pod, "/fetch/server.example:7000/peer").await;
        let peer: SocketAddr = first.parse().unwrap();
        assert_eq!(peer.ip(), pod.ips()[0]);
        // Another instance of the guest, the same connection.
        assert_eq!(http(&guests, &pod, "/fetch/server.example:7000/peer").await, first);

        pod.release();
        let after = guests.run(get(&pod, "http://192.0.2.10:7000/peer", RequestOptions::default())).await;
        assert!(matches!(after, Err(Error::DestinationIpProhibited)), "{after:?}");

        let other = pod_knowing(&network, "server.example", NODE_IP.into());
        let peer: SocketAddr =
            http(&guests, &other, "/fetch/server.example:7000/peer").await.parse().unwrap();
        assert_eq!(peer.ip(), other.ips()[0]);
    });
}

#[test]
fn requests_obey_the_policy() {
    on_a_machine(|| async {
        serve(([127, 0, 0, 1], 7000).into()).await;
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = pod_knowing(&network, "metadata.example", [169, 254, 169, 254].into());
        for (uri, error) in [
            ("http://169.254.169.254/", "destination IP address is prohibited"),
            ("http://metadata.example/", "destination IP address is prohibited"),
            ("http://[::1]:7000/", "destination IP address is prohibited"),
            ("http://[2001:db8::1]/", "destination IP address is unroutable"),
            ("http://127.0.0.1:7000/", "connection refused"),
            ("http://192.0.2.10:7999/", "connection refused"),
            ("http://unknown.example/", "DNS error: rcode no name servers"),
        ] {
            let result = guests.run(get(&pod, uri, RequestOptions::default())).await;
            assert_eq!(result.unwrap_err().to_string(), error, "{uri}");
        }
    });
}

#[test]
fn a_pod_reaches_its_own_server() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let listener = TcpListener::from_std(listen(&pod, 8080)).unwrap();
        accept(listener);
        let peer: SocketAddr = http(&guests, &pod, "/fetch/localhost:8080/peer").await.parse().unwrap();
        assert!(peer.ip().is_loopback());
    });
}

#[test]
fn timeouts_are_those_of_the_request() {
    on_a_machine(|| async {
        serve((NODE_IP, 7000).into()).await;
        // A queue of one that nobody takes from: further connections wait.
        let full = listener_with_short_queue((NODE_IP, 7001).into());
        let _waiting: Vec<_> =
            (0..2).map(|_| std::net::TcpStream::connect((NODE_IP, 7001)).unwrap()).collect();
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let pod = network.attach_at_once(&sandbox("web")).unwrap();
        let short = Some(Duration::from_millis(200));
        let defaults = RequestOptions::default();
        for (uri, options, error) in [
            (
                "http://192.0.2.10:7001/",
                RequestOptions { connect_timeout: short, ..defaults },
                "connection timeout",
            ),
            (
                "http://192.0.2.10:7000/slow",
                RequestOptions { connect_timeout: short, first_byte_timeout: short, ..defaults },
                "connection read timeout",
            ),
            (
                "http://192.0.2.10:7000/slow-body",
                RequestOptions { between_bytes_timeout: short, ..defaults },
                "connection read timeout",
            ),
        ] {
            let result = guests.run(get(&pod, uri, options)).await;
            assert_eq!(result.unwrap_err().to_string(), error, "{uri}");
        }
        drop(full);
    });
}

#[test]
fn https_trusts_the_authorities_of_the_node_and_those_of_the_operator() {
    on_a_machine(|| async {
        let own = rcgen::generate_simple_self_signed(vec!["server.example".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        serve_tls((NODE_IP, 7443).into(), own.cert.der().clone(), key).await;
        let uri = "https://server.example:7443/peer";

        let config =
            NetworkConfig { extra_authorities: vec![own.cert.der().clone()], ..address_mode_config() };
        let network = Network::detect(config).await.unwrap();
        let guests = GuestRuntime::new(&network);
        let pod = pod_knowing(&network, "server.example", NODE_IP.into());
        let answer = guests.run(get(&pod, uri, RequestOptions::default())).await.unwrap();
        assert_eq!(answer.parse::<SocketAddr>().unwrap().ip(), pod.ips()[0]);

        let wrong_name = "https://192.0.2.10:7443/peer";
        let error = guests.run(get(&pod, wrong_name, RequestOptions::default())).await.unwrap_err();
        assert!(matches!(error, Error::TlsCertificateError), "{error}");

        let strict =
            Network::detect(NetworkConfig { node_addresses: vec![NODE_IP.into()], ..Default::default() });
        let strict = strict.await.unwrap();
        let pod = pod_knowing(&strict, "server.example", NODE_IP.into());
        let error = get(&pod, uri, RequestOptions::default()).await.unwrap_err();
        assert!(matches!(error, Error::TlsCertificateError | Error::InternalError(_)), "{error}");
    });
}

fn pod_knowing(network: &Network, name: &str, ip: IpAddr) -> Arc<PodNet> {
    let mut config = sandbox("web");
    config.host_aliases = vec![HostAlias { ip, hostnames: vec![name.into()] }];
    network.attach_at_once(&config).unwrap()
}

/// Sends a request as a guest's would be sent, and reads the answer.
pub(super) fn get(
    pod: &Arc<PodNet>,
    uri: &str,
    options: RequestOptions,
) -> impl Future<Output = Result<String, Error>> + Send + 'static {
    let body: WasiBody = Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
    let request = Request::get(uri).body(body).unwrap();
    let pod = pod.clone();
    async move {
        let body = send(pod, request, options).await?.into_body().collect().await?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }
}

async fn serve(address: SocketAddr) {
    accept(TcpListener::bind(address).await.unwrap());
}

pub(super) fn accept(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, peer));
        }
    });
}

async fn serve_tls(address: SocketAddr, certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Clients that do not trust this server hang up.
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, peer).await;
                }
            });
        }
    });
}

/// Tells where requests come from; some after a while, or in two parts with a while in between.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let whole = Full::new(Bytes::from(peer.to_string()));
        let body = match request.uri().path() {
            "/slow-body" => Stalling(whole).boxed_unsync(),
            _ => whole.boxed_unsync(),
        };
        Ok::<_, Infallible>(Response::new(body))
    });
    // A client that gave up is no concern of the server's.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A body that never ends.
struct Stalling(Full<Bytes>);

impl http_body::Body for Stalling {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        match std::pin::Pin::new(&mut self.0).poll_frame(cx) {
            std::task::Poll::Ready(Some(frame)) => std::task::Poll::Ready(Some(frame)),
            _ => std::task::Poll::Pending,
        }
    }
}

/// A listener with the shortest queue, which only ever holds two connections.
fn listener_with_short_queue(address: SocketAddr) -> std::net::TcpListener {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &address).unwrap();
    listen(&socket, 1).unwrap();
    socket.into()
}
