//! HTTP as services speak it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_provider::{ContainerConfig, ContainerState, ContainerStatus, Resources, RuntimeService};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::services::{free_port, serve};
use crate::support::{Host, guest, log, within};

/// A service with annotations on its pod.
async fn serve_annotated(
    host: &Host,
    module: &str,
    annotations: &[(&str, &str)],
) -> (Arc<ContainerStatus>, SocketAddr) {
    serve_within(host, module, annotations, Resources::default()).await
}

/// The same with limits.
async fn serve_within(
    host: &Host,
    module: &str,
    annotations: &[(&str, &str)],
    resources: Resources,
) -> (Arc<ContainerStatus>, SocketAddr) {
    let image_ref = host.pull(&guest(module)).await.unwrap();
    let mut sandbox = host.sandbox_config(&crate::support::unique());
    sandbox.annotations = annotations
        .iter()
        .map(|(name, value)| (format!("wasm.coracle.dev/{name}"), (*value).into()))
        .collect();
    let sandbox = host.provider.run_sandbox(sandbox).await.unwrap();
    let port = free_port();
    let config = ContainerConfig {
        name: "c".into(),
        image_ref,
        serving_port: port,
        log_path: "c/0.log".into(),
        resources,
        ..ContainerConfig::default()
    };
    let container = host.provider.create_container(&sandbox.id, config).await.unwrap();
    let container = host.provider.start_container(&container.id).await.unwrap();
    assert_eq!(container.state, ContainerState::Running, "{}", container.message);
    (container, SocketAddr::from(([127, 0, 0, 1], port)))
}

pub(crate) type Http2<B> = hyper::client::conn::http2::SendRequest<B>;

