//! The network of the node's pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use coracle_cluster::NodeWatch;
use coracle_core::ports::ObjectReader;
use coracle_wasm::network::{CniConfig, Network, NetworkConfig, PodRangeConfig};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::config::Resolved;

/// How long a new Node waits for a controller to give it a range. A cluster whose ranges come from elsewhere never
/// gives one; a Node that was here before has had it for long.
const WAIT_FOR_RANGE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Where in the node's folder the records of CNI networks are.
const CNI_FOLDER: &str = "wasm-cni";

/// Sets the network up: CNI's where its configurations are given, else addresses of their own where a range is known and
/// the rights are there, else the node's.
pub(super) async fn set_up(
    resolved: &Resolved,
    node: Option<&NodeWatch>,
    objects: &dyn ObjectReader,
    node_addresses: Vec<IpAddr>,
) -> anyhow::Result<Network> {
    let range = match &resolved.flags.wasm.cni {
        Some((conf_dir, bin_dirs)) => PodRangeConfig::Cni(CniConfig {
            conf_dir: conf_dir.clone(),
            bin_dirs: bin_dirs.clone(),
            state_dir: resolved.flags.root_dir.join(CNI_FOLDER),
        }),
        // The Node's range is for the plugins of the container runtime: two who give out the same addresses do not go
        // together.
        None if !resolved.config.container_runtime_endpoint.is_empty() => match &*resolved.config.pod_cidr {
            "" => PodRangeConfig::None,
            range => PodRangeConfig::Assigned(parse(range)?),
        },
        None => match pod_range(&resolved.config.pod_cidr, node, objects).await {
            Some(ranges) => PodRangeConfig::Assigned(parse(&ranges)?),
            None => PodRangeConfig::None,
        },
    };
    let config = NetworkConfig { pod_range: range, node_addresses, ..NetworkConfig::default() };
    Network::detect(config).await.context("cannot set up the network of pods")
}

/// `spec.podCIDR` of the Node, which wins, or `podCIDR` of the configuration, which is all there is without a cluster.
async fn pod_range(configured: &str, node: Option<&NodeWatch>, objects: &dyn ObjectReader) -> Option<String> {
    let configured = (!configured.is_empty()).then(|| configured.to_owned());
    let Some(node) = node else { return configured };
    let registered = node.registered().await;
    if let Some(range) = range_of(&registered).or(configured) {
        return Some(range);
    }
    tracing::info!(wait = ?WAIT_FOR_RANGE, "waiting for spec.podCIDR of this node");
    let given = async {
        loop {
            if let Some(range) = objects.node().as_deref().and_then(range_of) {
                return range;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(WAIT_FOR_RANGE, given).await.ok()
}

/// As upstream's `podCIDR`: one range, or two with a comma between them.
fn parse(ranges: &str) -> anyhow::Result<Vec<IpNet>> {
    let parse = |range: &str| {
        range.trim().parse().with_context(|| format!("the pod range {ranges:?} is neither a CIDR nor two"))
    };
    ranges.split(',').map(parse).collect()
}

fn range_of(node: &Node) -> Option<String> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.clone().filter(|ranges| !ranges.is_empty());
    all.map(|ranges| ranges.join(",")).or_else(|| spec.pod_cidr.clone().filter(|range| !range.is_empty()))
}
