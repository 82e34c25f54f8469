//! Sessions that a runtime serves itself, at a streaming server that this file plays.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::fakes::{FakeHost, pod};
use crate::server::{Setup, TestServer, request};
use crate::sessions::{server, server_with, websocket};

/// A runtime's streaming server: what it is asked is looked at, and the answer is the test's.
struct Runtime {
    listener: TcpListener,
    url: String,
}

impl Runtime {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/exec/token?a=b", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The next connection, and the head of its request.
    async fn next(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap().to_lowercase())
    }
}

fn at(url: &str) -> String {
    let url: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
    format!("/exec/ns/pod/c?command=at&command={url}&output=1&input=1")
}

fn spdy(method: &str, path: &str) -> Request<axum::body::Body> {
    let mut request = request(method, path, Some("secret"));
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ("cookie", "secret"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n\x80first";

#[tokio::test]
async fn bytes_pass_in_both_directions_up_to_the_end_of_each() {
    let (server, _) = server().await;
    let runtime = Runtime::start().await;
    let mut admin = server.admin().await;
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let play = async {
        let (mut stream, head) = runtime.next().await;
        assert!(head.starts_with("post /exec/token?a=b http/1.1\r\n"), "{head}");
        assert!(head.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"), "{head}");
        assert!(head.contains("x-stream-protocol-version: v3.channel.k8s.io\r\n"), "{head}");
        let host = format!("host: {}\r\n", runtime.listener.local_addr().unwrap());
        assert!(head.contains(&host) && !head.contains("secret"), "{head}");
        // What follows the answer at once is not lost.
        stream.write_all(ACCEPTED).await.unwrap();
        let mut sent = vec![0; large.len()];
        stream.read_exact(&mut sent).await.unwrap();
        assert!(sent == large);
        stream.write_all(&large).await.unwrap();
        stream
    };
    let ask = async {
        let response = admin.send(spdy("POST", &at(&runtime.url))).await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["x-stream-protocol-version"], "v3.channel.k8s.io");
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut first = [0; 6];
        io.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"\x80first");
        io.write_all(&large).await.unwrap();
        let mut answer = vec![0; large.len()];
        io.read_exact(&mut answer).await.unwrap();
        assert!(answer == large);
        io
    };
    let both = async { tokio::join!(play, ask) };
    let (mut stream, mut io) = timeout(Duration::from_secs(20), both).await.unwrap();
    // The runtime hears that the client has sent all, and can still answer.
    io.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    stream.write_all(b"last").await.unwrap();
    drop(stream);
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), io.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn sessions_end_with_their_client_and_with_the_server() {
    let (server, _) = server().await;
    let runtime = Runtime::start().await;
    let open = async |server: &TestServer, runtime: &Runtime| {
        let mut admin = server.admin().await;
        let ask = async { admin.send(spdy("GET", &at(&runtime.url))).await };
        let play = async {
            let (mut stream, _) = runtime.next().await;
            stream.write_all(ACCEPTED).await.unwrap();
            stream
        };
        let (response, stream) = tokio::join!(ask, play);
        (TokioIo::new(hyper::upgrade::on(response).await.unwrap()), stream)
    };
    let ended = async |mut stream: TcpStream| {
        let read = timeout(Duration::from_secs(10), stream.read(&mut [0; 8])).await.expect("ends");
        assert!(matches!(read, Ok(0) | Err(_)));
    };
    let (io, stream) = open(&server, &runtime).await;
    drop(io);
    ended(stream).await;
    let (io, stream) = open(&server, &runtime).await;
    server.shutdown.cancel();
    ended(stream).await;
    drop(io);

    let idle = Duration::from_millis(300);
    let (server, _) = server_with(|setup| setup.options.streaming_connection_idle_timeout = idle).await;
    let (io, stream) = open(&server, &runtime).await;
    ended(stream).await;
    drop(io);
}

#[tokio::test]
async fn a_runtime_that_refuses_is_heard() {
    let (server, _) = server().await;
    let runtime = Runtime::start().await;
    let mut admin = server.admin().await;
    for (answer, expected) in [
        ("404 Not Found\r\nContent-Length: 4\r\n\r\ngone", (404, "gone")),
        ("403 Forbidden\r\nContent-Length: 2\r\n\r\nno", (403, "no")),
        ("200 OK\r\nContent-Length: 2\r\n\r\nhm", (500, "invalid upgrade response: status code 200\n")),
        (
            "302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
            (500, "invalid upgrade response: status code 302\n"),
        ),
    ] {
        let play = async {
            let (mut stream, _) = runtime.next().await;
            stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
        };
        let path = at(&runtime.url);
        let (told, ()) = tokio::join!(admin.ask(spdy("GET", &path)), play);
        assert_eq!(told.is(), expected);
    }
}

/// And nobody is told the address, which is a credential.
#[tokio::test]
async fn connections_go_to_this_machine_only() {
    let (server, _) = server().await;
    let mut admin = server.admin().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, expected) in [
        (
            "http://198.51.100.7:1234/exec/token",
            "serves sessions at \"198.51.100.7\", which is no address of this",
        ),
        ("http://[2001:db8::1]/exec/token", "serves sessions at \"[2001:db8::1]\""),
        ("http://metadata.internal/exec/token", "serves sessions at \"metadata.internal\""),
        ("http://user@198.51.100.7/token", "serves sessions at \"198.51.100.7\""),
        ("https://127.0.0.1:1/exec/token", "over \"https\""),
        ("/exec/token", "no URL"),
        (&format!("http://{closed}/exec/token"), "cannot connect"),
        (&format!("http://localhost:{}/exec/token", closed.port()), "cannot connect"),
        (&format!("http://0.0.0.0:{}/exec/token", closed.port()), "cannot connect"),
        (&format!("http://[::]:{}/exec/token", closed.port()), "cannot connect"),
    ] {
        let answer = admin.ask(spdy("GET", &at(url))).await;
        assert_eq!(answer.status, 500, "{url}");
        assert!(answer.body.contains(expected) && !answer.body.contains("token"), "{url}: {}", answer.body);
    }
}

#[tokio::test]
async fn ports_are_forwarded_by_the_runtime() {
    let host = Arc::new(FakeHost::default());
    *host.pods.lock() = vec![Arc::new(pod("elsewhere"))];
    let server = TestServer::start(Setup { host: host.clone(), ..Setup::default() }).await;
    let runtime = Runtime::start().await;
    *host.runtime_url.lock() = Some(runtime.url.clone());
    let mut admin = server.admin().await;
    let play = async || {
        let (mut stream, head) = runtime.next().await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        head
    };
    let ask = websocket("/portForward/ns/elsewhere?port=80,81", "v4.channel.k8s.io");
    let (answer, head) = tokio::join!(admin.ask(ask), play());
    assert_eq!((answer.is(), &*host.named_ports.lock()), ((403, "no"), &vec![80, 81]));
    assert!(head.contains("sec-websocket-protocol: v4.channel.k8s.io\r\n"), "{head}");

    let mut ask = spdy("POST", "/portForward/ns/elsewhere");
    ask.headers_mut().insert("x-stream-protocol-version", "portforward.k8s.io".parse().unwrap());
    let (answer, head) = tokio::join!(admin.ask(ask), play());
    assert_eq!((answer.status.as_u16(), &*host.named_ports.lock()), (403, &vec![]));
    assert!(head.contains("upgrade: spdy/3.1\r\n"), "{head}");
}
