//! A node that runs out of something.

use coracle_tests::cluster::Cluster;
use coracle_tests::wait;
use serde_json::json;

use crate::support::*;

/// No machine has so much memory that this is left.
const MORE_THAN_THERE_IS: &str = "1000Ti";

#[test]
fn a_node_without_memory_says_so_and_its_pods_go() {
    let fields = json!({
        "evictionSoft": { "memory.available": MORE_THAN_THERE_IS },
        "evictionSoftGracePeriod": { "memory.available": "1s" },
        "evictionMaxPodGracePeriod": 1,
    });
    let cluster = Cluster::with_configuration("eviction", &fields).unwrap();
    let mut spec = spec(&cluster, "Always", &json!([container("main", "stay", &["sleep"])]));
    // One that is let in all the same.
    spec["tolerations"] = json!([{ "key": "node.kubernetes.io/memory-pressure", "operator": "Exists" }]);
    create(&cluster, "goes", &spec);
    let pod = until_phase(&cluster, "goes", "Failed");
    assert_eq!(pod["status"]["reason"], "Evicted");
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 1000Ti, "),
        "{message}"
    );
    let node = wait::eventually("the node says so", soon(), || {
        let node = cluster.kubectl.get("node", cluster.node.name())?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let pressure = conditions.iter().any(|c| c["type"] == "MemoryPressure" && c["status"] == "True");
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let tainted = taints.iter().any(|taint| taint["key"] == "node.kubernetes.io/memory-pressure");
        if pressure && tainted { Ok(()) } else { anyhow::bail!("{conditions:#?} {taints:#?}") }
    });
    node.unwrap();
}
