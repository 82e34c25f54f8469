//! The node that `coracle run` is: one provider, no cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use coracle_core::allocation::States;
use coracle_core::config::{FixedSource, PodConfig, PodUpdate};
use coracle_core::credential_provider::NodeKeyring;
use coracle_core::eviction::EvictionConfig;
use coracle_core::kubelet::{Dependencies, Kubelet, KubeletOptions};
use coracle_core::kuberuntime::{DnsConfigurer, ImageManagerOptions, RuntimeOptions};
use coracle_core::pod_workers::PodWorkersOptions;
use coracle_core::providers::{Providers, RegisteredProvider};
use coracle_core::recorder::Recorder;
use coracle_volumes::VolumeManager;
use coracle_wasm::WasmProvider;
use coracle_wasm::network::{DEFAULT_BLOCK, Network, NetworkConfig, PodRangeConfig};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::RunArgs;
use super::manifest::{Documents, NODE_NAME};
use super::objects::GivenObjects;
use super::sink::{News, SessionSink};
use super::{manifest, progress};
use crate::kubelet::images::HOSTS_DIR;
use crate::runtimes::Runtimes;

/// News that the session has not read yet.
const NEWS_BUFFER: usize = 1024;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved writes the servers that it asks itself.
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// Only an audit: the provider's events tell everything.
const RELIST_PERIOD: Duration = Duration::from_secs(60);

/// Everything that runs pods, and what it reports.
pub(super) struct Node {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) updates: Mutex<Option<mpsc::Receiver<PodUpdate>>>,
    pub(super) news: Mutex<Option<mpsc::Receiver<News>>>,
    network: Network,
    _tasks: JoinSet<()>,
}

impl Node {
    /// Sets everything up. Pods are started by the session.
    pub(super) async fn start(
        args: &RunArgs,
        documents: manifest::Documents,
        root: &Path,
        runtimes: &Runtimes,
    ) -> anyhow::Result<Self> {
        let Documents { pods, config_maps, secrets } = documents;
        let network = network().await?;
        let provider = provider(args, root, &network, runtimes).await?;
        let objects = Arc::new(GivenObjects::new(config_maps, secrets));
        let volume_options = coracle_volumes::Options {
            root_dir: root.to_owned(),
            allow_host_path: true,
            node_allocatable: Box::new(Default::default),
        };
        let volumes = VolumeManager::new(volume_options, objects.clone(), None)?;

        let mut tasks = JoinSet::new();
        let reports = progress::is_wanted().then(|| {
            let (reports, receiver) = mpsc::channel(NEWS_BUFFER);
            tasks.spawn(progress::show(receiver));
            reports
        });
        let (news, news_receiver) = mpsc::channel(NEWS_BUFFER);
        let sink = Arc::new(SessionSink::new(news));
        let registered = RegisteredProvider {
            provider: Arc::new(provider),
            handlers: vec!["wasm".to_owned()],
            relist_period: RELIST_PERIOD,
        };
        let deps = Dependencies {
            providers: Providers::new(vec![registered]),
            container_manager: None,
            status_sink: sink.clone(),
            mirror_client: None,
            event_sink: sink.clone(),
            objects,
            volumes: Arc::new(volumes),
            resources: States::in_memory(),
            probe_transport: Arc::new(coracle_probes::Transport::new(crate::version::KUBERNETES)?),
            server: None,
            node_usage: None,
            pod_resources: None,
        };
        let config = PodConfig::new(vec![Arc::new(FixedSource::new(pods.clone()))], Recorder::new(sink));
        let resolver_config =
            resolver_config(!network.pod_ranges().is_empty(), RESOLV_CONF, SYSTEMD_RESOLV_CONF);
        let options = options(root, resolver_config, reports);
        let kubelet = Kubelet::new(options, deps, config.sources_ready());
        let (updates, mut sources) = config.start();
        tasks.spawn(async move { while sources.join_next().await.is_some() {} });
        Ok(Self {
            kubelet,
            pods,
            updates: Mutex::new(Some(updates)),
            news: Mutex::new(Some(news_receiver)),
            network,
            _tasks: tasks,
        })
    }

