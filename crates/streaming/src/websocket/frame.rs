//! Frames on the wire: RFC 6455, section 5.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::pipe::CHUNK;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const RESERVED: u8 = 0x70;

/// The most bytes of a control frame.
const MAX_CONTROL: u64 = 125;

/// `1000`: the purpose of the connection is fulfilled.
const NORMAL: u16 = 1000;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What the client did that ends the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error("a frame with a reserved bit or type: no extension was agreed on")]
    Reserved,
    #[error("a frame of a client that is not masked")]
    Unmasked,
    #[error("a control frame that is fragmented or has more than 125 bytes")]
    Control,
    #[error("a message inside another, or a continuation of none")]
    Fragmentation,
    #[error("a message that is not {0}")]
    Message(&'static str),
}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        Self::new(io::ErrorKind::InvalidData, violation)
    }
}

/// What the client sends.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// A piece of a message; the last piece may be empty.
    Piece {
        is_text: bool,
        is_last: bool,
        bytes: Bytes,
    },
    Ping(Vec<u8>),
    Close,
}

/// Reads and unmasks frames.
pub(super) struct FrameReader<R> {
    io: BufReader<R>,
    message: Option<Message>,
    frame: Frame,
}

#[derive(Clone, Copy)]
struct Message {
    is_text: bool,
    is_last_frame: bool,
}

/// The rest of the frame that is being read.
#[derive(Default)]
struct Frame {
    remaining: u64,
    mask: [u8; 4],
}

impl Frame {
    fn unmask(&mut self, bytes: &mut [u8]) {
        for (byte, mask) in bytes.iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(bytes.len() % 4);
        self.remaining -= bytes.len() as u64;
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io: BufReader::with_capacity(CHUNK, io), message: None, frame: Frame::default() }
    }

    /// What comes next; an end without a Close frame is an error.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            if self.frame.remaining > 0
                && let Some(message) = self.message
            {
                return self.piece(message).await;
            }
            let [first, second] = self.bytes().await?;
            let length = self.length(second).await?;
            if first & RESERVED != 0 {
                return Err(Violation::Reserved.into());
            }
            if second & MASKED == 0 {
                return Err(Violation::Unmasked.into());
            }
            self.frame = Frame { remaining: length, mask: self.bytes().await? };
            match first & !FIN {
                kind @ (CONTINUATION | TEXT | BINARY) => {
                    let message = self.begin(kind, first & FIN != 0)?;
                    if length == 0 && message.is_last_frame {
                        return self.piece(message).await;
                    }
                }
                kind @ (CLOSE | PING | PONG) => {
                    if first & FIN == 0 || length > MAX_CONTROL {
                        return Err(Violation::Control.into());
                    }
                    let mut payload = vec![0; length as usize];
                    self.io.read_exact(&mut payload).await?;
                    self.frame.unmask(&mut payload);
                    match kind {
                        CLOSE => return Ok(Event::Close),
                        PING => return Ok(Event::Ping(payload)),
                        _ => {}
                    }
                }
                _ => return Err(Violation::Reserved.into()),
            }
        }
    }

    fn begin(&mut self, kind: u8, is_last_frame: bool) -> Result<Message, Violation> {
        let message = match (kind, self.message) {
            (CONTINUATION, Some(message)) => Message { is_last_frame, ..message },
            (TEXT | BINARY, None) => Message { is_text: kind == TEXT, is_last_frame },
            _ => return Err(Violation::Fragmentation),
        };
        self.message = Some(message);
        Ok(message)
    }

    async fn piece(&mut self, message: Message) -> io::Result<Event> {
        let mut bytes = Vec::new();
        if self.frame.remaining > 0 {
            let arrived = self.io.fill_buf().await?;
            if arrived.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = usize::try_from(self.frame.remaining).unwrap_or(usize::MAX).min(arrived.len());
            bytes.extend_from_slice(&arrived[..length]);
            self.io.consume(length);
            self.frame.unmask(&mut bytes);
        }
        let is_last = self.frame.remaining == 0 && message.is_last_frame;
        if is_last {
            self.message = None;
        }
        Ok(Event::Piece { is_text: message.is_text, is_last, bytes: bytes.into() })
    }

    async fn length(&mut self, second: u8) -> io::Result<u64> {
        Ok(match second & !MASKED {
            126 => u16::from_be_bytes(self.bytes().await?).into(),
            127 => u64::from_be_bytes(self.bytes().await?),
            short => short.into(),
        })
    }

    async fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.io.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}

