//! The sizes of the client's terminal: JSON objects, one after another.

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use crate::ReadHalf;

/// The most bytes of one object.
const MAX_OBJECT: usize = 1024;

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}

/// The sizes that the client's terminal takes.
#[derive(Debug)]
pub struct Resizes {
    stream: ReadHalf,
    unread: Vec<u8>,
}

impl Resizes {
    pub(super) fn new(stream: ReadHalf) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// The next size. `None` once the client sends no more, or something that is no size (`handleResizeEvents`). It may be
    /// cancelled: nothing gets lost.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            let mut objects = serde_json::Deserializer::from_slice(&self.unread).into_iter();
            match objects.next() {
                Some(Ok(size)) => {
                    self.unread.drain(..objects.byte_offset());
                    return Some(size);
                }
                Some(Err(error)) if !error.is_eof() || self.unread.len() > MAX_OBJECT => return None,
                Some(Err(_)) => {}
                None => self.unread.clear(),
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::pipe::Arrival;

    async fn sizes(pieces: &[&'static str]) -> Vec<(u16, u16)> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(pieces.len()));
        for piece in pieces {
            let room = room.clone().acquire_owned().await.unwrap();
            sender.send(Arrival::Chunk { bytes: piece.as_bytes().into(), room }).unwrap();
        }
        drop(sender);
        let mut resizes = Resizes::new(ReadHalf::new(arrivals));
        let mut sizes = Vec::new();
        while let Some(size) = resizes.next().await {
            sizes.push((size.width, size.height));
        }
        sizes
    }

    #[tokio::test]
    async fn objects_come_in_any_pieces() {
        let whole = "{\"Width\":80,\"Height\":24}\n";
        assert_eq!(sizes(&[whole, whole]).await, [(80, 24), (80, 24)]);
        assert_eq!(
            sizes(&["{\"Width\":1,\"Hei", "ght\":2} {\"width\":3}", "{}"]).await,
            [(1, 2), (3, 0), (0, 0)]
        );
        assert_eq!(sizes(&["{\"Width\":1}", "no size", whole]).await, [(1, 0)]);
        assert_eq!(sizes(&["{\"Width\":65536}", whole]).await, []);
        assert_eq!(sizes(&["{\"Width\":-1}"]).await, []);
        let endless = "{\"x\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(sizes(&vec![endless; 100]).await, []);
    }
}
