//! A client that writes its frames byte by byte, against a connection over a pipe in memory.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, timeout};

use super::headers::tests::Client as Blocks;
use super::*;
use crate::connection::Connection;

pub(crate) struct Client {
    pub(crate) io: DuplexStream,
    blocks: Blocks,
}

fn start(settings: Settings) -> (Client, Connection, mpsc::Receiver<Stream>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (shared, streams, driver) = serve(theirs, settings).unwrap();
    let connection = Connection::spawn(&shared, driver);
    (Client::new(ours), connection, streams)
}

fn settings() -> Settings {
    Settings {
        idle_timeout: Duration::from_secs(3600),
        max_streams: 4,
        admit: |headers| headers.get("no").is_empty(),
    }
}

impl Client {
    pub(crate) fn new(io: DuplexStream) -> Self {
        Self { io, blocks: Blocks::new() }
    }

    async fn control(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.io.write_all(&[0x80, 3, 0, kind, flags, a, b, c]).await.unwrap();
        self.io.write_all(payload).await.unwrap();
    }

    pub(crate) async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(self.blocks.block(headers));
        self.control(1, 0, &payload).await;
    }

    pub(crate) async fn data(&mut self, id: u32, flags: u8, bytes: &[u8]) {
        let [_, a, b, c] = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        self.io.write_all(&id.to_be_bytes()).await.unwrap();
        self.io.write_all(&[flags, a, b, c]).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn reset(&mut self, id: u32) {
        self.control(3, 0, &[id.to_be_bytes(), 5u32.to_be_bytes()].concat()).await;
    }

    pub(crate) async fn frame(&mut self) -> ([u8; 8], Vec<u8>) {
        let mut head = [0; 8];
        self.io.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        (head, payload)
    }

    pub(crate) async fn expect_control(&mut self, kind: u8, payload: &[u8]) {
        let (head, got) = self.frame().await;
        assert_eq!((head[0], head[3]), (0x80, kind), "{head:?} {got:?}");
        assert!(got.starts_with(payload), "{head:?} {got:?}");
    }
}

#[tokio::test]
async fn streams_are_opened_written_half_closed_and_read() {
    let (mut client, connection, mut streams) = start(settings());
    client.open(1, &[("streamtype", "data")]).await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    let mut stream = streams.recv().await.unwrap();
    assert_eq!((stream.id, stream.headers.get("streamType")), (1, "data"));

    client.data(1, 0, b"hello ").await;
    client.data(1, 1, b"world").await;
    let mut text = String::new();
    stream.read.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello world");

    stream.write.write_all(b"bye").await.unwrap();
    stream.write.shutdown().await.unwrap();
    assert_eq!(client.frame().await, ([0, 0, 0, 1, 0, 0, 0, 3], b"bye".to_vec()));
    assert_eq!(client.frame().await, ([0, 0, 0, 1, 1, 0, 0, 0], vec![]));
    assert_eq!(stream.write.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);

    client.io.shutdown().await.unwrap();
    connection.ended().await;
}

