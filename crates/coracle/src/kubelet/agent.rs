//! Everything of a node, put together and running.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use coracle_cluster::{KubeAccessReviewer, connect};
use coracle_core::allocation::States;
use coracle_core::config::PodConfig;
use coracle_core::kubelet::{Dependencies, Kubelet, start_kubelet};
use coracle_core::ports::{AccessReviewer, ApiServer, TokenIssuer};
use coracle_core::providers::{Providers, RegisteredProvider};
use coracle_core::recorder::Recorder;
use coracle_node::NodeUsageReader;
use coracle_nodeapi::PodResourcesServer;
use coracle_server::MetricsSource;
use coracle_volumes::VolumeManager;
use coracle_wasm::WasmProvider;
use coracle_wasm::network::Network;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::about::about;
use super::api_server::{self, KubeletServer};
use super::clients::Clients;
use super::containers::Containers;
use super::node_reporter::NodeReporter;
use super::pod_sources::{check_pod_sources, pod_sources};
use super::reserved::check_reserved;
use super::{control_groups, images, network, options};
use crate::config::{KubeletConfiguration, KubeletFlags, Resolved};
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
    /// Registers the node, unless it stands alone, and starts everything.
    pub(super) async fn start(resolved: &Resolved, runtimes: &Runtimes) -> anyhow::Result<Self> {
        let config = &resolved.config;
        check_pod_sources(resolved)?;
        prepare_folders(resolved)?;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let client = match &resolved.flags.kubeconfig {
            Some(kubeconfig) => Some(connect(kubeconfig, options::client_options(config)).await?),
            None => None,
        };
        let reviewer =
            client.clone().map(|c| Arc::new(KubeAccessReviewer::new(c)) as Arc<dyn AccessReviewer>);
        // Ports first: if another agent runs here, nothing of it must be disturbed.
        let server = KubeletServer::bind(resolved, reviewer, shutdown.clone()).await?;
        tasks.spawn(api_server::healthz(config, shutdown.clone()).await?);
        let pod_resources = PodResourcesServer::bind(&resolved.flags.root_dir, shutdown.clone())?;

        let containers = Containers::connect(config).await?;
        let machine = coracle_node::machine_info(&resolved.flags.root_dir)?;
        let addresses = node_addresses(resolved, machine.hostname.clone()).await?;
        let settings = options::node_settings(resolved, containers.as_ref(), &machine);
        check_reserved(&settings.reserved, &machine)?;
        let reporter = NodeReporter::new(settings, machine.clone(), addresses.clone());
        let clients = match &client {
            Some(client) => Clients::in_cluster(resolved, client, &reporter, &mut tasks),
            None => Clients::standalone(&reporter),
        };

        let node = clients.node.as_deref();
        let network = network::set_up(resolved, node, &*clients.objects, addresses.clone()).await?;
        let (providers, metrics) =
            providers(&resolved.flags, containers.as_ref(), &network, runtimes).await?;
        let container_manager =
            control_groups::container_manager(resolved, containers.as_ref(), &machine).await?;
        let memory = machine.memory_bytes;
        let server = server.with_about(about(resolved, machine, vec![metrics]));
        let images = images::image_manager_options(resolved, &clients)?;
        let recorder = Recorder::new(clients.event_sink.clone());
        let pod_config = PodConfig::new(pod_sources(resolved, &clients)?, recorder);
        let deps = Dependencies {
            providers: providers.clone(),
            volumes: Arc::new(volumes(resolved, &clients)?),
            container_manager,
            status_sink: clients.status_sink,
            mirror_client: clients.mirror_client,
            event_sink: clients.event_sink,
            objects: clients.objects,
            resources: States::open(&resolved.flags.root_dir)?,
            probe_transport: Arc::new(coracle_probes::Transport::new(crate::version::KUBERNETES)?),
            node_usage: Some(Arc::new(NodeUsageReader::new(&resolved.flags.root_dir))),
            server: config.enable_server.then(|| Arc::new(server) as Arc<dyn ApiServer>),
            pod_resources: Some(Arc::new(pod_resources)),
        };
        let kubelet_options = options::kubelet_options(resolved, images, addresses, memory);
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

/// May ask a resolver, so it has a thread for itself.
async fn node_addresses(resolved: &Resolved, hostname: String) -> anyhow::Result<Vec<IpAddr>> {
    let (wanted, name) = (resolved.flags.node_ips.clone(), resolved.flags.node_name.clone());
    let find = move || coracle_node::node_addresses(&wanted, &hostname, &name);
    Ok(tokio::task::spawn_blocking(find).await??)
}

/// The runtimes, and what the one that is built in counts.
async fn providers(
    flags: &KubeletFlags,
    containers: Option<&Containers>,
    network: &Network,
    runtimes: &Runtimes,
) -> anyhow::Result<(Providers, MetricsSource)> {
    let (control, io) = (runtimes.control.handle().clone(), runtimes.io.handle().clone());
    let mut options =
        coracle_wasm::Options::new(flags.root_dir.join(WASM_FOLDER), control, io, network.clone());
    options.images.hosts_dir = Some(images::HOSTS_DIR.into());
    flags.wasm.apply(&mut options);
    let wasm = WasmProvider::open(options).await.context("cannot start the WebAssembly runtime")?;
    let wasm = Arc::new(wasm);
    let counting = wasm.clone();
    let wasm = RegisteredProvider {
        provider: wasm,
        handlers: vec!["wasm".to_owned()],
        relist_period: RELIST_PERIOD,
    };
    // The first one has the pods without a RuntimeClass.
    let all = containers.map(Containers::registered).into_iter().chain([wasm]);
    let providers = Providers::new(all.collect());
    Ok((providers, Arc::new(move || counting.metrics())))
}

fn volumes(resolved: &Resolved, clients: &Clients) -> anyhow::Result<VolumeManager> {
    let objects = clients.objects.clone();
    let options = coracle_volumes::Options {
        root_dir: resolved.flags.root_dir.clone(),
        // As upstream: who may write such a pod is the cluster's decision (Pod Security admission).
        allow_host_path: true,
        node_allocatable: Box::new(move || {
            let node = objects.node();
            node.and_then(|n| n.status.as_ref()?.allocatable.clone()).unwrap_or_default()
        }),
    };
    let tokens = clients.tokens.clone().map(|tokens| tokens as Arc<dyn TokenIssuer>);
    Ok(VolumeManager::new(options, clients.objects.clone(), tokens)?)
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
