//! The network of all pods of this process.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use coracle_provider::{NetworkMode, Result, SandboxConfig};
use ipnet::{IpNet, Ipv4Net};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::NetworkError;
use super::address_mode::AddressMode;
use super::http_client::TlsTrust;
use super::pod::PodNet;
use super::pool::Lease;
use super::range::PodRanges;

/// Where processes without an assigned range look for one: 10.203.0.0/16, out of the way of the ranges that clusters and
/// container engines use by default.
pub const DEFAULT_BLOCK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 203, 0, 0), 16);

/// Which addresses pods get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodRangeConfig {
    /// None of their own: they use the node's.
    #[default]
    None,
    /// Those of a range, or of one of each family, that were assigned to this node: the Node's `spec.podCIDRs`. The first
    /// one's are the primary ones.
    Assigned(Vec<IpNet>),
    /// Those of the first /24 of a block that nothing on this machine uses. Other machines see the node's address instead
    /// of pods' own.
    FirstFree(Ipv4Net),
}

/// How pods reach the network.
#[derive(Clone, Debug, Default)]
pub struct NetworkConfig {
    /// Which addresses pods get.
    pub pod_range: PodRangeConfig,
    /// The node's addresses, the primary one first. Pods that have no address of their own listen on the primary one, those
    /// that have one see the node's connections come from its first address of the family, and lose the node if that goes away.
    pub node_addresses: Vec<IpAddr>,
    /// Whether pods that did not ask for `hostNetwork` but have to use the node's network may connect to any service on
    /// its loopback addresses. They may always connect to those of their own pod.
    pub host_loopback: bool,
    /// Certificate authorities that guests' HTTPS requests trust besides the node's own.
    pub extra_authorities: Vec<CertificateDer<'static>>,
}

/// The network of all pods of this process. Clones are handles to the same one.
///
/// With a range of addresses and the rights that it takes (CAP_NET_ADMIN and CAP_SYS_ADMIN), pods live in a network
/// namespace of their own, each with an address of its own. Otherwise they use the node's addresses.
///
/// Dropping the last handle removes the namespace once no thread and no socket is left in it;
/// [`remove`](Self::remove) takes it off the node at once.
#[derive(Clone, Debug)]
pub struct Network(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address_mode: Option<AddressMode>,
    /// Addresses of pods of an earlier life, by the pods' UIDs, until those are back or gone.
    kept: Mutex<HashMap<String, Vec<Lease>>>,
    node_addresses: Vec<IpAddr>,
    host_loopback: bool,
    tls: Arc<TlsTrust>,
}

