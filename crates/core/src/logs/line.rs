//! One line of a log in CRI's format: `<time> <stdout|stderr> <tag[:tag…]> <content>`.

use std::io::Write;

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// Which of its two streams a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a line says about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) timestamp: Timestamp,
    /// The zone that the runtime wrote the time in.
    offset: Offset,
    pub(super) stream: LogStream,
    /// The runtime cut the line here (tag `P`): no newline belongs after the content.
    pub(super) partial: bool,
}

impl Header {
    /// Splits a line into its header and its content; none if it has no header (`parseCRILog`).
    pub(super) fn parse(line: &[u8]) -> Option<(Self, &[u8])> {
        let (time, rest) = split_at_space(line)?;
        let (stream, rest) = split_at_space(rest)?;
        let (tags, content) = split_at_space(rest)?;
        let (timestamp, offset) = parse_time(time)?;
        let stream = match stream {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return None,
        };
        // Further tags are reserved by CRI, and must not make a line unreadable.
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        Some((Self { timestamp, offset, stream, partial }, content))
    }

    /// Appends the time as `kubectl logs --timestamps` shows it: RFC 3339 with always nine digits, in the zone of the line.
    pub(super) fn write_prefix(&self, out: &mut Vec<u8>) {
        let local = self.offset.to_datetime(self.timestamp);
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{local:.9}");
        let minutes = self.offset.seconds() / 60;
        if minutes == 0 {
            out.push(b'Z');
        } else {
            let sign = if minutes < 0 { '-' } else { '+' };
            let _ = write!(out, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        }
        out.push(b' ');
    }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

fn parse_time(text: &[u8]) -> Option<(Timestamp, Offset)> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    let timestamp = offset.to_timestamp(pieces.date().to_datetime(pieces.time()?)).ok()?;
    Some((timestamp, offset))
}
