//! How often a node asks the apiserver, counted at the apiserver.

use coracle_tests::audit::{self, Call};
use coracle_tests::cluster::{self, Cluster};

use crate::support::{serve, soon};

const PODS: usize = 5;

#[test]
fn a_pods_life_costs_four_calls() {
    let cluster = Cluster::new("calls").unwrap();
    // It stays, and with it the watch of what all pods of the namespace mount.
    serve(&cluster, "first");
    let before = calls(&cluster).len();
    for number in 0..PODS {
        let name = format!("pod-{number}");
        serve(&cluster, &name);
        cluster.kubectl.run(&["delete", "pod", &name, "--wait=false"]).unwrap();
        cluster.kubectl.until_gone("pod", &name, soon()).unwrap();
    }
    // A token is refused as long as the apiserver's plug-ins have not heard of the pod; the node asks again.
    let (early, answered): (Vec<Call>, Vec<Call>) = calls(&cluster)
        .split_off(before)
        .into_iter()
        .partition(|call| call.resource == "serviceaccounts/token" && matches!(call.code, 403 | 404));
    assert!(early.len() <= 5 * PODS, "{early:?}");
    let expected = [
        ("create serviceaccounts/token", PODS),
        ("delete pods", PODS),
        ("patch pods/status", 2 * PODS), // Running, and how it ended
    ];
    assert_eq!(audit::tally(&answered), expected.map(|(call, count)| (call.to_owned(), count)).into());
}

/// What is asked because of pods, events aside: not the node's own upkeep.
fn calls(cluster: &Cluster) -> Vec<Call> {
    let mut calls = cluster::control_plane().unwrap().calls_of(cluster.node.name()).unwrap();
    calls.retain(|call| !matches!(call.resource.as_str(), "events" | "leases" | "nodes" | "nodes/status"));
    calls
}
