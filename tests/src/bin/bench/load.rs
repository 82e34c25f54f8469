//! A client that asks for the same thing as often as it can.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::promise::Samples;

/// What a server did under load.
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    pub(crate) latencies: Samples,
}

/// Asks for a path over so many connections that stay open, each the next time as soon as it has an answer. What
/// happens before `warm_up` is over does not count.
pub(crate) async fn load(
    server: SocketAddr,
    path: &str,
    connections: usize,
    warm_up: Duration,
    time: Duration,
) -> Result<Load> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    let begin = Instant::now() + warm_up;
    let end = begin + time;
    let clients = (0..connections).map(|_| {
        let request = request.clone();
        tokio::spawn(async move { client(server, request.as_bytes(), begin, end).await })
    });
    let mut latencies = Vec::new();
    for client in try_join_all(clients).await? {
        latencies.extend(client?);
    }
    let requests_per_second = latencies.len() as f64 / time.as_secs_f64();
    Ok(Load { requests_per_second, latencies: Samples::new(latencies) })
}

async fn client(server: SocketAddr, request: &[u8], begin: Instant, end: Instant) -> Result<Vec<Duration>> {
    let mut connection = TcpStream::connect(server).await.with_context(|| server.to_string())?;
    connection.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(latencies);
        }
        connection.write_all(request).await?;
        answer.clear();
        while !is_complete(&answer)? {
            ensure!(connection.read_buf(&mut answer).await? > 0, "the server closed a connection");
        }
        let answered = Instant::now();
        if asked >= begin && answered < end {
            latencies.push(answered - asked);
        }
    }
}

/// Whether all of an answer is there: its body has a length or comes in chunks, and has no chunk that looks like the last.
fn is_complete(answer: &[u8]) -> Result<bool> {
    let Some(head) = find(answer, b"\r\n\r\n") else { return Ok(false) };
    let (head, body) = (&answer[..head], &answer[head + 4..]);
    ensure!(head.starts_with(b"HTTP/1.1 200"), "the server answers {}", String::from_utf8_lossy(head));
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked") {
        return Ok(body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n"));
    }
    let Some((_, length)) = head.split_once("\r\ncontent-length: ") else {
        bail!("an answer without a length: {head}");
    };
    let length: usize = length.lines().next().unwrap_or_default().trim().parse()?;
    Ok(body.len() >= length)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_complete_by_their_length_or_their_last_chunk() {
        for (answer, complete) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\ndate: x\r\n\r\nabc", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", true),
        ] {
            assert_eq!(is_complete(answer.as_bytes()).unwrap(), complete, "{answer:?}");
        }
        assert!(is_complete(b"HTTP/1.1 500 no\r\n\r\n").is_err());
    }
}
