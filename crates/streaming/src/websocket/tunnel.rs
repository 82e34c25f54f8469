//! One stream of bytes through a WebSocket, in binary messages. After `TunnelingConnection` of
//! `client-go/tools/portforward`, which is the other side.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::{self, Event, FrameReader, Violation};
use crate::connection::LINGER;
use crate::pipe::CHUNK;

/// Pongs that may be unsent.
const REPLIES: usize = 16;

/// What is between the tunnel and what runs in it, in each direction.
const BUFFER: usize = 64 * 1024;

/// The inner end of a tunnel, and the future that moves the bytes until both ends are closed.
pub(crate) fn new<T>(io: T) -> (DuplexStream, impl Future<Output = ()> + Send)
where
    T: AsyncRead + AsyncWrite + Send,
{
    let (inner, outer) = tokio::io::duplex(BUFFER);
    (inner, run(io, outer))
}

async fn run<T: AsyncRead + AsyncWrite + Send>(io: T, inner: DuplexStream) {
    let (input, output) = tokio::io::split(io);
    let (from_inner, to_inner) = tokio::io::split(inner);
    let (replies, queue) = mpsc::channel(REPLIES);
    let mut incoming = pin!(incoming(input, to_inner, replies));
    let mut outgoing = pin!(outgoing(output, from_inner, queue));
    tokio::select! {
        // What runs inside learns of it, and has some time to say its last.
        _ = &mut incoming => drop(timeout(LINGER, outgoing).await),
        _ = &mut outgoing => drop(timeout(LINGER, incoming).await),
    }
}

async fn incoming<R, W>(input: R, mut inner: W, replies: mpsc::Sender<Vec<u8>>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut frames = FrameReader::new(input);
    let result = loop {
        match frames.next().await {
            Ok(Event::Piece { is_text: true, .. }) => break Err(Violation::Message("binary").into()),
            Ok(Event::Piece { bytes, .. }) => inner.write_all(&bytes).await?,
            Ok(Event::Ping(payload)) => {
                let _ = replies.send(frame::pong(&payload)).await;
            }
            Ok(Event::Close) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    inner.shutdown().await?;
    result
}

async fn outgoing<R, W>(mut output: W, mut inner: R, mut replies: mpsc::Receiver<Vec<u8>>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK];
    let mut out = Vec::new();
    loop {
        out.clear();
        let is_last = tokio::select! {
            Some(pong) = replies.recv() => {
                out.extend(pong);
                false
            }
            length = inner.read(&mut buffer) => match length? {
                0 => {
                    frame::close(&mut out);
                    true
                }
                length => {
                    frame::message(false, &[], &buffer[..length], &mut out);
                    false
                }
            },
        };
        output.write_all(&out).await?;
        output.flush().await?;
        if is_last {
            return output.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::masked;
    use super::*;

    #[tokio::test]
    async fn bytes_pass_in_both_directions() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut inner, tunnel) = new(server);
        let tunnel = tokio::spawn(tunnel);
        let frames = [masked(0x02, b"hel"), masked(0x89, b"?"), masked(0x80, b"lo"), masked(0x82, b"!")];
        client.write_all(&frames.concat()).await.unwrap();
        let mut got = [0; 6];
        inner.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello!");
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x01?");

        inner.write_all(b"answer").await.unwrap();
        inner.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"\x82\x06answer\x88\x02\x03\xe8");
        drop(client);
        tunnel.await.unwrap();
    }

    #[tokio::test]
    async fn an_end_of_either_side_reaches_the_other() {
        for last in [masked(0x88, b"\x03\xe8"), masked(0x81, b"text"), vec![]] {
            let (mut client, server) = tokio::io::duplex(1024);
            let (mut inner, tunnel) = new(server);
            let tunnel = tokio::spawn(tunnel);
            client.write_all(&last).await.unwrap();
            drop(client);
            assert_eq!(inner.read(&mut [0; 8]).await.unwrap(), 0);
            drop(inner);
            tunnel.await.unwrap();
        }
    }
}
