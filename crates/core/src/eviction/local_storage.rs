//! Pods that write more than they may (upstream: `podEphemeralStorageLimitEviction` and
//! `containerEphemeralStorageLimitEviction` in `eviction_manager.go`). Between two looks a pod can write more.

use coracle_provider::DiskStats;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::rank::PodFigures;
use crate::pod::{PodExt, is_restartable_init_container};
use crate::pod_resources::{parse, pod_limits};
use crate::quantity::Quantity;

const RESOURCE: &str = "ephemeral-storage";
const POD_SIGNAL: &str = "ephemeralpodfs.limit";
const CONTAINER_SIGNAL: &str = "ephemeralcontainerfs.limit";

/// Whether a pod has a limit that [`exceeded_limit`] looks at.
pub fn has_storage_limits(pod: &Pod) -> bool {
    pod_limits(pod).contains_key(RESOURCE)
}

/// Of a pod that takes more space than it, or one of its containers, may: what it is counted under, and what is told. What containers write over their
/// images counts against their own limits only if it is on the node's disk.
pub fn exceeded_limit(
    pod: &Pod,
    figures: &PodFigures,
    has_dedicated_image_fs: bool,
) -> Option<(&'static str, String)> {
    let used = |stats: Option<DiskStats>| stats.map_or(0, |stats| stats.used_bytes);
    let of_containers = figures.containers.iter().map(|it| used(it.rootfs).saturating_add(used(it.logs)));
    let total = of_containers.fold(figures.volumes.used_bytes, u64::saturating_add);
    if let Some(limit) = pod_limits(pod).get(RESOURCE).filter(|limit| is_above(total, **limit)) {
        let message =
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
        return Some((POD_SIGNAL, message));
    }
    let sidecars = pod.init_containers().iter().filter(|container| is_restartable_init_container(container));
    let limits: Vec<(&str, Quantity)> = pod.containers().iter().chain(sidecars).filter_map(limit).collect();
    figures.containers.iter().find_map(|running| {
        let (name, limit) = limits.iter().find(|(name, _)| *name == running.name)?;
        let rootfs = running.rootfs.filter(|_| !has_dedicated_image_fs);
        let total = used(running.logs).saturating_add(used(rootfs));
        let text = format!("\"{limit}\"");
        let message = || format!("Container {name} exceeded its local ephemeral storage limit {text}. ");
        is_above(total, *limit).then(|| (CONTAINER_SIGNAL, message()))
    })
}

fn limit(container: &Container) -> Option<(&str, Quantity)> {
    let limits = parse(container.resources.as_ref().and_then(|it| it.limits.as_ref()));
    let limit = limits.get(RESOURCE).filter(|limit| !limit.is_zero())?;
    Some((container.name.as_str(), *limit))
}

fn is_above(bytes: u64, limit: Quantity) -> bool {
    i128::from(bytes) > i128::from(limit.value())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::eviction::ContainerFigures;

    const MIB: u64 = 1 << 20;

    fn container(name: &str, policy: Option<&str>, limit: Option<&str>) -> Value {
        let limits = limit.map_or(json!({}), |limit| json!({ RESOURCE: limit }));
        json!({"name": name, "restartPolicy": policy, "resources": {"limits": limits}})
    }

    fn exceeded(spec: &Value, used: &[(&str, u64, u64)], volumes: u64, dedicated: bool) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let stats = |mib: u64| DiskStats { used_bytes: mib * MIB, inodes_used: 1 };
        let containers = used.iter().map(|(name, rootfs, logs)| ContainerFigures {
            name: (*name).to_owned(),
            rootfs: Some(stats(*rootfs)),
            logs: Some(stats(*logs)),
            ..ContainerFigures::default()
        });
        let figures =
            PodFigures { containers: containers.collect(), volumes: stats(volumes), ..PodFigures::default() };
        exceeded_limit(&pod, &figures, dedicated).map(|(_, message)| message)
    }

    /// `TestStorageLimitEvictions`, `TestContainerEphemeralStorageLimitEvictionForRestartableInitContainers`.
    #[test]
    fn a_pod_and_its_containers_have_limits() {
        let two =
            json!({"containers": [container("a", None, Some("10Mi")), container("b", None, Some("10Mi"))]});
        assert_eq!(exceeded(&two, &[("a", 5, 5), ("b", 5, 5)], 0, false), None, "a limit may be reached");
        let message = "Container b exceeded its local ephemeral storage limit \"10Mi\". ";
        assert_eq!(exceeded(&two, &[("a", 1, 1), ("b", 6, 5)], 0, false).as_deref(), Some(message));
        assert_eq!(exceeded(&two, &[("a", 1, 1), ("b", 6, 5)], 0, true), None, "it wrote to another disk");
        let message = "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. ";
        assert_eq!(exceeded(&two, &[("a", 1, 1), ("b", 1, 1)], 17, false).as_deref(), Some(message));

        let none = json!({"containers": [container("a", None, None)]});
        assert_eq!(exceeded(&none, &[("a", 1000, 1000)], 1000, false), None);
        let side = json!({"containers": [container("a", None, Some("1Gi"))],
            "initContainers": [container("side", Some("Always"), Some("10Mi"))]});
        let message = "Container side exceeded its local ephemeral storage limit \"10Mi\". ";
        assert_eq!(exceeded(&side, &[("side", 11, 0)], 0, false).as_deref(), Some(message));
        let pod = |spec: &Value| serde_json::from_value::<Pod>(json!({ "spec": spec })).unwrap();
        assert!(has_storage_limits(&pod(&two)) && !has_storage_limits(&pod(&none)));
    }
}