#[tokio::test]
async fn resets_reach_both_halves() {
    let (mut client, _connection, mut streams) = start(settings());
    client.open(1, &[]).await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    let mut stream = streams.recv().await.unwrap();
    client.control(3, 0, &[0, 0, 0, 1, 0, 0, 0, 5]).await;
    let error = stream.read.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(stream.write.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    client.open(3, &[]).await;
    client.expect_control(2, &[0, 0, 0, 3]).await;
    let mut stream = streams.recv().await.unwrap();
    stream.write.reset();
    client.expect_control(3, &[0, 0, 0, 3, 0, 0, 0, 5]).await;
}

#[tokio::test]
async fn what_is_refused() {
    let (mut client, _connection, mut streams) = start(settings());
    client.open(1, &[("no", "1")]).await;
    client.expect_control(3, &[0, 0, 0, 1, 0, 0, 0, 5]).await;
    for id in [3, 5, 7, 9] {
        client.open(id, &[]).await;
        client.expect_control(2, &id.to_be_bytes()).await;
    }
    client.open(11, &[]).await;
    client.expect_control(3, &[0, 0, 0, 11, 0, 0, 0, 3]).await;
    for id in [9, 12] {
        client.open(id, &[]).await;
        client.expect_control(3, &[0, 0, 0, id as u8, 0, 0, 0, 1]).await;
    }
    // A stream that is closed in both directions makes room for another.
    client.data(3, 1, b"").await;
    drop(streams.recv().await.unwrap());
    assert_eq!(client.frame().await.0, [0, 0, 0, 3, 1, 0, 0, 0]);
    client.open(13, &[]).await;
    client.expect_control(2, &[0, 0, 0, 13]).await;
}

#[tokio::test]
async fn pings_are_answered_and_what_is_unknown_is_skipped() {
    let (mut client, _connection, _streams) = start(settings());
    client.control(6, 0, &[0, 0, 0, 2]).await;
    client.control(4, 0, &[0; 12]).await;
    client.control(9, 0, &[0; 8]).await;
    client.control(99, 0, &vec![0; 200_000]).await;
    client.data(77, 1, b"of no stream").await;
    client.control(6, 0, &[0, 0, 0, 1]).await;
    client.expect_control(6, &[0, 0, 0, 1]).await;
}

#[tokio::test]
async fn closing_resets_what_is_open_after_what_was_written() {
    let (mut client, connection, mut streams) = start(settings());
    client.open(1, &[]).await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    let mut stream = streams.recv().await.unwrap();
    stream.write.write_all(b"last words").await.unwrap();
    let closing = tokio::spawn(connection.close());
    assert_eq!(client.frame().await.1, b"last words");
    client.expect_control(3, &[0, 0, 0, 1]).await;
    client.expect_control(7, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    assert_eq!(client.io.read(&mut [0; 8]).await.unwrap(), 0);
    drop(client);
    closing.await.unwrap();
    assert_eq!(stream.write.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(stream.read.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn violations_end_the_connection() {
    for bytes in [
        // Another version, a control frame that is too large, too short, and a block that is no zlib stream.
        &[0x80, 2, 0, 1, 0, 0, 0, 0][..],
        &[0x80, 3, 0, 1, 0, 1, 0, 1],
        &[0x80, 3, 0, 3, 0, 0, 0, 2, 0, 0],
        &[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9],
    ] {
        let (mut client, connection, mut streams) = start(settings());
        client.io.write_all(bytes).await.unwrap();
        timeout(Duration::from_secs(5), connection.ended()).await.expect("ends");
        assert!(streams.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_idle_only_so_long() {
    let (mut client, connection, _streams) =
        start(Settings { idle_timeout: Duration::from_secs(60), ..settings() });
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.control(6, 0, &[0, 0, 0, 1]).await;
    client.expect_control(6, &[0, 0, 0, 1]).await;
    connection.ended().await;
    assert_eq!(start.elapsed().as_secs(), 110);
    client.expect_control(7, &[0, 0, 0, 0]).await;
}

/// What is not read is bounded, whatever the sizes of frames, and the client waits.
#[tokio::test]
async fn a_stream_that_is_not_read_stalls_the_client_and_not_the_memory() {
    let (mut client, _connection, mut streams) = start(settings());
    client.open(1, &[]).await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    let mut stream = streams.recv().await.unwrap();
    let mut sent = 0u64;
    while timeout(Duration::from_millis(200), client.data(1, 0, &[7; 10_000])).await.is_ok() {
        sent += 10_000;
        assert!(sent < 1 << 20);
    }
    assert!(sent > 200_000, "{sent}");
    let mut read = vec![0; 200_000];
    stream.read.read_exact(&mut read).await.unwrap();
    assert!(read.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_the_writer_and_not_the_memory() {
    let (mut client, _connection, mut streams) = start(settings());
    client.open(1, &[]).await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    let mut stream = streams.recv().await.unwrap();
    let mut sent = 0;
    while timeout(Duration::from_millis(200), stream.write.write_all(&[7; 10_000])).await.is_ok() {
        sent += 10_000;
        assert!(sent < 1 << 20);
    }
    assert!(sent > 200_000, "{sent}");
}

/// Nobody reads the stream any longer: what the client sends is discarded and does not stall the others.
#[tokio::test]
async fn what_nobody_reads_is_discarded() {
    let (mut client, _connection, mut streams) = start(settings());
    client.open(1, &[]).await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    let stream = streams.recv().await.unwrap();
    drop(stream.read);
    for _ in 0..100 {
        client.data(1, 0, &[7; 100_000]).await;
    }
    client.control(6, 0, &[0, 0, 0, 1]).await;
    client.expect_control(6, &[0, 0, 0, 1]).await;
}

#[tokio::test]
async fn the_frames_of_spdystream_are_read() {
    let (mut client, connection, mut streams) = start(settings());
    client.io.write_all(&FRAMES.concat()).await.unwrap();
    let (mut error, mut data) = (streams.recv().await.unwrap(), streams.recv().await.unwrap());
    for (stream, kind) in [(&error, "error"), (&data, "data")] {
        let headers = ["streamType", "port", "requestID"].map(|name| stream.headers.get(name));
        assert_eq!(headers, [kind, "8080", "0"]);
    }
    assert_eq!(error.read.read(&mut [0; 8]).await.unwrap(), 0);
    let mut hello = [0; 5];
    data.read.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(data.read.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    connection.ended().await;
    client.expect_control(2, &[0, 0, 0, 1]).await;
    client.expect_control(2, &[0, 0, 0, 3]).await;
    client.expect_control(6, &[0, 0, 0, 1]).await;
}

/// What `spdy.Framer` of moby/spdystream 0.5.1 writes for a port: an error stream, a data stream, data, the end of the
/// error stream, a reset, a ping and a farewell.
const FRAMES: &[&[u8]] = &[
    b"\x80\x03\x00\x01\x00\x00\x00\x3e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x78\xf9\xe3\xc6\xa7\xc2\x02\x25\x3a\x48\xf9",
    b"\x5b\x04\x4e\xea\x16\x06\x16\x06\x0c\x0c\x0c\x9c\x45\x90\xf8\xca\x04\xa5\x63\x46\x03\x70\x4a\x2c\x29\x4a\x4d\xcc\x85\x16",
    b"\x36\xac\xa9\xa0\xa8\x00\x00\x00\x00\xff\xff",
    b"\x80\x03\x00\x01\x00\x00\x00\x1a\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x82\x6a\x46\x95\x02\x95\x43\x89\x84\x8d",
    b"\x04\x00\x00\x00\xff\xff",
    b"\x00\x00\x00\x03\x00\x00\x00\x05hello",
    b"\x00\x00\x00\x01\x01\x00\x00\x00",
    b"\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00\x05",
    b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01",
    b"\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00",
];

/// Bytes that were damaged in any way end the connection or do nothing; nothing hangs and nothing panics.
#[tokio::test]
async fn damaged_frames_are_survived() {
    let mut random = Xorshift(1);
    for _ in 0..2000 {
        let bytes = random.damage(FRAMES.concat());
        let (mut client, connection, streams) = start(settings());
        drop(streams);
        client.io.write_all(&bytes).await.unwrap();
        client.io.shutdown().await.unwrap();
        timeout(Duration::from_secs(10), connection.ended()).await.expect("ends");
    }
}

/// Numbers that are the same in every run.
pub(crate) struct Xorshift(pub(crate) u64);

impl Xorshift {
    /// Changes, cuts or adds up to four bytes.
    pub(crate) fn damage(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let place = self.below(bytes.len());
            match self.below(3) {
                0 => bytes[place] = self.below(256) as u8,
                1 => bytes.truncate(place.max(1)),
                _ => bytes.insert(place, self.below(256) as u8),
            }
        }
        bytes
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % limit
    }
}