    /// Gives back what the process does not give back by ending.
    pub(super) async fn shut_down(&self) {
        if let Err(error) = self.network.remove().await {
            tracing::warn!(%error, "removing the pods' network failed");
        }
    }
}

/// Addresses of their own where the process may give them, else this machine's loopback address.
async fn network() -> anyhow::Result<Network> {
    let may_have_own = rustix::process::geteuid().is_root();
    let pod_range =
        if may_have_own { PodRangeConfig::FirstFree(DEFAULT_BLOCK) } else { PodRangeConfig::None };
    let config = NetworkConfig {
        pod_range,
        node_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        // The developer's own programs on the developer's own machine.
        host_loopback: true,
        ..NetworkConfig::default()
    };
    Network::detect(config).await.context("cannot set up a network for pods")
}

async fn provider(
    args: &RunArgs,
    root: &Path,
    network: &Network,
    runtimes: &Runtimes,
) -> anyhow::Result<WasmProvider> {
    let (control, io) = (runtimes.control.handle().clone(), runtimes.io.handle().clone());
    let mut options = coracle_wasm::Options::new(root.join("wasm"), control, io, network.clone());
    options.images.allow_local_files = true;
    options.images.plain_http.clone_from(&args.insecure_registry);
    options.images.hosts_dir = Some(HOSTS_DIR.into());
    WasmProvider::open(options).await.context("cannot start the WebAssembly runtime")
}

/// The resolver file that pods follow. systemd's is a stub on the loopback address, which is the machine's own: pods with
/// addresses of theirs ask the servers behind it (as kubeadm configures nodes).
fn resolver_config(pods_have_addresses: bool, own: &str, behind_stub: &str) -> PathBuf {
    let servers = |path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
        text.lines().filter_map(server).collect::<Vec<_>>()
    };
    let is_reachable = |path| servers(path).iter().any(|server| !server.is_loopback());
    let path = if pods_have_addresses && !is_reachable(own) && is_reachable(behind_stub) {
        behind_stub
    } else {
        own
    };
    path.into()
}

fn options(
    root: &Path,
    resolver_config: PathBuf,
    progress: Option<mpsc::Sender<coracle_core::kuberuntime::PullReport>>,
) -> KubeletOptions {
    KubeletOptions {
        node_name: NODE_NAME.to_owned(),
        node_ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        max_pods: usize::MAX,
        workers: PodWorkersOptions::default(),
        dns: DnsConfigurer { resolver_config: Some(resolver_config), ..DnsConfigurer::default() },
        runtime: RuntimeOptions {
            pod_logs_dir: root.join("logs/pods"),
            container_logs_dir: None,
            ..RuntimeOptions::default()
        },
        images: ImageManagerOptions {
            progress,
            // What `docker login` has left.
            node_keyring: Arc::new(NodeKeyring::new(root.to_owned(), std::env::home_dir())),
            ..ImageManagerOptions::default()
        },
        // What is kept from run to run is small, and the developer's own.
        image_gc: None,
        // Logs go with the session, and all of them are shown: a file that is put aside too soon would be missed.
        log_rotation: None,
        eviction: EvictionConfig::default(),
        volume_stats_period: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_with_addresses_do_not_ask_a_stub_on_the_loopback_address() {
        const STUB: &str = "nameserver 127.0.0.53\noptions edns0\n";
        const SERVER: &str = "# by systemd\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n";
        let cases = [
            (true, STUB, SERVER, "behind"),
            (true, SERVER, SERVER, "own"),
            (true, STUB, STUB, "own"),
            (true, STUB, "", "own"),
            (true, "", SERVER, "behind"),
            (false, STUB, SERVER, "own"),
        ];
        for (pods_have_addresses, own, behind, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name).display().to_string();
            std::fs::write(path("own"), own).unwrap();
            std::fs::write(path("behind"), behind).unwrap();
            let chosen = resolver_config(pods_have_addresses, &path("own"), &path("behind"));
            assert_eq!(chosen, Path::new(&path(expected)), "{own:?} {behind:?}");
        }
    }
}
