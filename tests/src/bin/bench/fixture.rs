//! What the benches of pod starts share: a cluster, a cached image, and one watch that stamps what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use coracle_tests::audit::Call;
use coracle_tests::cluster;
use coracle_tests::control_plane::ControlPlane;
use coracle_tests::node::Node;
use coracle_tests::registry::Registry;
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything may take that a bench waits for.
const PATIENCE: Duration = Duration::from_secs(300);

const NODE: &str = "bench";
const MAX_PODS: u32 = 1010;

/// A node in a cluster, with an image that it has.
pub(crate) struct Fixture {
    pub(crate) pods: Api<Pod>,
    seen: mpsc::UnboundedReceiver<Seen>,
    image: String,
    node: Node,
    registry: Registry,
    control_plane: ControlPlane,
}

/// A pod as the watch showed it, and when.
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) pod: Pod,
    pub(crate) gone: bool,
}

impl Fixture {
    pub(crate) async fn new() -> Result<Self> {
        let control_plane = cluster::start_control_plane()?;
        cluster::namespace(&control_plane, "bench")?;
        let registry = Registry::start()?;
        let image = registry.push_guest("http")?;
        let node = Node::start_with(&control_plane, NODE, &json!({ "maxPods": MAX_PODS }))?;
        node.await_ready(&control_plane.kubectl())?;

        let kubeconfig = Kubeconfig::read_from(control_plane.admin_kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, "bench");
        let seen = follow(pods.clone()).await?;
        let mut fixture = Self { pods, seen, image, node, registry, control_plane };
        fixture.warm_up().await?;
        Ok(fixture)
    }

    /// One pod from start to end, so that the image is cached and connections are open.
    async fn warm_up(&mut self) -> Result<()> {
        self.create("warm-up").await?;
        self.until("warm-up", |seen| is_ready(&seen.pod)).await?;
        self.delete("warm-up").await?;
        self.until("warm-up", |seen| seen.gone).await.map(drop)
    }

    /// The node that runs the pods.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The control plane of the node.
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// All that the node has asked of the apiserver so far.
    pub(crate) fn calls(&self) -> Result<Vec<Call>> {
        self.control_plane.calls_of(NODE)
    }

    /// Creates so many pods at once, and says how long it took until the last of them was Running.
    pub(crate) async fn create_all(&mut self, prefix: &str, pods: usize) -> Result<Duration> {
        let names: Vec<String> = (0..pods).map(|number| format!("{prefix}-{number}")).collect();
        let start = Instant::now();
        try_join_all(names.iter().map(|name| self.create(name))).await?;
        let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut last = start;
        while !waiting.is_empty() {
            let seen = self.next().await?;
            if is_running(&seen.pod) && waiting.remove(seen.pod.metadata.name.as_deref().unwrap_or_default())
            {
                last = seen.at;
            }
        }
        Ok(last - start)
    }

    /// Creates a pod on the node, and says when the answer came.
    pub(crate) async fn create(&self, name: &str) -> Result<Instant> {
        self.pods.create(&PostParams::default(), &self.pod(name, &self.image, &[], &[])?).await?;
        Ok(Instant::now())
    }

    /// Creates a pod on the node with another guest, which answers HTTP requests, and with annotations.
    pub(crate) async fn create_service(
        &self,
        name: &str,
        guest: &str,
        annotations: &[(&str, &str)],
    ) -> Result<()> {
        let image = self.registry.push_guest(guest)?;
        self.pods.create(&PostParams::default(), &self.pod(name, &image, &[], annotations)?).await?;
        Ok(())
    }

    /// Creates a pod on the node with another guest and its arguments.
    pub(crate) async fn create_command(&self, name: &str, guest: &str, args: &[&str]) -> Result<()> {
        let image = self.registry.push_guest(guest)?;
        self.pods.create(&PostParams::default(), &self.pod(name, &image, args, &[])?).await?;
        Ok(())
    }

    /// Deletes a pod with its own grace period, and says when the answer came.
    pub(crate) async fn delete(&self, name: &str) -> Result<Instant> {
        self.pods.delete(name, &DeleteParams::default()).await?;
        Ok(Instant::now())
    }

    /// The next thing that the watch shows.
    pub(crate) async fn next(&mut self) -> Result<Seen> {
        let seen = timeout(PATIENCE, self.seen.recv()).await;
        let seen = seen.with_context(|| format!("nothing happens any more\n{}", self.node.log()))?;
        seen.context("the watch has ended")
    }

    /// The first thing that the watch shows of a pod and that is as wished.
    pub(crate) async fn until(&mut self, name: &str, wish: impl Fn(&Seen) -> bool) -> Result<Seen> {
        loop {
            let seen = self.next().await?;
            if seen.pod.metadata.name.as_deref() == Some(name) && wish(&seen) {
                return Ok(seen);
            }
        }
    }

    fn pod(&self, name: &str, image: &str, args: &[&str], annotations: &[(&str, &str)]) -> Result<Pod> {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        Ok(serde_json::from_value(json!({
            "metadata": { "name": name, "annotations": annotations },
            "spec": {
                "nodeName": self.node.name(),
                "runtimeClassName": "wasm",
                "containers": [{
                    "name": "http",
                    "image": image,
                    "args": args,
                    "ports": [{ "name": "http", "containerPort": 8080 }],
                }],
            },
        }))?)
    }
}

/// Watches all pods for ever; a watch that the apiserver ends goes on where it was.
async fn follow(pods: Api<Pod>) -> Result<mpsc::UnboundedReceiver<Seen>> {
    let mut version = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(events) = pods.watch(&WatchParams::default(), &version).await {
            let mut events = pin!(events);
            while let Ok(Some(event)) = events.try_next().await {
                let at = Instant::now();
                let (pod, gone) = match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                    WatchEvent::Deleted(pod) => (pod, true),
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
                };
                version = pod.resource_version().unwrap_or_default();
                if sender.send(Seen { at, pod, gone }).is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

/// Whether its phase is Running.
pub(crate) fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Whether its condition Ready is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
