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
use super::cni::{Cni, CniConfig};
use super::egress::Egress;
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
    /// Those that the node's CNI plugins give. Each pod has a namespace of its own.
    Cni(CniConfig),
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
/// With a range of addresses and the rights that it takes (CAP_NET_ADMIN and CAP_SYS_ADMIN), pods share a network
/// namespace, each with an address of its own. With CNI plugins each has a namespace of its own. Otherwise they use the
/// node's addresses.
///
/// Dropping the last handle removes the namespace once no thread and no socket is left in it;
/// [`remove`](Self::remove) takes it off the node at once.
#[derive(Clone, Debug)]
pub struct Network(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mode: Mode,
    /// Addresses of pods of an earlier life, by the pods' UIDs, until those are back or gone.
    kept: Mutex<HashMap<String, Vec<Lease>>>,
    node_addresses: Vec<IpAddr>,
    host_loopback: bool,
    tls: Arc<TlsTrust>,
}

/// Where pods get addresses of their own from.
#[derive(Debug)]
enum Mode {
    Node,
    Address(AddressMode),
    Cni(Cni),
}

impl Network {
    /// Sets up the network. What the process may do is found out by doing it; one log line says what came of it.
    ///
    /// Turns on `net.ipv4.ip_forward` on the node where pods have their own addresses, as CNI plugins do.
    /// Fails if assigned ranges are two of one family, have no sensible size, or are in use by something else.
    pub async fn detect(config: NetworkConfig) -> Result<Self, NetworkError> {
        let mode = match set_up(&config).await {
            Ok(mode) => {
                match &mode {
                    Mode::Address(mode) => {
                        tracing::info!(ranges = %mode.ranges, "pods have addresses of their own");
                    }
                    Mode::Cni(_) => tracing::info!("pods have the addresses that CNI plugins give them"),
                    Mode::Node => {
                        tracing::info!("pods use the node's addresses: no range of addresses is configured");
                    }
                }
                mode
            }
            Err(reason) if may_do_without(&config, &reason) => {
                tracing::warn!(%reason, "pods use the node's addresses: they cannot have their own");
                Mode::Node
            }
            Err(error) => return Err(error),
        };
        Ok(Self(Arc::new(Shared {
            mode,
            kept: Mutex::default(),
            node_addresses: config.node_addresses,
            host_loopback: config.host_loopback,
            tls: Arc::new(TlsTrust::new(config.extra_authorities)),
        })))
    }

    /// The ranges of addresses for pods; none if they use the node's, or those of CNI plugins.
    pub fn pod_ranges(&self) -> Vec<IpNet> {
        let Mode::Address(mode) = &self.0.mode else { return vec![] };
        mode.ranges.iter().map(|range| range.net()).collect()
    }

    /// Whether pods can get a network; says what is wrong if they cannot.
    pub fn ready(&self) -> Result<(), String> {
        match &self.0.mode {
            Mode::Cni(cni) => cni.ready(),
            Mode::Address(_) | Mode::Node => Ok(()),
        }
    }

    /// Gives a pod its network: the addresses that it had before this process started, or new ones. Without CNI plugins that
    /// costs no system call.
    ///
    /// `ResourceExhausted` if every address is taken, `InvalidArgument` if an annotation of the pod is malformed,
    /// `Unavailable` if a plugin fails.
    pub async fn attach(&self, config: &SandboxConfig) -> Result<Arc<PodNet>> {
        match &self.0.mode {
            Mode::Cni(cni) if config.network == NetworkMode::Pod => {
                Egress::from_annotations(&config.annotations)?;
                PodNet::in_own(config, cni.attach(&config.pod).await?, self.0.tls.clone())
            }
            _ => self.attach_at_once(config),
        }
    }

    /// The same where no plugin has to be asked.
    pub(super) fn attach_at_once(&self, config: &SandboxConfig) -> Result<Arc<PodNet>> {
        match &self.0.mode {
            Mode::Address(mode) if config.network == NetworkMode::Pod => {
                let kept = self.0.kept.lock().remove(&config.pod.uid);
                let leases = kept.map_or_else(|| mode.allocate(), Ok)?;
                PodNet::in_shared(config, leases, mode.namespace.clone(), self.0.tls.clone())
            }
            _ => self.on_node(config),
        }
    }

