//! Everything of a node, put together and running.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use coracle_cluster::{
    ApiClient, ApiserverSource, KubeAccessReviewer, KubeMirrorClient, KubeObjectReader, KubeStatusSink,
    KubeTokenIssuer, LeaseController, NodeController, NodeWatch, connect, event_sink,
};
use coracle_core::allocation::States;
use coracle_core::config::PodConfig;
use coracle_core::kubelet::{Dependencies, Kubelet, start_kubelet};
use coracle_core::ports::{ApiServer, EventSink, ObjectReader};
use coracle_core::providers::{Providers, RegisteredProvider};
use coracle_volumes::VolumeManager;
use coracle_wasm::WasmProvider;
use coracle_wasm::network::Network;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api_server::{self, KubeletServer};
use super::node_reporter::NodeReporter;
use super::pod_sources::pod_sources;
use super::{images, network, options};
use crate::config::{KubeletConfiguration, Resolved};
use crate::runtimes::Runtimes;

/// Only an audit: the provider's events tell everything.
const RELIST_PERIOD: Duration = Duration::from_secs(60);
/// Where a root folder keeps what belongs to the WebAssembly provider.
const WASM_FOLDER: &str = "coracle-wasm";
/// What requests that are under way get to finish in when the agent ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// A running node. Dropping it ends everything at once.
pub(super) struct Agent {
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    network: Network,
}

impl Agent {
    /// Registers the node and starts everything.
    pub(super) async fn start(resolved: &Resolved, runtimes: &Runtimes) -> anyhow::Result<Self> {
        let config = &resolved.config;
        let kubeconfig = resolved.flags.kubeconfig.as_deref();
        let kubeconfig =
            kubeconfig.context("--kubeconfig is needed; without a cluster, use `coracle run`")?;
        prepare_folders(resolved)?;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let client = connect(kubeconfig, options::client_options(config)).await?;
        let reviewer = Arc::new(KubeAccessReviewer::new(client.clone()));
        // Ports first: if another agent runs here, nothing of it must be disturbed.
        let server = KubeletServer::bind(resolved, reviewer, shutdown.clone()).await?;
        tasks.spawn(api_server::healthz(config, shutdown.clone()).await?);

        let machine = coracle_node::machine_info(&resolved.flags.root_dir)?;
        let addresses = node_addresses(resolved, machine.hostname.clone()).await?;
        let reporter = NodeReporter::new(options::node_settings(resolved), machine, addresses.clone());
        let (events, writer) =
            event_sink(client.clone(), &resolved.flags.node_name, options::event_options(config));
        let events: Arc<dyn EventSink> = Arc::new(events);
        tasks.spawn(writer.run());
        let node = start_node(resolved, &client, &reporter, &events, &mut tasks);

        let objects = Arc::new(KubeObjectReader::new(client.clone(), node.clone()));
        let network = network::set_up(&config.pod_cidr, &node, &*objects, addresses.clone()).await?;
        let providers = providers(&resolved.flags.root_dir, &network, runtimes).await?;
        let deps = Dependencies {
            providers: providers.clone(),
            status_sink: Arc::new(KubeStatusSink::new(client.clone())),
            mirror_client: Some(Arc::new(KubeMirrorClient::new(client.clone()))),
            event_sink: events,
            volumes: Arc::new(volumes(resolved, &client, objects.clone())?),
            objects,
            resources: States::open(&resolved.flags.root_dir)?,
            probe_transport: Arc::new(coracle_probes::Transport::new(crate::version::KUBERNETES)?),
            server: config.enable_server.then(|| Arc::new(server) as Arc<dyn ApiServer>),
        };
        let images = images::image_manager_options(resolved, &client)?;
        let pod_config = PodConfig::new(pod_sources(resolved, ApiserverSource::new(client, node))?);
        let kubelet_options = options::kubelet_options(resolved, images, addresses);
        let kubelet = Kubelet::new(kubelet_options, deps, pod_config.sources_ready());
        let (updates, sources) = pod_config.start();
        tasks.spawn(run_all(sources));
        tasks.spawn(run_all(start_kubelet(&kubelet, updates)));
        tasks.spawn(async move { reporter.follow(kubelet, providers).await });
        Ok(Self { tasks, shutdown, network })
    }

