//! Container logs.
//!
//! Guests write into a buffer of their container; one thread writes the buffers to the files, so that a slow disk
//! holds up neither a guest's thread nor the control loop. A full buffer makes the guest wait: nothing is dropped.

mod cri;
mod file;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::cri::{Source, Tag};
use self::file::LogFile;
pub(crate) use self::stream::LogStream;

/// How much of a container's output may wait for the disk.
const BUFFER: usize = 64 << 10;

/// Lines that come within this time after others go to the disk together with what else has come: waking the thread for
/// each of them costs far more than writing it.
const GATHER: Duration = Duration::from_millis(1);

/// The thread that writes all logs. Dropping it waits until what guests have written so far is in the files.
#[derive(Debug)]
pub(crate) struct LogWriter {
    queue: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

/// Each log is queued at most once, so the number of containers bounds the queue.
#[derive(Debug)]
enum Job {
    Write(Arc<ContainerLog>),
    Stop,
}

impl LogWriter {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (queue, logs) = mpsc::channel();
        let thread = thread::Builder::new().name("wasm-logs".into()).spawn(move || write_logs(&logs))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// A log at `path`. Nothing is opened yet.
    pub(crate) fn log(&self, path: PathBuf) -> Arc<ContainerLog> {
        Arc::new(ContainerLog {
            buffer: Mutex::default(),
            file: Mutex::new(LogFile::new(path)),
            queue: self.queue.clone(),
        })
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && self.queue.send(Job::Stop).is_ok()
        {
            // It runs no code that panics, and there is nobody to tell.
            let _ = thread.join();
        }
    }
}

fn write_logs(jobs: &Receiver<Job>) {
    let mut written = Instant::now();
    while let Ok(first) = jobs.recv() {
        if let Some(rest) = GATHER.checked_sub(written.elapsed()) {
            thread::sleep(rest);
        }
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            let Job::Write(log) = job else { return };
            if log.write_out() {
                written = Instant::now();
            }
        }
    }
}

/// The log of one container.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    buffer: Mutex<Buffer>,
    /// Only the writer's thread takes this lock.
    file: Mutex<LogFile>,
    queue: Sender<Job>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// Bytes that the writer has taken and not yet written.
    writing: usize,
    queued: bool,
    reopen: Vec<oneshot::Sender<std::io::Result<()>>>,
    waiting: Vec<Waker>,
}

impl Buffer {
    fn room(&self) -> usize {
        BUFFER.saturating_sub(self.lines.len() + self.writing)
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }
}

impl ContainerLog {
    /// Closes the file, if it is open, and creates the one at the path if it is not there.
    pub(crate) async fn reopen(self: &Arc<Self>) -> std::io::Result<()> {
        let (done, answer) = oneshot::channel();
        {
            let mut buffer = self.buffer.lock();
            buffer.reopen.push(done);
            self.enqueue(&mut buffer);
        }
        answer.await.unwrap_or_else(|_| Err(std::io::Error::other("logs are closed")))
    }

