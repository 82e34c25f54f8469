//! Clients that mean harm.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::server::{Setup, TestServer, request};

/// How long a limit lasts in these tests.
const SHORT: Duration = Duration::from_millis(300);

/// How late it may be noticed on a busy machine; still less than any limit's default.
const PATIENCE: Duration = Duration::from_secs(8);

async fn server(change: impl FnOnce(&mut coracle_server::Limits)) -> TestServer {
    let mut setup = Setup::default();
    change(&mut setup.options.limits);
    TestServer::start(setup).await
}

/// Waits until the server closes a connection; returns how long it took.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Duration {
    let (started, mut rest) = (Instant::now(), Vec::new());
    // Whether it says good-bye or not.
    _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it stays open");
    started.elapsed()
}

fn assert_about(elapsed: Duration, expected: Duration) {
    assert!((expected / 2..PATIENCE).contains(&elapsed), "{elapsed:?} instead of {expected:?}");
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_cut() {
    let server = server(|limits| limits.tls_handshake_timeout = SHORT).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_about(until_closed(&mut stream).await, SHORT);
}

#[tokio::test]
async fn a_slowloris_is_cut() {
    let server = server(|limits| limits.header_read_timeout = SHORT).await;
    let admin = server.client_ca.client("admin");
    let stream = server.tls(server.client_config(Some(&admin), "http/1.1")).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let trickle = tokio::spawn(async move {
        writer.write_all(b"GET /pods HTTP/1.1\r\nx: ").await?;
        loop {
            // Never silent for long, and never done.
            writer.write_all(b"x").await?;
            sleep(SHORT / 10).await;
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    });
    assert_about(until_closed(&mut reader).await, SHORT);
    assert!(trickle.await.unwrap().is_err());
}

#[tokio::test]
async fn who_was_never_allowed_anything_may_not_stay() {
    let server = server(|limits| limits.unauthorized_connection_timeout = SHORT).await;
    let stranger = server.client_ca.client("stranger");
    // Asking again and again does not help.
    let mut http1 = server.http1(Some(&stranger)).await;
    let started = Instant::now();
    let nagging = async {
        while let Ok(answer) = http1.sender.send_request(request("GET", "/pods", None)).await {
            assert_eq!(answer.status(), StatusCode::FORBIDDEN);
            sleep(SHORT / 10).await;
            if http1.sender.ready().await.is_err() {
                break;
            }
        }
    };
    timeout(PATIENCE, nagging).await.expect("the stranger may stay");
    assert_about(started.elapsed(), SHORT);
    // Nor does HTTP/2, where a connection can live without requests.
    let mut idle = server.tls(server.client_config(Some(&stranger), "h2")).await.unwrap();
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    assert_about(until_closed(&mut idle).await, SHORT);
    // Whoever was allowed something stays.
    let mut admin = server.admin().await;
    assert_eq!(admin.get("/pods").await.status, 200);
    sleep(SHORT * 2).await;
    assert_eq!(admin.get("/pods").await.status, 200);
}

#[tokio::test]
async fn connections_are_limited_and_come_back() {
    let server = server(|limits| limits.max_connections_per_peer = 2).await;
    let mut first = server.admin().await;
    let second = server.admin().await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    until_closed(&mut third).await;
    assert_eq!(first.get("/pods").await.status, 200);
    second.connection.abort();
    drop(second);
    let again = async {
        let config = || server.client_config(Some(&server.client_ca.client("admin")), "http/1.1");
        while server.tls(config()).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), again).await.expect("the place does not come back");
}

/// Who opens connections and says nothing fills its own places, and nobody else's.
#[tokio::test]
async fn ten_thousand_half_open_connections_cut_nobody_off() {
    let server = server(|limits| limits.max_connections_per_peer = 100).await;
    let hostile = async |_| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        socket.connect(server.address).await.unwrap()
    };
    let mut silent = Vec::new();
    for round in 0..100 {
        // No more at a time than the listener's queue holds: what the kernel drops would prove nothing.
        let mut streams = join_all((0..100).map(hostile)).await;
        match silent.is_empty() {
            true => silent = streams,
            false => _ = join_all(streams.iter_mut().map(until_closed)).await,
        }
        assert_eq!(server.admin().await.get("/pods").await.status, 200, "in round {round}");
    }
}

#[tokio::test]
async fn headers_are_limited() {
    let server = server(|_| ()).await;
    let mut admin = server.admin().await;
    let mut big = request("GET", "/pods", None);
    big.headers_mut().insert("x", "x".repeat(100 * 1024).parse().unwrap());
    // Refused by name, or cut while still sending.
    if let Ok(answer) = admin.sender.send_request(big).await {
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let http2 = server.http2(Some(&server.client_ca.client("admin"))).await;
    let mut big = request("GET", "https://localhost/pods", None);
    big.headers_mut().remove("host");
    for i in 0..20 {
        let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
        big.headers_mut().insert(name, "x".repeat(5 * 1024).parse().unwrap());
    }
    let mut sender = http2.sender.clone();
    if let Ok(answer) = sender.send_request(big).await {
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    // A request with a token of a usual size passes.
    let token = "t".repeat(8 * 1024);
    assert_eq!(server.http1(None).await.ask(request("GET", "/pods", Some(&token))).await.status, 401);
}

#[tokio::test]
async fn plain_http_and_noise_do_no_harm() {
    let server = server(|_| ()).await;
    for noise in [&b"GET /pods HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0xff; 1000], b"\x16\x03\x01\xff\xff"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        until_closed(&mut stream).await;
    }
    assert_eq!(server.admin().await.get("/pods").await.status, 200);
}

#[tokio::test]
async fn dropping_the_server_cuts_every_connection() {
    let server = server(|_| ()).await;
    let admin = server.client_ca.client("admin");
    let mut stream = server.tls(server.client_config(Some(&admin), "http/1.1")).await.unwrap();
    server.serving.abort();
    assert!(until_closed(&mut stream).await < Duration::from_secs(5));
}
