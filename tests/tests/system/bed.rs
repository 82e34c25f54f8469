//! The bed itself, before anything is judged by it.

use std::collections::BTreeSet;

use coracle_tests::artifact::Artifact;
use coracle_tests::control_plane::ControlPlane;
use coracle_tests::registry::{PASSWORD, Registry, USER};
use coracle_tests::{cluster, guests, http};

#[test]
fn the_control_plane_serves_and_its_controllers_work() {
    let control_plane = cluster::control_plane().unwrap();
    let kubectl = cluster::namespace(control_plane, "bed").unwrap();
    let names: BTreeSet<String> = control_plane
        .kubectl()
        .list("namespaces", None)
        .unwrap()
        .iter()
        .map(|namespace| namespace["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.is_superset(&["bed", "default", "kube-system"].map(str::to_owned).into()), "{names:?}");

    let account = kubectl.get("serviceaccount", "default").unwrap();
    assert_eq!(account["metadata"]["namespace"], "bed");
    let class = kubectl.get("runtimeclass", "wasm").unwrap();
    assert_eq!(class["handler"], "wasm");
}

#[test]
fn a_restarted_apiserver_has_lost_nothing() {
    let mut control_plane = ControlPlane::start().unwrap();
    let kubectl = control_plane.kubectl();
    kubectl.run(&["create", "configmap", "kept", "--from-literal=a=1"]).unwrap();
    let url = control_plane.url().to_owned();

    control_plane.stop_apiserver().unwrap();
    assert!(kubectl.run(&["get", "configmap", "kept"]).is_err());
    control_plane.start_apiserver().unwrap();

    assert_eq!(control_plane.url(), url);
    assert_eq!(kubectl.get("configmap", "kept").unwrap()["data"]["a"], "1");
}

#[test]
fn a_registry_gives_back_what_was_pushed() {
    let mut registry = Registry::start().unwrap();
    let hello = guests::bytes("hello").unwrap();
    let reference =
        registry.push(&Artifact::docker(&hello, "/hello.wasm").unwrap(), "docker/hello", "v1").unwrap();
    assert_eq!(reference, format!("{}/docker/hello:v1", registry.host()));
    registry.push_guest("http").unwrap();
    let tags = format!("http://{}/v2/http/tags/list", registry.host());
    assert_eq!(http::get(&tags).unwrap().body.trim(), r#"{"name":"http","tags":["v1"]}"#);

    registry.stop();
    assert!(http::get(&tags).is_err());
    registry.resume().unwrap();
    assert_eq!(http::get(&tags).unwrap().status, 200);
}

#[test]
fn a_private_registry_lets_only_its_user_in() {
    let registry = Registry::start_private().unwrap();
    registry.push_guest("hello").unwrap();
    let catalogue =
        |login: &str| http::get(&format!("http://{login}{}/v2/_catalog", registry.host())).unwrap();
    assert_eq!(catalogue("").status, 401);
    assert_eq!(catalogue(&format!("{USER}:wrong@")).status, 401);
    assert_eq!(catalogue(&format!("{USER}:{PASSWORD}@")).body.trim(), r#"{"repositories":["hello"]}"#);
}
