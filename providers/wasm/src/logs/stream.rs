//! A log as a guest's output.

use std::sync::Arc;
use std::task::{Context, Poll};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::ContainerLog;
use super::cri::{Lines, Source, Tag};

/// Standard output or standard error of one instance. All clones write to the same lines; a line without an end is
/// written when the last of them is dropped.
#[derive(Clone)]
pub(crate) struct LogStream(Arc<Shared>);

struct Shared {
    log: Arc<ContainerLog>,
    lines: Mutex<Lines>,
    last_line: Tag,
}

impl LogStream {
    /// `last_line` says how a last line without a newline is marked: `Partial` for a program that ends with its
    /// container, `Full` where other instances go on writing to the same log.
    pub(crate) fn new(log: Arc<ContainerLog>, source: Source, last_line: Tag) -> Self {
        Self(Arc::new(Shared { log, lines: Mutex::new(Lines::new(source)), last_line }))
    }

    /// Writes all of it, also beyond the room that there is.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let now = Timestamp::now();
        let mut lines = self.0.lines.lock();
        self.0.log.append(|log| lines.push(bytes, now, log));
    }

    /// How many bytes it takes without waiting for the disk.
    pub(crate) fn room(&self) -> usize {
        self.0.log.room()
    }

    /// Waits until there is room.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.log.poll_room(cx)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let lines = self.lines.get_mut();
        let last_line = self.last_line;
        self.log.append(|log| lines.finish(Timestamp::now(), last_line, log));
    }
}