    /// Ends: requests that are under way may finish, pods in this process end with it and come back with the next one.
    pub(super) async fn shut_down(mut self) {
        self.shutdown.cancel();
        tokio::time::sleep(SHUTDOWN_GRACE).await;
        self.tasks.shutdown().await;
        if let Err(error) = self.network.remove().await {
            tracing::warn!(%error, "removing the pods' network failed");
        }
    }
}

/// Registers the Node and keeps it and its lease current.
fn start_node(
    resolved: &Resolved,
    client: &Arc<ApiClient>,
    reporter: &Arc<NodeReporter>,
    events: &Arc<dyn EventSink>,
    tasks: &mut JoinSet<()>,
) -> Arc<NodeWatch> {
    let config = &resolved.config;
    let node = NodeWatch::start(client.clone(), &resolved.flags.node_name);
    let node_options = options::node_options(config);
    let controller =
        NodeController::new(client, node.clone(), reporter.clone(), events.clone(), node_options);
    tasks.spawn(controller.run());
    let lease_duration = Duration::from_secs(config.node_lease_duration_seconds.into());
    tasks.spawn(LeaseController::new(client, node.clone(), lease_duration).run());
    node
}

/// May ask a resolver, so it has a thread for itself.
async fn node_addresses(resolved: &Resolved, hostname: String) -> anyhow::Result<Vec<IpAddr>> {
    let (wanted, name) = (resolved.flags.node_ips.clone(), resolved.flags.node_name.clone());
    let find = move || coracle_node::node_addresses(&wanted, &hostname, &name);
    Ok(tokio::task::spawn_blocking(find).await??)
}

async fn providers(root: &Path, network: &Network, runtimes: &Runtimes) -> anyhow::Result<Providers> {
    let (control, io) = (runtimes.control.handle().clone(), runtimes.io.handle().clone());
    let mut options = coracle_wasm::Options::new(root.join(WASM_FOLDER), control, io, network.clone());
    options.images.hosts_dir = Some(images::HOSTS_DIR.into());
    let wasm = WasmProvider::open(options).await.context("cannot start the WebAssembly runtime")?;
    Ok(Providers::new(vec![RegisteredProvider {
        provider: Arc::new(wasm),
        handlers: vec!["wasm".to_owned()],
        relist_period: RELIST_PERIOD,
    }]))
}

fn volumes(
    resolved: &Resolved,
    client: &Arc<ApiClient>,
    objects: Arc<KubeObjectReader>,
) -> anyhow::Result<VolumeManager> {
    let allocatable = objects.clone();
    let options = coracle_volumes::Options {
        root_dir: resolved.flags.root_dir.clone(),
        // As upstream: who may write such a pod is the cluster's decision (Pod Security admission).
        allow_host_path: true,
        node_allocatable: Box::new(move || {
            let node = allocatable.node();
            node.and_then(|n| n.status.as_ref()?.allocatable.clone()).unwrap_or_default()
        }),
    };
    let tokens = Arc::new(KubeTokenIssuer::new(client.clone()));
    Ok(VolumeManager::new(options, objects, Some(tokens))?)
}

/// Folders that upstream makes in `setupDataDirs`.
fn prepare_folders(resolved: &Resolved) -> anyhow::Result<()> {
    let KubeletConfiguration { pod_logs_dir, .. } = &resolved.config;
    for folder in [&resolved.flags.root_dir, pod_logs_dir, Path::new("/var/log/containers")] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(())
}

/// Waits for tasks, which do not end by themselves.
async fn run_all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a task of the agent ended abnormally");
        }
    }
}
