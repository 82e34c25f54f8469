//! The threads on which guests wait for files.
//!
//! A file operation holds a thread for as long as the kernel likes, which is for ever if a network file system is gone.
//! wasmtime-wasi takes such threads from the runtime in whose context a guest is polled, so each container gets a context:
//!
//! - with threads of its own, a few, if it sees folders of the node, which may lie on anything;
//! - else with those of all containers of the same user: what the kubelet itself makes for pods lies on the node's own disk;
//! - else, if that user is the one that this process is, the context that it runs in anyway.
//!
//! The threads have the user and the groups of the container for their files.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::identity::Identity;
use super::runtimes::{Detached, Living, Place, build};
use crate::options::GuestLimits;

/// How many operations on files a container has at once, if it has threads of its own. What is hung stays so when the
/// container is started again, so a node full of such containers has no more threads than this for each.
const OWN_THREADS: usize = 8;

/// Threads for files. Dropping them waits for nothing: what hangs, hangs on alone.
pub(super) struct FileThreads {
    runtime: Detached,
}

impl FileThreads {
    /// The context for guests whose files they are for.
    pub(super) fn context(&self) -> &Handle {
        &self.runtime.handle
    }

    fn start(
        name: &'static str,
        threads: usize,
        identity: Option<Identity>,
        (_, init): Place,
    ) -> io::Result<Arc<Self>> {
        // Connections of a guest that are made in this context are looked after by the one worker.
        let limits = GuestLimits { threads: 1, file_threads: threads, ..GuestLimits::default() };
        let runtime = build(&limits, name, init, identity)?;
        Ok(Arc::new(Self { runtime }))
    }
}

/// Those that containers share: one for each user in each network.
#[derive(Default)]
pub(super) struct SharedFileThreads(Mutex<HashMap<(Identity, Living), Weak<FileThreads>>>);

impl SharedFileThreads {
    /// Those of a user.
    pub(super) fn of(
        &self,
        identity: Identity,
        threads: usize,
        place: Place,
    ) -> io::Result<Arc<FileThreads>> {
        let mut shared = self.0.lock();
        let key = (identity, place.0);
        if let Some(threads) = shared.get(&key).and_then(Weak::upgrade) {
            return Ok(threads);
        }
        let started = FileThreads::start("wasm-files", threads, Some(key.0.clone()), place)?;
        shared.retain(|_, threads| threads.strong_count() > 0);
        shared.insert(key, Arc::downgrade(&started));
        Ok(started)
    }
}

/// Those of the containers of one pod that have their own. They stay with the pod: what hung in a container's last life
/// counts in its next one.
#[derive(Default)]
pub(super) struct PodFileThreads(Mutex<Pod>);

#[derive(Default)]
struct Pod {
    own: HashMap<String, (Option<Identity>, Arc<FileThreads>)>,
    /// Kept as long as the pod: connections that its containers share are looked after there.
    shared: Vec<Arc<FileThreads>>,
}

impl PodFileThreads {
    /// Those of a container.
    pub(super) fn own(
        &self,
        container: &str,
        identity: Option<Identity>,
        place: Place,
    ) -> io::Result<Arc<FileThreads>> {
        let mut pod = self.0.lock();
        if let Some((known, threads)) = pod.own.get(container)
            && *known == identity
        {
            return Ok(threads.clone());
        }
        let started = FileThreads::start("wasm-own-files", OWN_THREADS, identity.clone(), place)?;
        pod.own.insert(container.to_owned(), (identity, started.clone()));
        Ok(started)
    }

    /// Nothing of the pod runs any more.
    pub(super) fn end(&self) {
        *self.0.lock() = Pod::default();
    }

    /// Keeps what a container of the pod shares with others.
    pub(super) fn keep(&self, threads: &Arc<FileThreads>) {
        let shared = &mut self.0.lock().shared;
        if !shared.iter().any(|known| Arc::ptr_eq(known, threads)) {
            shared.push(threads.clone());
        }
    }
}
