//! Forwarded ports, over SPDY and over SPDY in a WebSocket, as kubectl does since 1.31.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::client;
use crate::server::Server;

const TRANSPORTS: &[&str] = &["spdy", "tunnel"];

/// A service of the pod: answers with what it is sent, once it has all of it.
async fn echo() -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    (port, AbortOnDropHandle::new(task))
}

/// A client that forwards a port, and where it listens.
async fn forward(server: &Server, transport: &str, port: u16) -> (Child, SocketAddr) {
    let (url, ports) = (server.port_forward(), format!(":{port}"));
    let mut child = client::start(&["portforward", "-url", &url, "-transport", transport, "-ports", &ports]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = timeout(Duration::from_secs(30), lines.next_line()).await.expect("starts").unwrap();
        let line = line.expect("it listens");
        if let Some(address) = line.strip_prefix("Forwarding from ").and_then(|it| it.split(' ').next()) {
            break address.parse().unwrap();
        }
    };
    // client-go writes a line for each connection.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_forwarded_up_to_their_ends() {
    let server = Server::start().await;
    let (port, _service) = echo().await;
    for transport in TRANSPORTS {
        let (mut child, address) = forward(&server, transport, port).await;
        for text in ["hello", "", "again"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, text, "{transport}");
        }
        drop(child.stdin.take());
        server.session_ended().await;
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{transport}");
    }
}

/// Ten at once, 20 MB each way for each; what comes back is what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_connections_at_once() {
    const SIZE: usize = 20 << 20;
    let server = Server::start().await;
    let (port, _service) = echo().await;
    for transport in TRANSPORTS {
        let (_child, address) = forward(&server, transport, port).await;
        let mut connections = JoinSet::new();
        for number in 0..10u8 {
            connections.spawn(async move {
                let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
                let writer = tokio::spawn(async move {
                    let mut bytes = tokio::io::repeat(number).take(SIZE as u64);
                    tokio::io::copy(&mut bytes, &mut write).await.unwrap();
                });
                let (mut buffer, mut answered) = (vec![0; 64 << 10], 0);
                loop {
                    let length = read.read(&mut buffer).await.unwrap();
                    assert!(buffer[..length].iter().all(|byte| *byte == number));
                    answered += length;
                    if length == 0 {
                        break;
                    }
                }
                writer.await.unwrap();
                assert_eq!(answered, SIZE);
            });
        }
        timeout(Duration::from_secs(120), connections.join_all()).await.expect("ends");
    }
}

/// More connections, one after the other, than streams may be open at once.
#[tokio::test(flavor = "multi_thread")]
async fn ended_connections_leave_nothing() {
    let server = Server::start().await;
    let (port, _service) = echo().await;
    let (_child, address) = forward(&server, "spdy", port).await;
    for _ in 0..1500 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nothing_listens_is_told() {
    let server = Server::start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for transport in TRANSPORTS {
        let (child, address) = forward(&server, transport, free).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        let output = timeout(Duration::from_secs(30), child.wait_with_output()).await.expect("ends").unwrap();
        let got = String::from_utf8(output.stderr).unwrap();
        let expected = format!("error forwarding port {free}: Connection refused");
        assert!(got.contains(&expected), "{transport}: {got}");
        server.session_ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_its_connections() {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for transport in TRANSPORTS {
        let (mut child, address) = forward(&server, transport, port).await;
        let mut local = TcpStream::connect(address).await.unwrap();
        local.write_all(b"x").await.unwrap();
        let (mut remote, _) = listener.accept().await.unwrap();
        remote.read_exact(&mut [0]).await.unwrap();
        child.kill().await.unwrap();
        let end = timeout(Duration::from_secs(10), remote.read(&mut [0])).await.expect("ends");
        assert!(matches!(end, Ok(0) | Err(_)));
        server.session_ended().await;
    }
}
