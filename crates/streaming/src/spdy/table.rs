//! The streams of a connection that are open in at least one direction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::frame::{self, Status};
use crate::connection::Encoder;
use crate::pipe::Arrival;

/// Shared by the sides that read and write.
#[derive(Clone, Default)]
pub(super) struct Table(Arc<Mutex<Streams>>);

#[derive(Default)]
struct Streams {
    open: HashMap<u32, Entry>,
    /// The last one that was accepted.
    last: u32,
}

struct Entry {
    /// `None` once the client has sent its last.
    arrivals: Option<mpsc::UnboundedSender<Arrival>>,
    is_open_here: bool,
    /// Tells the stream's writer that the client has reset it.
    reset: Arc<AtomicBool>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.0.lock().open.len()
    }

    /// Ids of clients are odd, and only grow.
    pub(super) fn is_next(&self, stream: u32) -> bool {
        stream % 2 == 1 && stream > self.0.lock().last
    }

    /// A new stream: where its data arrives, and its writer's flag.
    pub(super) fn open(&self, stream: u32) -> (mpsc::UnboundedReceiver<Arrival>, Arc<AtomicBool>) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let reset = Arc::new(AtomicBool::new(false));
        let mut streams = self.0.lock();
        streams.last = stream;
        let entry = Entry { arrivals: Some(sender), is_open_here: true, reset: reset.clone() };
        streams.open.insert(stream, entry);
        (arrivals, reset)
    }

    /// Where data of a stream goes, if anybody reads it.
    pub(super) fn arrivals(&self, stream: u32) -> Option<mpsc::UnboundedSender<Arrival>> {
        let streams = self.0.lock();
        streams.open.get(&stream)?.arrivals.clone().filter(|arrivals| !arrivals.is_closed())
    }

    /// The client has sent its last.
    pub(super) fn end(&self, stream: u32) {
        let mut streams = self.0.lock();
        let Some(entry) = streams.open.get_mut(&stream) else { return };
        if let Some(arrivals) = entry.arrivals.take() {
            let _ = arrivals.send(Arrival::End);
        }
        if !entry.is_open_here {
            streams.open.remove(&stream);
        }
    }

    /// The client has reset the stream.
    pub(super) fn reset(&self, stream: u32) {
        let Some(entry) = self.0.lock().open.remove(&stream) else { return };
        entry.reset.store(true, Ordering::Relaxed);
        if let Some(arrivals) = entry.arrivals {
            let _ = arrivals.send(Arrival::Reset);
        }
    }

    /// The connection is lost, and every stream with it.
    pub(super) fn clear(&self) {
        self.0.lock().open.clear();
    }
}

/// What is asked for streams that are closed already, by the client for example, is not sent.
impl Encoder for Table {
    fn data(&mut self, stream: u32, bytes: &[u8], out: &mut Vec<u8>) {
        if self.0.lock().open.contains_key(&stream) {
            frame::data(stream, false, bytes, out);
        }
    }

    fn finish(&mut self, stream: u32, out: &mut Vec<u8>) -> bool {
        let mut streams = self.0.lock();
        if let Some(entry) = streams.open.get_mut(&stream) {
            entry.is_open_here = false;
            frame::data(stream, true, &[], out);
            if entry.arrivals.is_none() {
                streams.open.remove(&stream);
            }
        }
        false
    }

    fn reset(&mut self, stream: u32, out: &mut Vec<u8>) -> bool {
        if self.0.lock().open.remove(&stream).is_some() {
            frame::rst_stream(stream, Status::Cancel, out);
        }
        false
    }

    /// As upstream does: what is open is reset, then the connection ends.
    fn close(&mut self, out: &mut Vec<u8>) {
        let mut streams = self.0.lock();
        let open = std::mem::take(&mut streams.open);
        for (stream, _) in open.into_iter().filter(|(_, entry)| entry.is_open_here) {
            frame::rst_stream(stream, Status::Cancel, out);
        }
        frame::go_away(streams.last, out);
    }
}