    /// Waits until everything so far is in the file.
    pub(crate) async fn drained(&self) {
        std::future::poll_fn(|cx| {
            let mut buffer = self.buffer.lock();
            if buffer.lines.is_empty() && buffer.writing == 0 {
                return Poll::Ready(());
            }
            buffer.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Adds a text of the host's own, one line of the log for each of its lines.
    pub(crate) fn note(self: &Arc<Self>, source: Source, text: &str) {
        let now = Timestamp::now();
        self.append(|lines| {
            for line in text.lines() {
                cri::append_line(lines, now, source, Tag::Full, line.as_bytes());
            }
        });
    }

    fn append(self: &Arc<Self>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.buffer.lock();
        write(&mut buffer.lines);
        if !buffer.lines.is_empty() {
            self.enqueue(&mut buffer);
        }
    }

    fn enqueue(self: &Arc<Self>, buffer: &mut Buffer) {
        if !buffer.queued {
            buffer.queued = true;
            // Without a writer the provider is gone.
            let _ = self.queue.send(Job::Write(self.clone()));
        }
    }

    fn room(&self) -> usize {
        self.buffer.lock().room()
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut buffer = self.buffer.lock();
        if buffer.room() > 0 {
            return Poll::Ready(());
        }
        buffer.wait(cx);
        Poll::Pending
    }

    /// What the writer's thread does with a log that has something to do. Answers whether there were lines to write.
    fn write_out(&self) -> bool {
        let (lines, reopen) = {
            let mut buffer = self.buffer.lock();
            buffer.queued = false;
            buffer.writing = buffer.lines.len();
            (std::mem::take(&mut buffer.lines), std::mem::take(&mut buffer.reopen))
        };
        let has_lines = !lines.is_empty();
        let mut file = self.file.lock();
        file.write(&lines);
        for done in reopen {
            // Whoever asked may have given up.
            let _ = done.send(file.reopen());
        }
        drop(file);
        let waiting = {
            let mut buffer = self.buffer.lock();
            buffer.writing = 0;
            std::mem::take(&mut buffer.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
        has_lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[tokio::test]
    async fn a_rotated_log_goes_on_in_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod/c/0.log");
        let writer = LogWriter::start().unwrap();
        let log = writer.log(path.clone());
        log.reopen().await.unwrap();
        assert!(path.exists(), "a log exists before anything is written, so that it can be linked to");
        log.note(Source::Stderr, "one\ntwo");
        log.drained().await;
        let rotated = folder.path().join("pod/c/0.log.old");
        std::fs::rename(&path, &rotated).unwrap();
        log.note(Source::Stdout, "still the old file");
        log.drained().await;
        log.reopen().await.unwrap();
        log.note(Source::Stdout, "the new file");
        log.drained().await;
        assert_eq!(read(&rotated), ["stderr F one", "stderr F two", "stdout F still the old file"]);
        assert_eq!(read(&path), ["stdout F the new file"]);
    }

    #[tokio::test]
    async fn a_log_that_nobody_writes_to_is_rotated_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let writer = LogWriter::start().unwrap();
        let log = writer.log(path.clone());
        for (rotated, line) in [("0.log.1", "one"), ("0.log.2", "two")] {
            log.reopen().await.unwrap();
            assert_eq!(read(&path), [""; 0]);
            log.note(Source::Stdout, line);
            log.drained().await;
            std::fs::rename(&path, folder.path().join(rotated)).unwrap();
        }
        log.reopen().await.unwrap();
        log.reopen().await.unwrap();
        assert_eq!(read(&folder.path().join("0.log.1")), ["stdout F one"]);
        assert_eq!(read(&folder.path().join("0.log.2")), ["stdout F two"]);
        assert_eq!(read(&path), [""; 0]);

        // A log that could not be opened anew goes back to its name; what is written then follows what was there.
        let aside = folder.path().join("aside");
        log.note(Source::Stdout, "three");
        log.drained().await;
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.reopen().await.unwrap_err();
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        log.note(Source::Stdout, "four");
        log.drained().await;
        assert_eq!(read(&path), ["stdout F three", "stdout F four"]);
    }

    #[tokio::test]
    async fn a_full_buffer_makes_a_guest_wait_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        // A FIFO without a reader stands for a disk that hangs.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let writer = LogWriter::start().unwrap();
        let log = writer.log(path.clone());
        let line = "x".repeat(1023);
        while log.room() > 0 {
            log.note(Source::Stdout, &line);
        }
        let room = std::future::poll_fn(|cx| log.poll_room(cx));
        let blocked = tokio::time::timeout(Duration::from_millis(50), room).await;
        assert!(blocked.is_err(), "there is no room while the disk hangs");
        let reader = thread::spawn(move || {
            use std::io::Read;
            let mut file = std::fs::File::open(path).unwrap();
            let mut received = 0;
            let mut chunk = [0; 4096];
            while received < BUFFER {
                received += file.read(&mut chunk).unwrap();
            }
        });
        std::future::poll_fn(|cx| log.poll_room(cx)).await;
        log.drained().await;
        reader.join().unwrap();
    }
}
