//! The runtimes that run guests, and nothing else.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_provider::Mount;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use super::file_threads::{FileThreads, PodFileThreads, SharedFileThreads};
use super::identity::Identity;
use crate::network::{Network, PodNet};
use crate::options::GuestLimits;

/// One runtime for each network that guests live in: the threads of one are in the pods' namespace, for the sockets
/// that guests make are made where their thread is. Guests with the node's network get one of their own once there is
/// such a guest, and so do those of each pod with a namespace of its own.
///
/// Dropping it ends all guests at their next tick, without waiting for them.
pub(super) struct GuestRuntimes {
    limits: GuestLimits,
    pods: Detached,
    node: Mutex<Option<Detached>>,
    /// By the number of the namespace.
    own: Mutex<HashMap<u64, Detached>>,
    shared_files: SharedFileThreads,
}

impl GuestRuntimes {
    pub(super) fn start(limits: GuestLimits, network: &Network) -> io::Result<Self> {
        let pods = build(&limits, "wasm-guest", network.guest_thread_init(), None)?;
        let (node, own) = (Mutex::new(None), Mutex::default());
        Ok(Self { limits, pods, node, own, shared_files: SharedFileThreads::default() })
    }

    /// The runtime for guests of a pod.
    pub(super) fn of(&self, net: &PodNet, network: &Network) -> io::Result<Handle> {
        if let Some((namespace, init)) = net.own_thread_init() {
            let mut own = self.own.lock();
            if let Some(runtime) = own.get(&namespace) {
                return Ok(runtime.handle.clone());
            }
            let runtime = build(&self.limits, "wasm-pod", init, None)?;
            return Ok(own.entry(namespace).or_insert(runtime).handle.clone());
        }
        if is_with_most(net, network) {
            return Ok(self.pods.handle.clone());
        }
        let mut node = self.node.lock();
        if let Some(runtime) = &*node {
            return Ok(runtime.handle.clone());
        }
        Ok(node.insert(build(&self.limits, "wasm-node", || {}, None)?).handle.clone())
    }

    /// Ends the runtime of a pod that had one for itself.
    pub(super) fn end(&self, net: &PodNet) {
        if let Some((namespace, _)) = net.own_thread_init() {
            self.own.lock().remove(&namespace);
        }
    }

    /// The threads that wait for a container's files; none if those are the ones of the runtime that it runs on.
    pub(super) fn file_threads(
        &self,
        (pod, net, network): (&PodFileThreads, &PodNet, &Network),
        container: &str,
        mounts: &[Mount],
        identity: Option<Identity>,
    ) -> io::Result<Option<Arc<FileThreads>>> {
        let place = place(net, network);
        if mounts.iter().any(|mount| mount.of_node) {
            return pod.own(container, identity, place).map(Some);
        }
        let Some(identity) = identity.filter(|_| !mounts.is_empty()) else { return Ok(None) };
        let threads = self.shared_files.of(identity, self.limits.file_threads, place)?;
        pod.keep(&threads);
        Ok(Some(threads))
    }

    /// A runtime whose blocking threads may wait for files.
    pub(super) fn files(&self) -> &Handle {
        &self.pods.handle
    }
}

/// A network that threads live in, and what each of them has to do first.
pub(super) type Place = (Living, Box<dyn Fn() + Send + Sync>);

/// The networks that guests live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Living {
    /// Where most pods are.
    WithMost,
    /// On the node's.
    OnNode,
    /// In a namespace of the pod's own, by its number.
    Alone(u64),
}

fn place(net: &PodNet, network: &Network) -> Place {
    if let Some((namespace, init)) = net.own_thread_init() {
        return (Living::Alone(namespace), Box::new(init));
    }
    match is_with_most(net, network) {
        true => (Living::WithMost, Box::new(network.guest_thread_init())),
        false => (Living::OnNode, Box::new(|| {})),
    }
}

fn is_with_most(net: &PodNet, network: &Network) -> bool {
    let pods_are_apart = !network.pod_ranges().is_empty();
    net.needs_pod_threads() == pods_are_apart
}

/// A runtime that can be dropped anywhere: an ordinary one waits for its threads, which asynchronous code must not.
pub(super) struct Detached {
    pub(super) handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime whose threads begin with `init`, and have the files of a user.
pub(super) fn build(
    limits: &GuestLimits,
    name: &'static str,
    init: impl Fn() + Send + Sync + 'static,
    identity: Option<Identity>,
) -> io::Result<Detached> {
    if let Some(identity) = identity.clone() {
        // Before others rely on it; on a thread that ends with it.
        let tried = std::thread::spawn(move || identity.assume()).join();
        tried.unwrap_or_else(|_| Err(io::Error::other("the thread failed")))?;
    }
    let number = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new_multi_thread()
        .worker_threads(limits.threads.max(1))
        .max_blocking_threads(limits.file_threads.max(1))
        .thread_name_fn(move || format!("{name}-{}", number.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .on_thread_start(move || {
            init();
            if let Some(Err(error)) = identity.as_ref().map(Identity::assume) {
                tracing::error!(%error, "a thread for guests' files cannot be another user's");
                std::process::abort();
            }
        })
        .build()?;
    Ok(Detached { handle: runtime.handle().clone(), runtime: Some(runtime) })
}
