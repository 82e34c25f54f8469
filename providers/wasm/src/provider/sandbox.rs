//! Sandboxes: a network, and the folder for logs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{
    DnsConfig, NetworkMode, PodNetwork, Result, Revision, SandboxConfig, SandboxState, SandboxStatus,
};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::file_threads::PodFileThreads;
use super::host_ports::HostPorts;
use super::{Shared, new_id, no_sandbox, record_error};
use crate::network::PodNet;

/// A sandbox.
pub(super) struct Sandbox {
    pub(super) id: String,
    /// What log paths of its containers are relative to.
    pub(super) log_directory: PathBuf,
    /// The host name that its guests see.
    pub(super) hostname: String,
    /// What its guests find in `/etc/resolv.conf`; empty for no such file.
    pub(super) resolv_conf: String,
    status: Mutex<Arc<SandboxStatus>>,
    /// The threads that wait for its containers' files.
    pub(super) file_threads: PodFileThreads,
    live: Mutex<Option<Live>>,
}

/// What a sandbox has until it is stopped.
struct Live {
    net: Arc<PodNet>,
    host_ports: HostPorts,
}

impl Sandbox {
    /// What is left of a sandbox of an earlier life: its network went with the process.
    pub(super) fn dead(status: SandboxStatus) -> Arc<Self> {
        Arc::new(Self {
            id: status.id.clone(),
            log_directory: PathBuf::new(),
            hostname: String::new(),
            resolv_conf: String::new(),
            status: Mutex::new(Arc::new(SandboxStatus { state: SandboxState::NotReady, ..status })),
            file_threads: PodFileThreads::default(),
            live: Mutex::new(None),
        })
    }

    pub(super) fn status(&self) -> Arc<SandboxStatus> {
        self.status.lock().clone()
    }

    pub(super) fn show(&self, status: Arc<SandboxStatus>) {
        *self.status.lock() = status;
    }

    /// Its network; none once it was stopped.
    pub(super) fn net(&self) -> Option<Arc<PodNet>> {
        self.live.lock().as_ref().map(|live| live.net.clone())
    }
}

/// The host name of a pod, or the node's for one that has none of its own.
fn or_node_name(hostname: String) -> String {
    if hostname.is_empty() {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    hostname
}

/// `resolv.conf`, as a container runtime writes it.
fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

impl Shared {
    /// Keeps the addresses of pods of an earlier life: those that are still wanted come back by a new attempt, and have the
    /// addresses that others know them by.
    pub(super) async fn keep_addresses(&self, sandboxes: &[SandboxStatus]) {
        let mut latest: HashMap<&str, &SandboxStatus> = HashMap::new();
        for sandbox in sandboxes {
            let known = latest.entry(&sandbox.pod.uid).or_insert(sandbox);
            if sandbox.attempt > known.attempt {
                *known = sandbox;
            }
        }
        self.options.network.sweep(|uid| latest.contains_key(uid)).await;
        for (uid, sandbox) in latest {
            let PodNetwork { mode, ips, .. } = &sandbox.network;
            if *mode != NetworkMode::Pod || ips.is_empty() {
                continue;
            }
            if let Err(reason) = self.options.network.keep(uid, ips) {
                let pod = &sandbox.pod;
                tracing::info!(pod = pod.name, namespace = pod.namespace, %reason, "a pod gets a new address");
            }
        }
    }

    pub(super) async fn run_sandbox(self: Arc<Self>, config: SandboxConfig) -> Result<Arc<SandboxStatus>> {
        if let Some(existing) = self.tables.sandbox_of(&config.pod.uid, config.attempt) {
            return Ok(existing.status());
        }
        let uid = config.pod.uid.clone();
        let net = self.options.network.attach(&config).await?;
        let opened = self.open_sandbox(config, net).await;
        if opened.is_err()
            && let Err(error) = self.options.network.detach(&uid).await
        {
            tracing::warn!(%error, "a pod's network is left behind");
        }
        opened
    }

    async fn open_sandbox(&self, config: SandboxConfig, net: Arc<PodNet>) -> Result<Arc<SandboxStatus>> {
        // Dropping the network on the way out gives the address back.
        let host_ports = HostPorts::open(&net, &config.port_mappings, &self.options.io)?;
        let status = SandboxStatus {
            id: new_id(),
            attempt: config.attempt,
            state: SandboxState::Ready,
            created_at: Timestamp::now(),
            network: net.network(),
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: config.runtime_handler,
            pod: config.pod,
            revision: Revision::default(),
        };
        self.journal.put(&status).await.map_err(|error| record_error(&status.id, error))?;
        Ok(self.tables.add_sandbox(Arc::new(Sandbox {
            id: status.id.clone(),
            log_directory: config.log_directory,
            hostname: or_node_name(config.hostname),
            resolv_conf: resolv_conf(&config.dns),
            status: Mutex::new(Arc::new(status)),
            file_threads: PodFileThreads::default(),
            live: Mutex::new(Some(Live { net, host_ports })),
        })))
    }

    pub(super) async fn stop_sandbox(self: Arc<Self>, id: String) -> Result<Arc<SandboxStatus>> {
        let sandbox = self.tables.sandbox(&id).ok_or_else(|| no_sandbox(&id))?;
        if sandbox.status().state == SandboxState::NotReady {
            return Ok(sandbox.status());
        }
        // From here on it gets no further containers. There is nothing to record: after a crash no sandbox is ready.
        let live = sandbox.live.lock().take();
        let containers = self.tables.containers_in(&sandbox);
        let stops = containers.iter().map(|container| self.stop_container(container, Duration::ZERO));
        futures::future::join_all(stops).await;
        if let Some(Live { net, host_ports }) = live {
            host_ports.close().await;
            net.release();
            sandbox.file_threads.end();
            self.guests.end(&net);
        }
        // If it fails, the caller stops the sandbox again.
        self.options.network.detach(&sandbox.status().pod.uid).await?;
        let stopped = SandboxStatus { state: SandboxState::NotReady, ..(*sandbox.status()).clone() };
        Ok(self.tables.update_sandbox(&sandbox, stopped))
    }

    pub(super) async fn remove_sandbox(self: Arc<Self>, id: String) -> Result<Revision> {
        let Some(sandbox) = self.tables.sandbox(&id) else { return Ok(self.tables.revision()) };
        self.clone().stop_sandbox(id.clone()).await?;
        for container in self.tables.containers_in(&sandbox) {
            self.clone().remove_container(container.id.clone()).await?;
        }
        let SandboxStatus { pod, attempt, .. } = &*sandbox.status();
        if self.tables.list_pod(&pod.uid).sandboxes.iter().all(|other| other.attempt <= *attempt) {
            // What was kept for a next attempt, of which there will be none.
            self.options.network.detach(&pod.uid).await?;
        }
        self.journal.remove::<SandboxStatus>(&id).await.map_err(|error| record_error(&id, error))?;
        Ok(self.tables.remove_sandbox(&id))
    }
}
