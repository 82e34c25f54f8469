//! The runtimes that run guests, and nothing else.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

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
}

impl GuestRuntimes {
    pub(super) fn start(limits: GuestLimits, network: &Network) -> io::Result<Self> {
        let pods = build(&limits, "wasm-guest", network.guest_thread_init())?;
        Ok(Self { limits, pods, node: Mutex::new(None), own: Mutex::default() })
    }

    /// The runtime for guests of a pod.
    pub(super) fn of(&self, net: &PodNet, network: &Network) -> io::Result<Handle> {
        if let Some((namespace, init)) = net.own_thread_init() {
            let mut own = self.own.lock();
            if let Some(runtime) = own.get(&namespace) {
                return Ok(runtime.handle.clone());
            }
            let runtime = build(&self.limits, "wasm-pod", init)?;
            return Ok(own.entry(namespace).or_insert(runtime).handle.clone());
        }
        let pods_are_apart = !network.pod_ranges().is_empty();
        if net.needs_pod_threads() == pods_are_apart {
            return Ok(self.pods.handle.clone());
        }
        let mut node = self.node.lock();
        if let Some(runtime) = &*node {
            return Ok(runtime.handle.clone());
        }
        Ok(node.insert(build(&self.limits, "wasm-node", || {})?).handle.clone())
    }

    /// Ends the runtime of a pod that had one for itself.
    pub(super) fn end(&self, net: &PodNet) {
        if let Some((namespace, _)) = net.own_thread_init() {
            self.own.lock().remove(&namespace);
        }
    }

    /// A runtime whose blocking threads may wait for files.
    pub(super) fn files(&self) -> &Handle {
        &self.pods.handle
    }
}

/// A runtime that can be dropped anywhere: an ordinary one waits for its threads, which asynchronous code must not.
struct Detached {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn build(
    limits: &GuestLimits,
    name: &'static str,
    init: impl Fn() + Send + Sync + 'static,
) -> io::Result<Detached> {
    let number = Arc::new(AtomicUsize::new(0));
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(limits.threads.max(1))
        .max_blocking_threads(limits.file_threads.max(1))
        .thread_name_fn(move || format!("{name}-{}", number.fetch_add(1, Ordering::Relaxed)))
        .enable_all();
    let runtime = builder.on_thread_start(init).build()?;
    Ok(Detached { handle: runtime.handle().clone(), runtime: Some(runtime) })
}
