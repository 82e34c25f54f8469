use std::time::{Duration, Instant};

use coracle_core::ports::{ProbeOutcome, ProbeTransport, TcpConnect};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket};

use crate::servers::Server;
use crate::{PATIENCE, transport};

fn connect(port: u16) -> TcpConnect {
    TcpConnect { host: "127.0.0.1".into(), port }
}

#[tokio::test]
async fn whoever_listens_is_well() {
    let server = Server::tcp(|_| async {}).await;
    let outcome = transport().tcp(&connect(server.port), PATIENCE).await;
    assert_eq!(outcome, ProbeOutcome::Success(String::new()));
    let by_name = TcpConnect { host: "localhost".into(), port: server.port };
    assert_eq!(transport().tcp(&by_name, PATIENCE).await, ProbeOutcome::Success(String::new()));
}

#[tokio::test]
async fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let outcome = transport().tcp(&connect(port), PATIENCE).await;
    let expected = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(outcome, ProbeOutcome::Failure(expected));
}

#[tokio::test]
async fn a_listener_whose_queue_is_full_costs_the_timeout_and_no_more() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut waiting = Vec::new();
    let short = Duration::from_millis(200);
    while let Ok(Ok(stream)) =
        tokio::time::timeout(short, tokio::net::TcpStream::connect(("127.0.0.1", port))).await
    {
        waiting.push(stream);
    }
    let start = Instant::now();
    let outcome = transport().tcp(&connect(port), short).await;
    assert_eq!(outcome, ProbeOutcome::Failure(format!("dial tcp 127.0.0.1:{port}: i/o timeout")));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_connection_ends_in_good_order() {
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let server = Server::tcp(move |mut stream| {
        let ended = ended.clone();
        async move {
            let read = stream.read(&mut [0; 1]).await.map_err(|e| e.kind());
            let _ = ended.send(read).await;
        }
    })
    .await;
    transport().tcp(&connect(server.port), PATIENCE).await;
    assert_eq!(end.recv().await.unwrap(), Ok(0), "an end, not a reset");
}