impl Network {
    /// Sets up the network. What the process may do is found out by doing it; one log line says what came of it.
    ///
    /// Turns on `net.ipv4.ip_forward` on the node where pods have their own addresses, as CNI plugins do.
    /// Fails if assigned ranges are two of one family, have no sensible size, or are in use by something else.
    pub async fn detect(config: NetworkConfig) -> Result<Self, NetworkError> {
        let address_mode = match set_up(&config).await {
            Ok(Some(mode)) => {
                tracing::info!(ranges = %mode.ranges, "pods have addresses of their own");
                Some(mode)
            }
            Ok(None) => {
                tracing::info!("pods use the node's addresses: no range of addresses is configured");
                None
            }
            Err(reason) if may_do_without(&config, &reason) => {
                tracing::warn!(%reason, "pods use the node's addresses: they cannot have their own");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self(Arc::new(Shared {
            address_mode,
            kept: Mutex::default(),
            node_addresses: config.node_addresses,
            host_loopback: config.host_loopback,
            tls: Arc::new(TlsTrust::new(config.extra_authorities)),
        })))
    }

    /// The ranges of addresses for pods; none if they use the node's.
    pub fn pod_ranges(&self) -> Vec<IpNet> {
        let mode = self.0.address_mode.iter();
        mode.flat_map(|mode| mode.ranges.iter()).map(|range| range.net()).collect()
    }

    /// Gives a pod its network: the addresses that were [kept](Self::keep) for it, or new ones. Costs no system call.
    ///
    /// `ResourceExhausted` if every address is taken, `InvalidArgument` if an annotation of the pod is malformed.
    pub fn attach(&self, config: &SandboxConfig) -> Result<Arc<PodNet>> {
        let Some(mode) = self.address_mode_of(config) else { return self.on_node(config) };
        let kept = self.0.kept.lock().remove(&config.pod.uid);
        let leases = kept.map_or_else(|| mode.allocate(), Ok)?;
        PodNet::in_shared(config, leases, mode.namespace.clone(), self.0.tls.clone())
    }

    /// Keeps the addresses for a pod that had them before this process started, until it is attached or
    /// [forgotten](Self::forget).
    ///
    /// `AlreadyExists` if another pod has one, `InvalidArgument` if they are none of this network's.
    pub fn keep(&self, pod_uid: &str, ips: &[IpAddr]) -> Result<()> {
        if let Some(mode) = &self.0.address_mode {
            let leases = mode.allocate_exact(ips)?;
            self.0.kept.lock().insert(pod_uid.to_owned(), leases);
        }
        Ok(())
    }

    /// Gives back what is kept for a pod that will not come back.
    pub fn forget(&self, pod_uid: &str) {
        self.0.kept.lock().remove(pod_uid);
    }

    /// What a thread has to do before it runs guests of pods with addresses of their own: for
    /// `tokio::runtime::Builder::on_thread_start`, which covers the threads for blocking work, too. A thread that blocks
    /// on a current-thread runtime has to call it itself.
    ///
    /// The thread leaves the node's network for good, and so do threads and processes that it starts. Where that fails,
    /// the process aborts: guests would be on the node's network. CAP_SYS_ADMIN must not be given up before.
    pub fn guest_thread_init(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let namespace = self.0.address_mode.as_ref().map(|mode| mode.namespace.clone());
        move || {
            let Some(namespace) = &namespace else { return };
            if let Err(error) = namespace.enter() {
                tracing::error!(%error, "a thread for guests cannot enter the pods' network");
                std::process::abort();
            }
        }
    }

    /// Takes the network off the node: its interface and routes. Pods that still run lose their connections.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        match &self.0.address_mode {
            Some(mode) => mode.remove().await,
            None => Ok(()),
        }
    }

    /// The mode to serve a pod in, unless it uses the node's network.
    fn address_mode_of(&self, config: &SandboxConfig) -> Option<&AddressMode> {
        self.0.address_mode.as_ref().filter(|_| config.network == NetworkMode::Pod)
    }

    fn on_node(&self, config: &SandboxConfig) -> Result<Arc<PodNet>> {
        // `hostNetwork` asks for the node's loopback by name. A pod that is here for want of rights did not.
        let host_loopback = self.0.host_loopback || config.network == NetworkMode::Node;
        PodNet::on_node(config, self.0.node_addresses.clone(), host_loopback, self.0.tls.clone())
    }
}

async fn set_up(config: &NetworkConfig) -> Result<Option<AddressMode>, NetworkError> {
    let node: Vec<_> = config.node_addresses.iter().copied().filter(|ip| !ip.is_loopback()).collect();
    match &config.pod_range {
        PodRangeConfig::None => Ok(None),
        PodRangeConfig::Assigned(ranges) => {
            let mode = AddressMode::set_up(PodRanges::new(ranges)?, &node).await?;
            // The network plugin of a cluster may have yet to open the firewall.
            if let Err(reason) = mode.check_forwarding().await {
                tracing::warn!(%reason, "pods of this node cannot reach each other");
            }
            Ok(Some(mode))
        }
        PodRangeConfig::FirstFree(block) => {
            let mode = AddressMode::set_up_first_free(*block, &node).await?;
            mode.check_forwarding().await?;
            Ok(Some(mode))
        }
    }
}

/// Whether pods may go without addresses of their own. If they got a range, nothing but a lack of rights excuses it: in
/// a cluster, pods that silently share the node's addresses would be a surprise.
fn may_do_without(config: &NetworkConfig, reason: &NetworkError) -> bool {
    matches!(config.pod_range, PodRangeConfig::FirstFree(_)) || reason.is_lack_of_rights()
}
