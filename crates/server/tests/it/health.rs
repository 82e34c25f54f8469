//! Health checks, on all three ports.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use coracle_server::{ServerOptions, listen_and_serve_healthz, listen_and_serve_kubelet_read_only_server};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fakes::{FakeHost, pod};
use crate::server::{Setup, TestServer, request};

#[tokio::test]
async fn healthz_is_written_as_upstream_writes_it() {
    let host = Arc::new(FakeHost::default());
    let server = TestServer::start(Setup { host: host.clone(), ..Setup::default() }).await;
    let mut admin = server.admin().await;
    for (path, status, body) in [
        ("/healthz", 200, "ok"),
        ("/healthz?verbose", 200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n"),
        ("/healthz/ping", 200, "ok"),
        ("/healthz/syncloop", 200, "ok"),
        ("/healthz/nonsense", 404, "404 page not found\n"),
    ] {
        assert_eq!(admin.get(path).await.is(), (status, body), "{path}");
    }
    *host.sync_loop_stuck.lock() = true;
    for (path, status, body) in [
        (
            "/healthz",
            500,
            "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
        ),
        ("/healthz/ping", 200, "ok"),
        ("/healthz/syncloop", 500, "internal server error: sync Loop took longer than expected\n"),
        ("/healthz?exclude=syncloop", 200, "ok"),
        (
            "/healthz?exclude=syncloop&exclude=b&exclude=a&verbose=true",
            200,
            "[+]ping ok\n[+]log ok\n[+]syncloop excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nhealthz check passed\n",
        ),
    ] {
        assert_eq!(admin.get(path).await.is(), (status, body), "{path}");
    }
}

/// Asks a server without TLS.
async fn get(listener: &std::net::SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(listener).await.unwrap();
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request("GET", path, None)).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_local_health_port_says_that_the_process_lives_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(listen_and_serve_healthz(listener, shutdown.clone()));
    assert_eq!(get(&address, "/healthz").await, (200, "ok".into()));
    assert_eq!(get(&address, "/healthz/ping").await, (200, "ok".into()));
    assert_eq!(get(&address, "/pods").await, (404, "404 page not found\n".into()));
    shutdown.cancel();
    timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_read_only_port_shows_pods_and_health_to_everybody_and_no_logs() {
    let host = Arc::new(FakeHost::default());
    *host.pods.lock() = vec![Arc::new(pod("pod"))];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serve =
        listen_and_serve_kubelet_read_only_server(listener, host, ServerOptions::default(), shutdown.clone());
    let serving = tokio::spawn(serve);
    assert_eq!(get(&address, "/healthz").await, (200, "ok".into()));
    assert_eq!(get(&address, "/pods").await.0, 200);
    assert_eq!(get(&address, "/metrics/probes").await.0, 200);
    for path in ["/configz", "/flagz", "/statusz", "/debug/flags/v", "/checkpoint/ns/pod/c"] {
        assert_eq!(get(&address, path).await.0, 404, "{path}");
    }
    let disabled = (405, "Debug endpoints are disabled.\n".to_owned());
    assert_eq!(get(&address, "/containerLogs/ns/pod/c").await, disabled);
    assert_eq!(get(&address, "/exec/ns/pod/c").await, disabled);
    shutdown.cancel();
    timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}