    /// Keeps the addresses for a pod that had them before this process started, until it is attached or
    /// [detached](Self::detach). Those of CNI plugins are on record anyway.
    ///
    /// `AlreadyExists` if another pod has one, `InvalidArgument` if they are none of this network's.
    pub fn keep(&self, pod_uid: &str, ips: &[IpAddr]) -> Result<()> {
        if let Mode::Address(mode) = &self.0.mode {
            let leases = mode.allocate_exact(ips)?;
            self.0.kept.lock().insert(pod_uid.to_owned(), leases);
        }
        Ok(())
    }

    /// Takes away what a pod still has once its [`PodNet`] is released and it will not come back.
    ///
    /// `Unavailable` if a plugin fails: ask again.
    pub async fn detach(&self, pod_uid: &str) -> Result<()> {
        self.0.kept.lock().remove(pod_uid);
        match &self.0.mode {
            Mode::Cni(cni) => cni.detach(pod_uid).await,
            Mode::Address(_) | Mode::Node => Ok(()),
        }
    }

    /// Takes away what plugins gave to pods of an earlier life that nobody knows any more.
    pub async fn sweep(&self, is_known: impl Fn(&str) -> bool) {
        let Mode::Cni(cni) = &self.0.mode else { return };
        let pods = cni.pods().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the records of pods' networks");
            vec![]
        });
        for uid in pods.iter().filter(|uid| !is_known(uid)) {
            if let Err(error) = cni.detach(uid).await {
                tracing::warn!(%error, "what is left of a pod's network");
            }
        }
    }

    /// What a thread has to do before it runs guests of pods with addresses of their own: for
    /// `tokio::runtime::Builder::on_thread_start`, which covers the threads for blocking work, too. A thread that blocks
    /// on a current-thread runtime has to call it itself.
    ///
    /// The thread leaves the node's network for good, and so do threads and processes that it starts. Where that fails,
    /// the process aborts: guests would be on the node's network. CAP_SYS_ADMIN must not be given up before.
    pub fn guest_thread_init(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let namespace = match &self.0.mode {
            Mode::Address(mode) => Some(mode.namespace.clone()),
            Mode::Cni(_) | Mode::Node => None,
        };
        move || {
            if let Some(namespace) = &namespace {
                namespace.enter_or_abort();
            }
        }
    }

    /// Takes the network off the node: its interface and routes. Pods that still run lose their connections. What CNI
    /// plugins gave stays, for the pods' next life.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        match &self.0.mode {
            Mode::Address(mode) => mode.remove().await,
            Mode::Cni(_) | Mode::Node => Ok(()),
        }
    }

    fn on_node(&self, config: &SandboxConfig) -> Result<Arc<PodNet>> {
        // `hostNetwork` asks for the node's loopback by name. A pod that is here for want of rights did not.
        let host_loopback = self.0.host_loopback || config.network == NetworkMode::Node;
        PodNet::on_node(config, self.0.node_addresses.clone(), host_loopback, self.0.tls.clone())
    }
}

async fn set_up(config: &NetworkConfig) -> Result<Mode, NetworkError> {
    let node: Vec<_> = config.node_addresses.iter().copied().filter(|ip| !ip.is_loopback()).collect();
    match &config.pod_range {
        PodRangeConfig::None => Ok(Mode::Node),
        PodRangeConfig::Cni(config) => Ok(Mode::Cni(Cni::open(config.clone())?)),
        PodRangeConfig::Assigned(ranges) => {
            let mode = AddressMode::set_up(PodRanges::new(ranges)?, &node).await?;
            // The network plugin of a cluster may have yet to open the firewall.
            if let Err(reason) = mode.check_forwarding().await {
                tracing::warn!(%reason, "pods of this node cannot reach each other");
            }
            Ok(Mode::Address(mode))
        }
        PodRangeConfig::FirstFree(block) => {
            let mode = AddressMode::set_up_first_free(*block, &node).await?;
            mode.check_forwarding().await?;
            Ok(Mode::Address(mode))
        }
    }
}

/// Whether pods may go without addresses of their own. If they got a range, nothing but a lack of rights excuses it: in
/// a cluster, pods that silently share the node's addresses would be a surprise.
fn may_do_without(config: &NetworkConfig, reason: &NetworkError) -> bool {
    matches!(config.pod_range, PodRangeConfig::FirstFree(_)) || reason.is_lack_of_rights()
}
