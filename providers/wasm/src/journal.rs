//! What the provider remembers beyond its own life.
//!
//! Guests live in this process and end with it, so there is nothing to find again after a crash but these records:
//! one small file for each sandbox and container, with the status that was last reported. Without them a restarted
//! node would forget restart counts, and run again what must not run twice. What a container was configured with is
//! not recorded: it is never started from a record, and its environment may hold secrets.
//!
//! A file is written under another name and renamed. That survives the end of the process at any instant, which is
//! what kills guests. It is not forced to the disk: a power failure may lose the last seconds, at the price of a
//! millisecond less for every start.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use coracle_provider::{ContainerStatus, SandboxStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

/// How many records may wait for the disk before changes wait too.
const QUEUE: usize = 256;

/// Writes records, one after the other, on a thread of its own. Dropping it finishes what was asked for.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What an earlier life of the provider left.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) sandboxes: Vec<SandboxStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
}

/// Something with a record.
pub(crate) trait Recorded: Serialize + DeserializeOwned {
    /// The folder of its kind.
    const FOLDER: &'static str;
    /// Its id: the name of the file.
    fn id(&self) -> &str;
}

impl Recorded for SandboxStatus {
    const FOLDER: &'static str = "sandboxes";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Recorded for ContainerStatus {
    const FOLDER: &'static str = "containers";
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Debug)]
struct Job {
    path: PathBuf,
    /// The new content; none removes the record.
    content: Option<Vec<u8>>,
    done: oneshot::Sender<io::Result<()>>,
}

impl Journal {
    /// Opens the journal in `folder` and reads what is there. A record that cannot be read is dropped: after a
    /// power failure it may be half a record, and what it spoke of is dead.
    pub(crate) fn open(folder: PathBuf) -> io::Result<(Self, Records)> {
        let records = Records { sandboxes: read_all(&folder)?, containers: read_all(&folder)? };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("wasm-journal".into()).spawn(move || work(queue))?;
        Ok((Self { folder, jobs: Some(jobs), thread: Some(thread) }, records))
    }

    /// Writes the record of `status`. Once this returns, the end of the process does not lose it.
    pub(crate) async fn put<S: Recorded>(&self, status: &S) -> io::Result<()> {
        let content = serde_json::to_vec(status)?;
        self.submit::<S>(status.id(), Some(content)).await
    }

    /// Removes the record of what has this id.
    pub(crate) async fn remove<S: Recorded>(&self, id: &str) -> io::Result<()> {
        self.submit::<S>(id, None).await
    }

    async fn submit<S: Recorded>(&self, id: &str, content: Option<Vec<u8>>) -> io::Result<()> {
        let closed = || io::Error::other("the journal is closed");
        let (done, answer) = oneshot::channel();
        let path = self.folder.join(S::FOLDER).join(format!("{id}.json"));
        let jobs = self.jobs.as_ref().ok_or_else(closed)?;
        jobs.send(Job { path, content, done }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It runs no code that panics, and there is nobody to tell.
            let _ = thread.join();
        }
    }
}

fn work(mut queue: mpsc::Receiver<Job>) {
    while let Some(Job { path, content, done }) = queue.blocking_recv() {
        let result = match content {
            Some(content) => write(&path, &content),
            None => remove(&path),
        };
        // Whoever asked may have given up.
        let _ = done.send(result);
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    fs::rename(temporary, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_all<S: Recorded>(folder: &Path) -> io::Result<Vec<S>> {
    let folder = folder.join(S::FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let mut records = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let complete = path.extension().is_some_and(|extension| extension == "json");
        let record = if complete { serde_json::from_slice(&fs::read(&path)?).ok() } else { None };
        match record {
            Some(record) => records.push(record),
            None => {
                tracing::warn!(path = %path.display(), "dropping a record that was not written to its end");
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use coracle_provider::{
        ContainerState, ImageSpec, PodNetwork, PodRef, Resources, Revision, SandboxState,
    };
    use jiff::Timestamp;

    use super::*;

    fn sandbox(id: &str) -> SandboxStatus {
        SandboxStatus {
            id: id.into(),
            pod: PodRef::default(),
            attempt: 2,
            state: SandboxState::Ready,
            created_at: Timestamp::UNIX_EPOCH,
            network: PodNetwork::default(),
            labels: [("a".into(), "b".into())].into(),
            annotations: Default::default(),
            runtime_handler: "wasm".into(),
            revision: Revision { generation: 1, seq: 7 },
        }
    }

    fn container(id: &str) -> ContainerStatus {
        ContainerStatus {
            id: id.into(),
            sandbox_id: "s".into(),
            pod: PodRef::default(),
            name: "c".into(),
            attempt: 3,
            state: ContainerState::Running,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: ImageSpec::new("i"),
            image_id: "i@sha256:0".into(),
            labels: Default::default(),
            annotations: Default::default(),
            mounts: Vec::new(),
            log_path: "/var/log/pods/p/c/3.log".into(),
            resources: Resources { memory_limit_bytes: Some(1), ..Resources::default() },
            revision: Revision::default(),
        }
    }

    #[tokio::test]
    async fn records_outlive_the_journal_and_removed_ones_do_not() {
        let root = tempfile::tempdir().unwrap();
        let (journal, records) = Journal::open(root.path().into()).unwrap();
        assert!(records.sandboxes.is_empty() && records.containers.is_empty());
        journal.put(&sandbox("s1")).await.unwrap();
        journal.put(&sandbox("s2")).await.unwrap();
        journal.put(&container("c1")).await.unwrap();
        let exited = ContainerStatus { state: ContainerState::Exited, exit_code: 7, ..container("c1") };
        journal.put(&exited).await.unwrap();
        journal.remove::<SandboxStatus>("s2").await.unwrap();
        journal.remove::<SandboxStatus>("never there").await.unwrap();
        drop(journal);
        let (_journal, records) = Journal::open(root.path().into()).unwrap();
        assert_eq!(records.sandboxes, [sandbox("s1")]);
        assert_eq!(records.containers, [exited]);
    }

    #[tokio::test]
    async fn half_a_record_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(root.path().into()).unwrap();
        journal.put(&container("c1")).await.unwrap();
        let path = root.path().join("containers/c1.json");
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() / 2]).unwrap();
        fs::write(root.path().join("containers/c2.new"), b"{").unwrap();
        drop(journal);
        let (_journal, records) = Journal::open(root.path().into()).unwrap();
        assert!(records.containers.is_empty());
        assert_eq!(fs::read_dir(root.path().join("containers")).unwrap().count(), 0);
    }
}
