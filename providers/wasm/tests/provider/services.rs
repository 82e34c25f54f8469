//! HTTP services, as containers of a provider.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_provider::{ContainerState, ContainerStatus, ErrorKind, Resources, RuntimeService};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::support::{Host, env, guest, log, within};

/// A port that nothing uses, unless somebody is quicker.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) async fn serve(
    host: &Host,
    adjust: impl FnOnce(&mut coracle_provider::ContainerConfig),
) -> (Arc<ContainerStatus>, SocketAddr) {
    let port = free_port();
    let container = host
        .run(&guest("http"), |c| {
            c.serving_port = port;
            adjust(c);
        })
        .await;
    assert_eq!(container.state, ContainerState::Running, "{}", container.message);
    (container, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_by_instances_that_know_nothing_of_each_other() {
    let host = Host::start().await;
    let (container, address) = serve(&host, |c| c.envs = env(&[("COLOUR", "blue")])).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/a?b").await, (StatusCode::OK, "hello from wasm: /a?b\n".into()));
    assert_eq!(client.get("/env/COLOUR").await, (StatusCode::OK, "blue".into()));
    assert_eq!(client.get("/status/418").await.0, StatusCode::IM_A_TEAPOT);
    let large = "x".repeat(300_000);
    assert_eq!(client.try_post("/echo", &large).await.unwrap(), (StatusCode::OK, large));
    host.provider.stop_container(&container.id, Duration::from_secs(30)).await.unwrap();
    let lines = log(&container);
    assert_eq!(lines, ["stdout F /a?b", "stdout F /env/COLOUR", "stdout F /status/418", "stdout F /echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_and_do_no_harm() {
    let host = Host::start().await;
    let (_, address) = serve(&host, |_| ()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 400"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        (long.as_str(), "HTTP/1.1 431"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The answer may come, and the connection end, before everything is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = vec![0; status.len()];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), status);
    }
    assert_eq!(Client::connect(address).await.get("/").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_is_one_500_and_its_trace_is_in_the_log() {
    let host = Host::start().await;
    let (container, address) = serve(&host, |_| ()).await;
    let mut client = Client::connect(address).await;
    let (status, body) = client.get("/trap").await;
    assert_eq!((status, body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "the service failed\n"));
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    assert_eq!(client.get("/trap").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let stats = host.provider.container_stats(Some(&container.pod.uid)).await.unwrap();
    assert_eq!(stats[0].traps, Some(2), "the container goes on, and this is what tells");
    host.provider.stop_container(&container.id, Duration::from_secs(30)).await.unwrap();
    let lines = log(&container);
    for part in ["unreachable", "wasm backtrace"] {
        assert!(lines.iter().any(|l| l.starts_with("stderr F") && l.contains(part)), "{part}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_requests_finish_and_takes_no_new_ones() {
    let host = Host::start().await;
    let (container, address) = serve(&host, |_| ()).await;
    let mut idle = Client::connect(address).await;
    idle.get("/").await;
    let slow = tokio::spawn(async move { Client::connect(address).await.get("/slow/700").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let stop = within(host.provider.stop_container(&container.id, Duration::from_secs(30)));
    let refused = async {
        loop {
            if TcpStream::connect(address).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (stopped, ()) = tokio::join!(stop, within(refused));
    let stopped = stopped.unwrap();
    assert_eq!((stopped.exit_code, stopped.reason.as_str()), (0, "Completed"), "{}", stopped.message);
    assert_eq!(slow.await.unwrap(), (StatusCode::OK, "slow: 700\n".into()));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_ends_what_computes_for_ever_and_may_be_shortened() {
    let host = Host::start().await;
    for wish in ["/spin", "/slow/600000"] {
        let (container, address) = serve(&host, |_| ()).await;
        let request = tokio::spawn(async move { Client::connect(address).await.try_post(wish, "").await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        let patient = host.provider.stop_container(&container.id, Duration::from_secs(600));
        let impatient = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            host.provider.stop_container(&container.id, Duration::from_millis(200)).await
        };
        let (first, second) = within(async { tokio::join!(patient, impatient) }).await;
        let stopped = first.unwrap();
        assert_eq!(stopped, second.unwrap());
        assert_eq!(stopped.exit_code, 137);
        assert!(stopped.message.contains("1 requests"), "{}", stopped.message);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let answer = request.await.unwrap();
        let is_cut = answer.as_ref().map_or(true, |(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE);
        assert!(is_cut, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_of_the_start_which_may_be_tried_again() {
    let host = Host::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let container = host.create(&guest("http"), |c| c.serving_port = port).await;
    let error = host.provider.start_container(&container.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert!(error.message.contains(&port.to_string()), "{error}");
    assert_eq!(host.status(&container).await.state, ContainerState::Created);
    drop(taken);
    let started = host.provider.start_container(&container.id).await.unwrap();
    assert_eq!(started.state, ContainerState::Running);
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
    assert_eq!(client.get("/").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_instantiated_ends_when_it_starts() {
    let host = Host::start().await;
    let limit = Resources { memory_limit_bytes: Some(64 << 10), ..Resources::default() };
    let container = host
        .create(&guest("http"), |c| {
            c.serving_port = free_port();
            c.resources = limit;
        })
        .await;
    let started = host.provider.start_container(&container.id).await.unwrap();
    assert_eq!((started.state, started.exit_code), (ContainerState::Exited, 137));
    assert_eq!(started.reason, "OOMKilled");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_wait_and_then_get_a_503() {
    let host = Host::start_with(|options| {
        options.services.requests = 1;
        options.services.queue_timeout = Duration::from_millis(300);
    })
    .await;
    let (container, address) = serve(&host, |_| ()).await;
    let (mut first, mut second) = (Client::connect(address).await, Client::connect(address).await);
    let (slow, quick) = tokio::join!(first.get("/slow/100"), second.get("/"));
    assert_eq!((slow.0, quick.0), (StatusCode::OK, StatusCode::OK), "a short wait is no error");
    let spinning = tokio::spawn(async move { first.try_post("/spin", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(second.get("/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
    let _ = spinning.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_s_memory_limit_bounds_its_instances_together() {
    let host = Host::start().await;
    // Room for one instance and a part of a second.
    let limit = Resources { memory_limit_bytes: Some(2 << 20), ..Resources::default() };
    let (container, address) = serve(&host, |c| c.resources = limit).await;
    let clients = (0..8).map(|_| async move { Client::connect(address).await.get("/slow/50").await.0 });
    let statuses = futures::future::join_all(clients).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!(host.status(&container).await.state, ContainerState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_s_outgoing_request_reaches_another_service() {
    let host = Host::start().await;
    let (_, target) = serve(&host, |_| ()).await;
    // `hostNetwork`: on 127.0.0.1 others can be reached only by those who asked for it.
    let image_ref = host.pull(&guest("http")).await.unwrap();
    let mut sandbox = host.sandbox_config("caller");
    sandbox.network = coracle_provider::NetworkMode::Node;
    let sandbox = host.provider.run_sandbox(sandbox).await.unwrap();
    let port = free_port();
    let config = coracle_provider::ContainerConfig {
        name: "c".into(),
        image_ref,
        serving_port: port,
        log_path: "c/0.log".into(),
        ..Default::default()
    };
    let caller = host.provider.create_container(&sandbox.id, config).await.unwrap();
    host.provider.start_container(&caller.id).await.unwrap();
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let answer = client.get(&format!("/fetch/{target}/beyond")).await;
    assert_eq!(answer, (StatusCode::OK, "hello from wasm: /beyond\n".into()));
}
