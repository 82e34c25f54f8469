//! The node as the cluster sees it.

use coracle_tests::cluster::Cluster;
use coracle_tests::control_plane::ControlPlane;
use coracle_tests::node::Node;
use coracle_tests::wait::{self, Deadline};
use coracle_tests::{http, network};

use crate::support::soon;

#[test]
fn it_registers_with_label_and_taint_and_renews_its_lease() {
    let cluster = Cluster::new("node").unwrap();
    let kubectl = &cluster.kubectl;
    let node = kubectl.get("node", cluster.node.name()).unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/arch"], "wasm32-wasi");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], cluster.node.name());
    let taints = node["spec"]["taints"].as_array().unwrap();
    assert!(
        taints.iter().any(|taint| taint["value"] == "wasm32-wasi" && taint["effect"] == "NoSchedule"),
        "{taints:?}"
    );

    let status = &node["status"];
    let address = network::node_ip().unwrap().to_string();
    let addresses = status["addresses"].as_array().unwrap();
    assert!(
        addresses.iter().any(|it| it["type"] == "InternalIP" && it["address"] == *address),
        "{addresses:?}"
    );
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], cluster.node.port());
    assert!(status["nodeInfo"]["kubeletVersion"].as_str().unwrap().starts_with("v1."), "{status:#}");
    assert!(status["allocatable"]["pods"].is_string(), "{status:#}");

    let lease = kubectl.in_namespace("kube-node-lease");
    let renewed = lease.get("lease", cluster.node.name()).unwrap()["spec"]["renewTime"].clone();
    let renewal = lease.until("lease", cluster.node.name(), "it is renewed", soon(), |lease| {
        lease["spec"]["renewTime"] != renewed
    });
    renewal.unwrap();
    assert_eq!(http::get(&cluster.node.healthz()).unwrap().body, "ok");
}

#[test]
fn the_api_server_may_ask_it_and_strangers_may_not() {
    let cluster = Cluster::new("node-api").unwrap();
    let proxied = format!("/api/v1/nodes/{}/proxy/healthz", cluster.node.name());
    assert_eq!(cluster.kubectl.run(&["get", "--raw", &proxied]).unwrap(), "ok");
    // Without a certificate, over the same port.
    let mut curl = coracle_tests::process::tethered("curl");
    curl.args(["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    curl.arg(format!("https://{}:{}/pods", network::node_ip().unwrap(), cluster.node.port()));
    let finished = coracle_tests::process::finish(curl, None, Deadline::seconds(20)).unwrap();
    assert_eq!(finished.stdout, "401", "{finished:?}");
}

#[test]
fn a_node_that_stops_is_noticed_and_comes_back_under_its_name() {
    let control_plane = ControlPlane::start().unwrap();
    let kubectl = control_plane.kubectl();
    let mut node = Node::start(&control_plane, "back").unwrap();
    let uid = node.await_ready(&kubectl).unwrap()["metadata"]["uid"].clone();
    node.stop().unwrap();
    assert!(http::get(&node.healthz()).is_err());

    node.resume().unwrap();
    wait::eventually("it is healthy", soon(), || http::get(&node.healthz())).unwrap();
    assert_eq!(node.await_ready(&kubectl).unwrap()["metadata"]["uid"], uid);
}
