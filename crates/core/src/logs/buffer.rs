//! Cuts a file into lines within a fixed amount of memory.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is handled as a whole. Runtimes cut lines at 16 KiB; one that does not cut them cannot make
/// the kubelet hold a gigabyte, because a longer line passes through in pieces.
const LINE_BUFFER_SIZE: usize = 32 * 1024;

/// A line with its newline, or a piece of a line that is too long for the buffer or not finished.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) starts_line: bool,
    pub(super) ends_line: bool,
}

/// Holds what was read and not yet handed out.
pub(super) struct LineBuffer {
    data: Box<[u8]>,
    start: usize,
    end: usize,
    /// Whether the next piece continues a line.
    in_line: bool,
}

impl LineBuffer {
    pub(super) fn new() -> Self {
        Self { data: vec![0; LINE_BUFFER_SIZE].into(), start: 0, end: 0, in_line: false }
    }

    /// Reads more; 0 at the end of the source. There is room after `next_piece` has answered none.
    pub(super) async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.data.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let read = source.read(&mut self.data[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    /// The next line, or the next piece of an overlong one; none if more must be read first.
    pub(super) fn next_piece(&mut self) -> Option<Piece<'_>> {
        let held = &self.data[self.start..self.end];
        match held.iter().position(|byte| *byte == b'\n') {
            Some(newline) => Some(self.take(newline + 1, true)),
            None if held.len() == self.data.len() => Some(self.take(held.len(), false)),
            None => None,
        }
    }

    /// A last line that never got its newline. What is read after this begins a line.
    pub(super) fn take_unfinished(&mut self) -> Option<Piece<'_>> {
        let held = self.end - self.start;
        if held == 0 {
            self.in_line = false;
            return None;
        }
        Some(self.take(held, true))
    }

    fn take(&mut self, length: usize, ends_line: bool) -> Piece<'_> {
        let bytes = &self.data[self.start..self.start + length];
        let starts_line = !self.in_line;
        self.in_line = !ends_line;
        self.start += length;
        Piece { bytes, starts_line, ends_line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pieces of a source, as (length, starts a line, ends a line).
    async fn cut(mut source: &[u8]) -> Vec<(usize, bool, bool)> {
        let mut buffer = LineBuffer::new();
        let mut pieces = Vec::new();
        let mut note =
            |piece: Piece<'_>| pieces.push((piece.bytes.len(), piece.starts_line, piece.ends_line));
        loop {
            while let Some(piece) = buffer.next_piece() {
                note(piece);
            }
            if buffer.fill(&mut source).await.unwrap() == 0 {
                break;
            }
        }
        if let Some(piece) = buffer.take_unfinished() {
            note(piece);
        }
        pieces
    }

    #[tokio::test]
    async fn lines_come_whole() {
        assert_eq!(cut(b"ab\n\nc").await, [(3, true, true), (1, true, true), (1, true, true)]);
    }

    #[tokio::test]
    async fn an_overlong_line_comes_in_pieces() {
        let mut source = vec![b'x'; LINE_BUFFER_SIZE + 5];
        source.extend(b"\nab\n");
        assert_eq!(cut(&source).await, [(LINE_BUFFER_SIZE, true, false), (6, false, true), (3, true, true)]);
    }

    #[tokio::test]
    async fn a_line_that_fills_the_buffer_exactly_ends_with_its_newline() {
        let mut source = vec![b'x'; LINE_BUFFER_SIZE];
        source.extend(b"\n");
        assert_eq!(cut(&source).await, [(LINE_BUFFER_SIZE, true, false), (1, false, true)]);
    }
}