pub(crate) async fn http2<B>(address: SocketAddr) -> Http2<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = within(TcpStream::connect(address)).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends bytes and reads until the peer closes.
async fn talk(address: SocketAddr, request: &str) -> String {
    let mut stream = within(TcpStream::connect(address)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may be closed while something is on its way, and that is an end, too.
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_on_the_same_port() {
    let host = Host::start().await;
    for module in ["http", "http-p3"] {
        let (container, address) = serve_annotated(&host, module, &[]).await;
        let sender = http2::<Empty<Bytes>>(address).await;
        let requests = (0..20).map(|number| {
            let mut sender = sender.clone();
            async move {
                let uri = format!("http://name.example:99/{number}");
                let request = Request::get(uri).body(Empty::new()).unwrap();
                let response = within(sender.send_request(request)).await.unwrap();
                assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
                let body = within(response.into_body().collect()).await.unwrap().to_bytes();
                assert_eq!(body, format!("hello from wasm: /{number}\n"));
            }
        });
        futures::future::join_all(requests).await;
        assert_eq!(Client::connect(address).await.get("/x").await.0, StatusCode::OK, "and HTTP/1.1");
        // An open connection of HTTP/2 does not hold up the end.
        let stopped = within(host.provider.stop_container(&container.id, Duration::from_secs(30))).await;
        assert_eq!(stopped.unwrap().exit_code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_know_who_asks_and_whom() {
    let host = Host::start().await;
    for module in ["http", "http-p3"] {
        let (_, address) = serve_annotated(&host, module, &[]).await;
        let ask = |path: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nhost: name.example:99\r\ncoracle-remote-address: 1.2.3.4:5\r\nconnection: close\r\n\r\n"
            )
        };
        let answer = talk(address, &ask("/authority")).await;
        assert!(answer.contains("\r\nname.example:99\r\n"), "{module}: {answer}");
        let answer = talk(address, &ask("/header/coracle-remote-address")).await;
        assert!(answer.contains("\r\n127.0.0.1:") && !answer.contains("1.2.3.4"), "{module}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_stream_both_ways() {
    let host = Host::start().await;
    let (_, address) = serve_annotated(&host, "http-p3", &[]).await;
    let (parts, body) = futures::channel::mpsc::unbounded();
    let mut sender = http2::<StreamBody<_>>(address).await;
    let request = Request::post("http://h/echo").body(StreamBody::new(body)).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let mut echo = response.into_body();
    for number in 0..3 {
        let part = Bytes::from(format!("part {number}"));
        parts.unbounded_send(Ok::<_, std::convert::Infallible>(Frame::data(part.clone()))).unwrap();
        let frame = within(echo.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part, "it comes back before more is sent");
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("42"));
    parts.unbounded_send(Ok(Frame::trailers(trailers.clone()))).unwrap();
    drop(parts);
    let rest = within(echo.collect()).await.unwrap();
    assert_eq!(rest.trailers(), Some(&trailers));
    let large = "x".repeat(4 << 20);
    let mut client = Client::connect(address).await;
    assert!(
        client.try_post("/echo", &large).await.unwrap() == (StatusCode::OK, large),
        "it comes back whole"
    );

    let (_, address) = serve_annotated(&host, "http", &[]).await;
    let mut sender = http2::<Empty<Bytes>>(address).await;
    let request = Request::get("http://h/trickle/4").body(Empty::new()).unwrap();
    let begun = Instant::now();
    let mut body = within(sender.send_request(request)).await.unwrap().into_body();
    let first = within(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    let first_at = begun.elapsed();
    assert!(first.starts_with(b"1"), "{first:?}");
    within(body.collect()).await.unwrap();
    assert!(
        begun.elapsed() >= first_at + Duration::from_millis(100),
        "the first part did not wait for the last"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_are_refused_cleanly() {
    let host = Host::start().await;
    let (_, address) = serve(&host, |_| ()).await;
    let websocket = "GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\r\n";
    let answer = talk(address, websocket).await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("no WebSocket"), "{answer}");
    let answer = talk(address, "CONNECT h:80 HTTP/1.1\r\nhost: h:80\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    let h2c = "GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, HTTP2-Settings, close\r\nupgrade: h2c\r\nhttp2-settings: \r\n\r\n";
    let answer = talk(address, h2c).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/status/101").await.0, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_nothing_lose_their_connection() {
    let host = Host::start_with(|options| {
        options.services.header_timeout = Duration::from_millis(300);
        options.services.body_timeout = Duration::from_millis(300);
    })
    .await;
    let (_, address) = serve(&host, |_| ()).await;
    for beginning in ["", "PRI * HT", "GET / HT"] {
        let answer = talk(address, beginning).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{beginning}: {answer}");
    }
    let half = "POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = talk(address, half).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "the guest hears that no more comes: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_reads_does_not_hold_up_its_end() {
    let host = Host::start().await;
    let (container, address) = serve(&host, |_| ()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /spin HTTP/1.1\r\nhost: h\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
    let sending = async {
        let piece = vec![0; 1 << 16];
        while stream.write_all(&piece).await.is_ok() {}
    };
    let stalled = tokio::time::timeout(Duration::from_millis(500), sending).await;
    assert!(stalled.is_err(), "what nobody reads is not taken");
    let stopped =
        within(host.provider.stop_container(&container.id, Duration::from_millis(100))).await.unwrap();
    assert_eq!(stopped.exit_code, 137);
    assert!(stopped.message.contains("1 requests"), "{}", stopped.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_used_again_if_the_pod_says_so() {
    let host = Host::start().await;
    let count = async |client: &mut Client| {
        let (_, count) = client.get("/count").await;
        // An answer is complete before the handler has returned, and an instance is free only then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        count
    };
    let (_, address) = serve(&host, |_| ()).await;
    let mut client = Client::connect(address).await;
    assert_eq!([count(&mut client).await, count(&mut client).await], ["1", "1"]);

    let (container, address) = serve_annotated(&host, "http", &[("http-reuse-count", "3")]).await;
    let mut client = Client::connect(address).await;
    let mut counts = Vec::new();
    for _ in 0..7 {
        counts.push(count(&mut client).await);
    }
    assert_eq!(counts, ["1", "2", "3", "1", "2", "3", "1"]);
    // One that failed is not used again, and does nobody else harm.
    assert_eq!(client.get("/trap").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(count(&mut client).await, "1");
    // One that has nothing to do goes away.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(count(&mut client).await, "1");
    let stats = host.provider.container_stats(Some(&container.pod.uid)).await.unwrap();
    assert!(stats[0].memory.usage_bytes > 0, "an instance waits");
    let stopped = within(host.provider.stop_container(&container.id, Duration::from_secs(30))).await.unwrap();
    assert_eq!(stopped.exit_code, 0, "which does not hold up the end");

    let error = {
        let mut sandbox = host.sandbox_config("wrong");
        sandbox.annotations.insert("wasm.coracle.dev/http-reuse-count".into(), "all".into());
        let sandbox = host.provider.run_sandbox(sandbox).await.unwrap();
        let image_ref = host.pull(&guest("http")).await.unwrap();
        let config = ContainerConfig { name: "c".into(), image_ref, ..ContainerConfig::default() };
        host.provider.create_container(&sandbox.id, config).await.unwrap_err()
    };
    assert!(error.message.contains("http-reuse-count"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_of_wasi_0_3_answers_many_requests_at_once() {
    let host = Host::start().await;
    let (_, address) = serve_annotated(&host, "http-p3", &[("http-reuse-idle-seconds", "60")]).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/count").await.1, "1");
    let begun = Instant::now();
    let slow = (0..8).map(|_| async move { Client::connect(address).await.get("/count/1000").await.1 });
    let counts = futures::future::join_all(slow).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "not one after another: {:?}", begun.elapsed());
    // One that computes at that moment is spared, so there may be more of them, but not one for each request.
    assert!(counts.iter().filter(|count| *count == "1").count() < 7, "{counts:?}");

    let (_, address) = serve_annotated(&host, "http-p3", &[("http-reuse-count", "1")]).await;
    let mut client = Client::connect(address).await;
    assert_eq!([client.get("/count").await.1, client.get("/count").await.1], ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_wasi_0_3_gives_its_memory_back_before_its_turn() {
    let host = Host::start().await;
    // There is room for one instance, and not for two.
    let limit = Resources { memory_limit_bytes: Some(2 << 20), ..Resources::default() };
    let (_, address) = serve_within(&host, "http-p3", &[("http-reuse-count", "1")], limit).await;
    let clients = (0..4).map(|_| async move {
        let mut client = Client::connect(address).await;
        for _ in 0..50 {
            assert_eq!(client.get("/count").await, (StatusCode::OK, "1".into()));
        }
    });
    futures::future::join_all(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_wasi_0_3_fail_one_by_one_and_drain() {
    let host = Host::start().await;
    let (container, address) = serve_annotated(&host, "http-p3", &[]).await;
    let mut client = Client::connect(address).await;
    let failed = (StatusCode::INTERNAL_SERVER_ERROR, "the service failed\n".to_owned());
    assert_eq!(client.get("/trap").await, failed);
    assert_eq!(client.get("/error").await, failed);
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    let slow = tokio::spawn(async move { Client::connect(address).await.get("/slow/700").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopped = within(host.provider.stop_container(&container.id, Duration::from_secs(30))).await.unwrap();
    assert_eq!((stopped.exit_code, stopped.reason.as_str()), (0, "Completed"), "{}", stopped.message);
    assert_eq!(slow.await.unwrap(), (StatusCode::OK, "slow: 700\n".into()));
    let lines = log(&container);
    assert!(lines.iter().any(|line| line.contains("unreachable")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("as the client wished")), "{lines:?}");

    let (container, address) = serve_annotated(&host, "http-p3", &[]).await;
    let hanging =
        tokio::spawn(async move { Client::connect(address).await.try_post("/slow/600000", "").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopped =
        within(host.provider.stop_container(&container.id, Duration::from_millis(100))).await.unwrap();
    assert_eq!(stopped.exit_code, 137);
    let cut_off = hanging.await.unwrap();
    assert!(cut_off.is_err() || cut_off.is_ok_and(|(status, _)| status == StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn outgoing_requests_of_wasi_0_3_go_through_the_pod() {
    let host = Host::start().await;
    let (_, target) = serve(&host, |_| ()).await;
    let (_, address) = serve_annotated(&host, "http-p3", &[]).await;
    // On 127.0.0.1 others can be reached only by those who asked for the node's network.
    let mut client = Client::connect(address).await;
    let (status, _) = client.get(&format!("/fetch/{target}/beyond")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let own = client.get(&format!("/fetch/{address}/inner")).await;
    assert_eq!(own, (StatusCode::OK, "hello from wasm: /inner\n".into()));
}
