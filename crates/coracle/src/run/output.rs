//! Container output on the terminal, as it comes.

use std::io;
use std::time::Duration;

use coracle_core::host::ContainerLog;
use coracle_core::logs::{LogOptions, LogSink, LogStream, LogWatches, ReadLogsError, read_logs};
use tokio::io::{AsyncWrite, AsyncWriteExt, Stderr, Stdout};

/// How often a log that does not exist yet is looked for: it appears with the first line.
const LOOK_FOR_LOG: Duration = Duration::from_millis(10);

/// Copies a container's output until it has ended and everything is out.
pub(super) async fn follow(log: ContainerLog, prefix: Option<String>) -> Result<(), ReadLogsError> {
    let ContainerLog { path, mut ended } = log;
    while !path.exists() {
        tokio::select! {
            () = &mut ended => {
                ended = Box::pin(std::future::ready(()));
                break;
            }
            () = tokio::time::sleep(LOOK_FOR_LOG) => {}
        }
    }
    if !path.exists() {
        return Ok(());
    }
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut sink = TerminalSink {
        stdout: Prefixed::new(tokio::io::stdout(), prefix.clone()),
        stderr: Prefixed::new(tokio::io::stderr(), prefix),
    };
    read_logs(&path, &options, &LogWatches::default(), ended, &mut sink).await
}

struct TerminalSink {
    stdout: Prefixed<Stdout>,
    stderr: Prefixed<Stderr>,
}

impl LogSink for TerminalSink {
    async fn write(&mut self, stream: LogStream, content: &[u8]) -> io::Result<()> {
        match stream {
            LogStream::Stdout => self.stdout.write(content).await,
            LogStream::Stderr => self.stderr.write(content).await,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stdout.out.flush().await?;
        self.stderr.out.flush().await
    }
}

/// Puts the container's name before every line.
struct Prefixed<W> {
    out: W,
    prefix: Option<String>,
    at_line_start: bool,
}

impl<W: AsyncWrite + Unpin> Prefixed<W> {
    fn new(out: W, prefix: Option<String>) -> Self {
        Self { out, prefix, at_line_start: true }
    }

    /// One write a piece, so that lines of different containers do not mix.
    async fn write(&mut self, content: &[u8]) -> io::Result<()> {
        let Some(prefix) = &self.prefix else { return self.out.write_all(content).await };
        let mut text = Vec::with_capacity(content.len() + prefix.len());
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                text.extend_from_slice(prefix.as_bytes());
            }
            text.extend_from_slice(line);
            self.at_line_start = line.ends_with(b"\n");
        }
        self.out.write_all(&text).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_line_has_its_prefix_once() {
        let mut out = Prefixed::new(Vec::new(), Some("p/c | ".to_owned()));
        for piece in ["one\ntw", "o\n", "three"] {
            out.write(piece.as_bytes()).await.unwrap();
        }
        assert_eq!(String::from_utf8(out.out).unwrap(), "p/c | one\np/c | two\np/c | three");
    }
}
