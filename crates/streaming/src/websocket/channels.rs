//! Streams that share a WebSocket: the first byte of a message is the number of its channel. After `wsstream/conn.go` of
//! `k8s.io/streaming`.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frame::{self, Event, FrameReader, Violation};
use crate::connection::{Encoder, Shared, drive, write};
use crate::pipe::{Arrival, ReadHalf, WriteHalf, cost};

/// What a message starts with that half-closes the channel of the next byte, in protocols that know it.
const CLOSE_SIGNAL: u8 = 255;

/// How the bytes of channels travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Codec {
    /// A byte for the channel, and the bytes.
    Binary,
    /// A digit for the channel, and the bytes in base64.
    Base64,
}

impl Codec {
    fn channel(self, first: u8) -> usize {
        usize::from(if self == Self::Base64 { first.wrapping_sub(b'0') } else { first })
    }

    /// Appends a message of a channel.
    pub(crate) fn encode(self, channel: u32, bytes: &[u8], out: &mut Vec<u8>) {
        let channel = channel as u8;
        match self {
            Self::Binary => frame::message(false, &[channel], bytes, out),
            Self::Base64 => {
                let digit = channel.wrapping_add(b'0');
                frame::message(true, &[digit], STANDARD.encode(bytes).as_bytes(), out);
            }
        }
    }
}

/// What holds for a connection.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Without a message for so long, the connection ends; zero is for ever.
    pub(crate) idle_timeout: Duration,
    pub(crate) codec: Codec,
    /// Whether the client can half-close channels (`protocolSupportsStreamClose`).
    pub(crate) has_close_signal: bool,
    /// For each channel, whether the client writes to it.
    pub(crate) is_read: Vec<bool>,
    /// When the last of these is finished, the connection ends. If there are none, it ends when it is closed.
    pub(crate) ends_with: BTreeSet<u32>,
}

/// A connection: what its parts share, what the client writes to the channels that are read, and the future that does
/// the work.
pub(crate) fn serve<T>(
    io: T,
    settings: Settings,
) -> (Shared, Vec<Option<ReadHalf>>, impl Future<Output = ()> + Send)
where
    T: AsyncRead + AsyncWrite + Send,
{
    let (shared, commands) = Shared::new();
    let (input, output) = tokio::io::split(io);
    let (senders, readers) = settings.is_read.iter().map(|is_read| channel(*is_read)).unzip();
    let demultiplexer = Demultiplexer {
        codec: settings.codec,
        has_close_signal: settings.has_close_signal,
        shared: shared.clone(),
        channels: senders,
        message: Message::Start,
    };
    let encoder = Multiplexer { codec: settings.codec, ends_with: settings.ends_with };
    let writing = write(output, commands, encoder, shared.activity.clone());
    let reading = demultiplexer.run(FrameReader::new(input));
    let driver = drive(shared.clone(), settings.idle_timeout, reading, writing);
    (shared, readers, driver)
}

type Sender = mpsc::UnboundedSender<Arrival>;

fn channel(is_read: bool) -> (Option<Sender>, Option<ReadHalf>) {
    if !is_read {
        return (None, None);
    }
    let (sender, arrivals) = mpsc::unbounded_channel();
    (Some(sender), Some(ReadHalf::new(arrivals)))
}

/// The writer of a channel.
pub(crate) fn writer(shared: &Shared, channel: u32) -> WriteHalf {
    WriteHalf::new(channel, shared.commands.clone(), shared.write_room.clone(), Arc::default())
}

struct Multiplexer {
    codec: Codec,
    ends_with: BTreeSet<u32>,
}

impl Encoder for Multiplexer {
    fn data(&mut self, channel: u32, bytes: &[u8], out: &mut Vec<u8>) {
        self.codec.encode(channel, bytes, out);
    }

    /// The protocol has no word for it: the client learns it from the end of the connection.
    fn finish(&mut self, channel: u32, _: &mut Vec<u8>) -> bool {
        self.ends_with.remove(&channel) && self.ends_with.is_empty()
    }

    fn reset(&mut self, channel: u32, out: &mut Vec<u8>) -> bool {
        self.finish(channel, out)
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        frame::close(out);
    }
}

struct Demultiplexer {
    codec: Codec,
    has_close_signal: bool,
    shared: Shared,
    /// `None` for those that are not read, or half-closed.
    channels: Vec<Option<Sender>>,
    message: Message,
}

