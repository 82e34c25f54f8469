//! Decides what of each line goes to the sink.

use std::ops::ControlFlow;

use tracing::debug;

use super::buffer::Piece;
use super::line::{Header, LogStream};
use super::{LogOptions, LogSink, ReadLogsError};

/// How much of an unreadable line an error shows.
const SHOWN_OF_BAD_LINE: usize = 128;

/// Passes on what the options ask for (`logWriter`).
pub(super) struct LogWriter<'a, S> {
    options: &'a LogOptions,
    sink: &'a mut S,
    remaining_bytes: u64,
    /// Lines still wanted: those that were there when the reading began. None while following.
    remaining_lines: Option<u64>,
    /// The line that the next piece may continue; none if it is unreadable.
    header: Option<Header>,
    seen_a_line: bool,
    /// Whether the output is at the beginning of a line, where a time belongs.
    at_line_start: bool,
    /// Reused for every time that is written.
    prefix: Vec<u8>,
}

impl<'a, S: LogSink> LogWriter<'a, S> {
    pub(super) fn new(options: &'a LogOptions, sink: &'a mut S) -> Self {
        Self {
            options,
            sink,
            remaining_bytes: options.limit_bytes.unwrap_or(u64::MAX),
            remaining_lines: options.tail_lines.filter(|_| !options.follow),
            header: None,
            seen_a_line: false,
            at_line_start: true,
            prefix: Vec::new(),
        }
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_done(&self) -> bool {
        self.remaining_bytes == 0 || self.remaining_lines == Some(0)
    }

    /// Takes the next piece; breaks when nothing more is wanted.
    pub(super) async fn write(&mut self, piece: Piece<'_>) -> Result<ControlFlow<()>, ReadLogsError> {
        let content = if piece.starts_line { self.start_line(piece.bytes)? } else { piece.bytes };
        let Some(header) = self.header else {
            return Ok(ControlFlow::Continue(()));
        };
        let wanted = self.options.stream.is_none_or(|stream| stream == header.stream)
            && self.options.since.is_none_or(|since| header.timestamp >= since);
        if wanted {
            let stream = header.stream;
            let content =
                if header.partial { content.strip_suffix(b"\n").unwrap_or(content) } else { content };
            if self.options.timestamps && self.at_line_start && piece.starts_line {
                self.prefix.clear();
                header.write_prefix(&mut self.prefix);
                let prefix = std::mem::take(&mut self.prefix);
                self.emit(stream, &prefix).await?;
                self.prefix = prefix;
            }
            self.emit(stream, content).await?;
        }
        if piece.ends_line {
            self.remaining_lines = self.remaining_lines.map(|lines| lines.saturating_sub(1));
        }
        Ok(if self.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    pub(super) async fn flush(&mut self) -> Result<(), ReadLogsError> {
        self.sink.flush().await.map_err(ReadLogsError::Sink)
    }

    /// Notes the header of a line and returns its content. A line without a header is skipped, unless it is the first:
    /// then the whole file is something else.
    fn start_line<'b>(&mut self, line: &'b [u8]) -> Result<&'b [u8], ReadLogsError> {
        let first = !std::mem::replace(&mut self.seen_a_line, true);
        match Header::parse(line) {
            Some((header, content)) => {
                self.header = Some(header);
                Ok(content)
            }
            None if first => {
                let shown = &line[..line.len().min(SHOWN_OF_BAD_LINE)];
                Err(ReadLogsError::UnsupportedFormat { line: String::from_utf8_lossy(shown).into_owned() })
            }
            None => {
                debug!(length = line.len(), "skipped a line of a log that is not in CRI's format");
                self.header = None;
                Ok(&[])
            }
        }
    }

    async fn emit(&mut self, stream: LogStream, content: &[u8]) -> Result<(), ReadLogsError> {
        let length = content.len().min(usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX));
        let content = &content[..length];
        let Some(last) = content.last() else {
            return Ok(());
        };
        self.at_line_start = *last == b'\n';
        self.remaining_bytes -= length as u64;
        self.sink.write(stream, content).await.map_err(ReadLogsError::Sink)
    }
}
