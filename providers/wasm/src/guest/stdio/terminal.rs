//! A terminal's line discipline: what stands between the keys that a client presses and a guest's standard input.
//!
//! WASI knows whether a stream is a terminal and nothing else about it, so there is only the ordinary mode: lines can be
//! edited until they end, and what is typed is shown. The client's own terminal does neither.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use super::output::{Followers, carriage_returned};
use super::pipe::PipeWriter;

const INTERRUPT: u8 = 3;
const END_OF_INPUT: u8 = 4;
const BACKSPACE: u8 = 8;
const KILL_LINE: u8 = 21;
const DELETE: u8 = 127;

/// The longest line, as Linux has it; more is not taken until the line ends.
const LONGEST_LINE: usize = 4095;
/// Keys that are handled at once.
const ONE_WRITE: usize = 1024;

/// The client's end of a terminal: keys go in.
pub(super) struct Terminal {
    /// None once the end was typed.
    input: Option<PipeWriter>,
    screen: Arc<Followers>,
    interrupted: CancellationToken,
    line: Vec<u8>,
}

impl Terminal {
    pub(super) fn new(input: PipeWriter, screen: Arc<Followers>, interrupted: CancellationToken) -> Self {
        Self { input: Some(input), screen, interrupted, line: Vec::new() }
    }

    fn key(&mut self, key: u8) {
        match key {
            b'\r' | b'\n' => {
                self.line.push(b'\n');
                self.screen.push(b"\r\n");
                self.hand_over();
            }
            BACKSPACE | DELETE => {
                if self.rub_out() {
                    self.screen.push(b"\x08 \x08");
                }
            }
            KILL_LINE => {
                while self.rub_out() {
                    self.screen.push(b"\x08 \x08");
                }
            }
            INTERRUPT => {
                self.screen.push(b"^C\r\n");
                self.line.clear();
                self.interrupted.cancel();
            }
            END_OF_INPUT if self.line.is_empty() => self.input = None,
            END_OF_INPUT => self.hand_over(),
            _ if self.line.len() >= LONGEST_LINE => {}
            _ => {
                self.line.push(key);
                if key.is_ascii_control() && key != b'\t' {
                    self.screen.push(&[b'^', key ^ 0x40]);
                } else {
                    self.screen.push(&carriage_returned(&[key]));
                }
            }
        }
    }

    fn hand_over(&mut self) {
        let line = std::mem::take(&mut self.line);
        if let Some(input) = &self.input {
            input.push(&line);
        }
    }

    /// Takes back the last character, all bytes of it. Answers whether there was one.
    fn rub_out(&mut self) -> bool {
        let Some(mut last) = self.line.pop() else { return false };
        // Further bytes of a character in UTF-8 begin with 10.
        while last & 0xc0 == 0x80 {
            let Some(before) = self.line.pop() else { break };
            last = before;
        }
        true
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, keys: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.screen.poll_room(cx));
        if let Some(input) = &self.input {
            ready!(input.poll_room(cx));
        }
        let n = keys.len().min(ONE_WRITE);
        keys[..n].iter().for_each(|&key| self.key(key));
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::guest::stdio::pipe::pipe;

    /// What a guest reads, what is seen, and whether it is interrupted, after such keys and the end of the client.
    async fn typed(keys: &[u8]) -> (String, String, bool) {
        let (writer, mut reader) = pipe();
        let screen = Arc::new(Followers::default());
        let mut seen = screen.join();
        let interrupted = CancellationToken::new();
        let mut terminal = Terminal::new(writer, screen.clone(), interrupted.clone());
        terminal.write_all(keys).await.unwrap();
        drop(terminal);
        screen.end();
        let (mut read, mut shown) = (String::new(), String::new());
        reader.read_to_string(&mut read).await.unwrap();
        seen.read_to_string(&mut shown).await.unwrap();
        (read, shown, interrupted.is_cancelled())
    }

    #[tokio::test]
    async fn lines_are_shown_edited_and_handed_over_when_they_end() {
        for (keys, read, shown) in [
            ("one\rtwo\n", "one\ntwo\n", "one\r\ntwo\r\n"),
            ("unfinished", "", "unfinished"),
            ("ax\x7fb\r", "ab\n", "ax\x08 \x08b\r\n"),
            ("aä\x08b\r", "ab\n", "aä\x08 \x08b\r\n"),
            ("\x7f\r", "\n", "\r\n"),
            ("no\x15yes\r", "yes\n", "no\x08 \x08\x08 \x08yes\r\n"),
            ("part\x04\r", "part\n", "part\r\n"),
            ("a\r\x04b\r", "a\n", "a\r\nb\r\n"),
            ("\x1b[A\t\r", "\x1b[A\t\n", "^[[A\t\r\n"),
        ] {
            assert_eq!(typed(keys.as_bytes()).await, (read.into(), shown.into(), false), "{keys:?}");
        }
    }

    #[tokio::test]
    async fn control_c_interrupts() {
        assert_eq!(typed(b"half\x03").await, (String::new(), "half^C\r\n".into(), true));
    }
}