/// What is known of the message that is being read.
enum Message {
    Start,
    /// Of a channel, with base64 that is no whole group yet.
    Data {
        channel: usize,
        rest: Vec<u8>,
    },
    /// A close signal, with what follows it.
    Close(Vec<u8>),
}

impl Demultiplexer {
    async fn run<R: AsyncRead + Unpin>(mut self, mut frames: FrameReader<R>) -> io::Result<()> {
        loop {
            match frames.next().await? {
                Event::Piece { is_last, bytes, .. } => {
                    self.shared.activity.touch();
                    self.piece(bytes).await?;
                    if is_last {
                        self.end_message()?;
                    }
                }
                Event::Ping(payload) => self.shared.reply(frame::pong(&payload)).await?,
                Event::Close => {
                    for channel in self.channels.iter_mut().filter_map(Option::take) {
                        let _ = channel.send(Arrival::End);
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn piece(&mut self, mut bytes: Bytes) -> io::Result<()> {
        if matches!(self.message, Message::Start) && !bytes.is_empty() {
            let first = bytes.split_to(1)[0];
            self.message = if self.has_close_signal && first == CLOSE_SIGNAL {
                Message::Close(Vec::new())
            } else {
                Message::Data { channel: self.codec.channel(first), rest: Vec::new() }
            };
        }
        match &mut self.message {
            Message::Start => Ok(()),
            Message::Close(channels) if channels.len() + bytes.len() > 1 => Err(signal().into()),
            Message::Close(channels) => {
                channels.extend_from_slice(&bytes);
                Ok(())
            }
            Message::Data { channel, rest } => {
                let channel = *channel;
                let bytes = match self.codec {
                    Codec::Binary => bytes,
                    Codec::Base64 => decode(rest, &bytes)?,
                };
                self.deliver(channel, bytes).await
            }
        }
    }

    fn end_message(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.message, Message::Start) {
            Message::Data { rest, .. } if !rest.is_empty() => Err(Violation::Message("base64").into()),
            Message::Start | Message::Data { .. } => Ok(()),
            Message::Close(channel) => {
                let channel = channel.first().and_then(|it| self.channels.get_mut(usize::from(*it)));
                if let Some(sender) = channel.ok_or_else(signal)?.take() {
                    let _ = sender.send(Arrival::End);
                }
                Ok(())
            }
        }
    }

    /// Waits while the channels are not read. What is for no channel, or one that nobody reads, is discarded.
    async fn deliver(&mut self, channel: usize, bytes: Bytes) -> io::Result<()> {
        let Some(Some(sender)) = self.channels.get(channel) else { return Ok(()) };
        if bytes.is_empty() || sender.is_closed() {
            return Ok(());
        }
        let room = self.shared.read_room.clone().acquire_many_owned(cost(bytes.len())).await;
        let room = room.map_err(|_| io::ErrorKind::BrokenPipe)?;
        let _ = sender.send(Arrival::Chunk { bytes, room });
        Ok(())
    }
}

fn signal() -> Violation {
    Violation::Message("a close signal for a channel")
}

/// As much as there are whole groups of; line breaks are skipped, as Go does.
fn decode(rest: &mut Vec<u8>, bytes: &[u8]) -> io::Result<Bytes> {
    rest.extend(bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    let incomplete = rest.split_off(rest.len() - rest.len() % 4);
    let groups = std::mem::replace(rest, incomplete);
    let decoded = STANDARD.decode(groups).map_err(|_| Violation::Message("base64"))?;
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::timeout;

    use super::super::frame::tests::masked;
    use super::*;
    use crate::connection::Connection;
    use crate::spdy::tests::Xorshift;

    fn start(codec: Codec) -> (DuplexStream, Connection, Shared, Vec<Option<ReadHalf>>) {
        start_with(codec, BTreeSet::new())
    }

    fn start_with(
        codec: Codec,
        ends_with: BTreeSet<u32>,
    ) -> (DuplexStream, Connection, Shared, Vec<Option<ReadHalf>>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let settings = Settings {
            idle_timeout: Duration::ZERO,
            codec,
            has_close_signal: codec == Codec::Binary,
            is_read: vec![true, false, true],
            ends_with,
        };
        let (shared, readers, driver) = serve(theirs, settings);
        let connection = Connection::spawn(&shared, driver);
        (ours, connection, shared, readers)
    }

    async fn read_all(reader: &mut Option<ReadHalf>) -> Result<String, io::ErrorKind> {
        let mut text = String::new();
        let result = reader.as_mut().unwrap().read_to_string(&mut text).await;
        result.map(|_| text).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn messages_go_to_their_channels() {
        let (mut client, _connection, _shared, mut readers) = start(Codec::Binary);
        for message in
            [&b"\x00ab"[..], b"\x01ignored", b"\x02x", b"\x09none", b"", b"\x00cd", b"\xff\x00", b"\x02y"]
        {
            client.write_all(&masked(0x82, message)).await.unwrap();
        }
        assert_eq!(read_all(&mut readers[0]).await.unwrap(), "abcd");
        client.write_all(&masked(0x88, b"")).await.unwrap();
        assert_eq!(read_all(&mut readers[2]).await.unwrap(), "xy");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn fragments_may_split_anything() {
        let (mut client, _connection, _shared, mut readers) = start(Codec::Base64);
        let frames = [
            masked(0x01, b""),
            masked(0x00, b"0"),
            masked(0x00, b"aGV"),
            masked(0x00, b"sb\nG8gd29"),
            masked(0x80, b"ybGQ="),
            masked(0x81, b"2eA=="),
            masked(0x88, b""),
        ];
        client.write_all(&frames.concat()).await.unwrap();
        assert_eq!(read_all(&mut readers[0]).await.unwrap(), "hello world");
        assert_eq!(read_all(&mut readers[2]).await.unwrap(), "x");
    }

    #[tokio::test]
    async fn what_is_written() {
        for (codec, expected) in [
            (Codec::Binary, &b"\x82\x03\x01hi\x82\x01\x02\x88\x02\x03\xe8"[..]),
            (Codec::Base64, b"\x81\x051aGk=\x81\x012\x88\x02\x03\xe8"),
        ] {
            let (mut client, connection, shared, _readers) = start(codec);
            writer(&shared, 1).write_all(b"hi").await.unwrap();
            let mut empty = Vec::new();
            codec.encode(2, &[], &mut empty);
            shared.reply(empty).await.unwrap();
            let closing = tokio::spawn(connection.close());
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, expected, "{codec:?}");
            drop(client);
            closing.await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_last_channel_ends_the_connection() {
        let (mut client, connection, shared, _readers) = start_with(Codec::Binary, BTreeSet::from([0, 2]));
        let (first, second) = (writer(&shared, 0), writer(&shared, 2));
        drop(writer(&shared, 1));
        drop(first);
        client.write_all(&masked(0x89, b"still")).await.unwrap();
        let mut pong = [0; 7];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x05still");
        drop(second);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"\x88\x02\x03\xe8");
        drop(client);
        connection.ended().await;
    }

    #[tokio::test]
    async fn violations_end_the_connection() {
        for (codec, message) in [
            (Codec::Binary, &b"\xff"[..]),
            (Codec::Binary, b"\xff\x00\x00"),
            (Codec::Binary, b"\xff\x07"),
            (Codec::Base64, b"0!!!!"),
            (Codec::Base64, b"0aGV"),
        ] {
            let (mut client, connection, _shared, mut readers) = start(codec);
            client.write_all(&masked(0x82, message)).await.unwrap();
            connection.ended().await;
            let error = read_all(&mut readers[0]).await.unwrap_err();
            assert_eq!(error, io::ErrorKind::ConnectionAborted, "{message:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_vanishes_is_no_end_of_input() {
        let (client, connection, _shared, mut readers) = start(Codec::Binary);
        drop(client);
        connection.ended().await;
        assert_eq!(read_all(&mut readers[0]).await.unwrap_err(), io::ErrorKind::ConnectionAborted);
    }

    /// Bytes that were damaged in any way end the connection or do nothing; nothing hangs and nothing panics.
    #[tokio::test]
    async fn damaged_frames_are_survived() {
        let frames = [
            masked(0x82, b"\x00input"),
            masked(0x01, b"0aGV"),
            masked(0x89, b"ping"),
            masked(0x80, b"sbG8="),
            masked(0x82, &[b'0'; 300]),
            masked(0x82, b"\xff\x00"),
            masked(0x88, b"\x03\xe8"),
        ];
        let mut random = Xorshift(1);
        for round in 0..2000 {
            let codec = if round % 2 == 0 { Codec::Binary } else { Codec::Base64 };
            let (mut client, connection, _shared, readers) = start(codec);
            drop(readers);
            client.write_all(&random.damage(frames.concat())).await.unwrap();
            client.shutdown().await.unwrap();
            timeout(Duration::from_secs(10), connection.ended()).await.expect("ends");
        }
    }
}
