//! Frames on the wire: SPDY/3.1, section 2.2 and 2.6.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Violation;

/// The most bytes of a control frame that is not skipped.
pub(super) const MAX_CONTROL: usize = 64 * 1024;

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const STREAM_ID: u32 = 0x7fff_ffff;

/// Flag of a frame that is the last one of its stream, in its direction.
const FIN: u8 = 1;

/// Types of control frames that mean something to a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    SynStream,
    SynReply,
    RstStream,
    Ping,
    GoAway,
    Headers,
    /// SETTINGS and WINDOW_UPDATE, which Kubernetes' peers do not use, and what is unknown.
    Other,
}

impl Kind {
    fn new(number: u16) -> Self {
        match number {
            1 => Self::SynStream,
            2 => Self::SynReply,
            3 => Self::RstStream,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::Headers,
            _ => Self::Other,
        }
    }
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug)]
pub(super) enum Status {
    ProtocolError = 1,
    RefusedStream = 3,
    Cancel = 5,
}

/// The first eight bytes of a frame.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) what: What,
    pub(super) is_last: bool,
    /// What follows, in bytes.
    pub(super) length: usize,
}

#[derive(Debug, Eq, PartialEq)]
pub(super) enum What {
    Data { stream: u32 },
    Control(Kind),
}

impl Head {
    /// The next frame's, or `None` at the end of the connection.
    pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = [0; 8];
        if io.read(&mut bytes[..1]).await? == 0 {
            return Ok(None);
        }
        io.read_exact(&mut bytes[1..]).await?;
        Ok(Some(Self::parse(bytes)?))
    }

    fn parse([a, b, c, d, flags, e, f, g]: [u8; 8]) -> Result<Self, Violation> {
        let is_last = flags & FIN != 0;
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        let first = u16::from_be_bytes([a, b]);
        if first & CONTROL == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(Self { what: What::Data { stream }, is_last, length });
        }
        if first & !CONTROL != VERSION {
            return Err(Violation::Version(first & !CONTROL));
        }
        let kind = Kind::new(u16::from_be_bytes([c, d]));
        Ok(Self { what: What::Control(kind), is_last, length })
    }
}

/// A stream's number at some place of a control frame.
pub(super) fn stream_id(payload: &[u8]) -> Result<u32, Violation> {
    let bytes = payload.first_chunk().ok_or(Violation::ShortFrame)?;
    Ok(u32::from_be_bytes(*bytes) & STREAM_ID)
}

/// Appends a frame of data.
pub(super) fn data(stream: u32, is_last: bool, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(stream.to_be_bytes());
    out.extend(flags_and_length(if is_last { FIN } else { 0 }, bytes.len()));
    out.extend_from_slice(bytes);
}

/// Accepts a stream.
pub(super) fn syn_reply(stream: u32, headers: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + headers.len());
    control(2, 4 + headers.len(), &mut out);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(headers);
    out
}

/// Ends a stream in both directions.
pub(super) fn rst_stream(stream: u32, status: Status, out: &mut Vec<u8>) {
    control(3, 8, out);
    out.extend(stream.to_be_bytes());
    out.extend((status as u32).to_be_bytes());
}

/// Answers a ping.
pub(super) fn ping(id: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    control(6, 4, &mut out);
    out.extend(id.to_be_bytes());
    out
}

/// Ends the connection, for no fault.
pub(super) fn go_away(last_stream: u32, out: &mut Vec<u8>) {
    control(7, 8, out);
    out.extend(last_stream.to_be_bytes());
    out.extend(0u32.to_be_bytes());
}

fn control(kind: u16, length: usize, out: &mut Vec<u8>) {
    out.extend((CONTROL | VERSION).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(flags_and_length(0, length));
}

fn flags_and_length(flags: u8, length: usize) -> [u8; 4] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    [flags, a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as in the figures of the standard.
    #[tokio::test]
    async fn heads_are_read() {
        let bytes = [[0x80, 3, 0, 1, 0, 0, 1, 2], [0, 0, 0, 5, 1, 1, 0, 0], [0x80, 3, 0, 9, 0, 0, 0, 8]];
        let mut io = &bytes.concat()[..];
        let expected = [
            Head { what: What::Control(Kind::SynStream), is_last: false, length: 258 },
            Head { what: What::Data { stream: 5 }, is_last: true, length: 65536 },
            Head { what: What::Control(Kind::Other), is_last: false, length: 8 },
        ];
        for head in expected {
            assert_eq!(Head::read(&mut io).await.unwrap(), Some(head));
        }
        assert_eq!(Head::read(&mut io).await.unwrap(), None);
        let error = Head::read(&mut &[0x80, 2, 0, 1, 0, 0, 0, 0][..]).await.unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        let error = Head::read(&mut &[0x80, 3, 0][..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn frames_are_written() {
        let mut out = Vec::new();
        data(3, false, b"hi", &mut out);
        data(3, true, b"", &mut out);
        assert_eq!(out, [0, 0, 0, 3, 0, 0, 0, 2, b'h', b'i', 0, 0, 0, 3, 1, 0, 0, 0]);
        out.clear();
        rst_stream(7, Status::Cancel, &mut out);
        assert_eq!(out, [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 5]);
        out.clear();
        go_away(9, &mut out);
        assert_eq!(out, [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0]);
        assert_eq!(syn_reply(1, b"z"), [0x80, 3, 0, 2, 0, 0, 0, 5, 0, 0, 0, 1, b'z']);
        assert_eq!(ping(1), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    }
}