/// Appends a message, made of two parts.
pub(super) fn message(is_text: bool, first: &[u8], second: &[u8], out: &mut Vec<u8>) {
    head(if is_text { TEXT } else { BINARY }, first.len() + second.len(), out);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
}

/// Answers a ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + payload.len());
    head(PONG, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

/// Ends the connection, for no fault.
pub(super) fn close(out: &mut Vec<u8>) {
    head(CLOSE, 2, out);
    out.extend(NORMAL.to_be_bytes());
}

fn head(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(FIN | kind);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A client's frame.
    pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut out = Vec::new();
        head(first & 0x0f, payload.len(), &mut out);
        out[0] = first;
        out[1] |= MASKED;
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    async fn events(bytes: &[u8]) -> (Vec<Event>, io::Error) {
        let mut reader = FrameReader::new(bytes);
        let mut events = Vec::new();
        loop {
            match reader.next().await {
                Ok(event) => events.push(event),
                Err(error) => return (events, error),
            }
        }
    }

    fn piece(is_text: bool, is_last: bool, bytes: &'static [u8]) -> Event {
        Event::Piece { is_text, is_last, bytes: Bytes::from_static(bytes) }
    }

    /// The masked and the fragmented example of RFC 6455, section 5.7.
    #[tokio::test]
    async fn the_examples_of_the_standard() {
        let (got, error) = events(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58").await;
        assert_eq!(got, [piece(true, true, b"Hello")]);
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let fragments = [masked(0x01, b"Hel"), masked(0x89, b"Hello"), masked(0x80, b"lo")].concat();
        let ping = Event::Ping(b"Hello".to_vec());
        assert_eq!(events(&fragments).await.0, [piece(true, false, b"Hel"), ping, piece(true, true, b"lo")]);
    }

    #[tokio::test]
    async fn messages_have_an_end_even_if_it_is_empty() {
        let frames = [masked(0x82, b""), masked(0x02, b""), masked(0x00, b"a"), masked(0x80, b"")].concat();
        let expected = [piece(false, true, b""), piece(false, false, b"a"), piece(false, true, b"")];
        assert_eq!(events(&frames).await.0, expected);
        assert_eq!(
            events(&[masked(0x8a, b"pong"), masked(0x88, b"\x03\xe8")].concat()).await.0,
            [Event::Close]
        );
    }

    #[tokio::test]
    async fn large_frames_come_in_pieces() {
        let payload: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let (got, _) = events(&masked(0x82, &payload)).await;
        assert!(got.len() > 3);
        let mut joined = Vec::new();
        for (index, event) in got.iter().enumerate() {
            let Event::Piece { is_last, bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!(*is_last, index + 1 == got.len());
            joined.extend_from_slice(bytes);
        }
        assert_eq!(joined, payload);
    }

    #[tokio::test]
    async fn violations_are_errors() {
        for (frames, what) in [
            (masked(0xc2, b"compressed"), "reserved"),
            (masked(0x83, b""), "reserved"),
            (b"\x82\x01a".to_vec(), "not masked"),
            (masked(0x09, b"fragmented"), "control frame"),
            (masked(0x89, &[0; 126]), "control frame"),
            (masked(0x80, b"of none"), "continuation"),
            ([masked(0x02, b"a"), masked(0x82, b"b")].concat(), "inside another"),
        ] {
            let (_, error) = events(&frames).await;
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn frames_are_written() {
        let mut out = Vec::new();
        message(false, b"\x01", b"hi", &mut out);
        close(&mut out);
        assert_eq!(out, b"\x82\x03\x01hi\x88\x02\x03\xe8");
        assert_eq!(pong(b"x"), b"\x8a\x01x");
        for (length, start) in [(126, &b"\x82\x7e\x00\x7e"[..]), (65536, b"\x82\x7f\0\0\0\0\0\x01\0\0")] {
            out.clear();
            message(false, &[], &vec![0; length], &mut out);
            assert!(out.starts_with(start) && out.len() == start.len() + length);
        }
    }
}
