//! Where images come from, and what is said when they don't.

use coracle_tests::artifact::Artifact;
use coracle_tests::cluster::Cluster;
use coracle_tests::guests;
use coracle_tests::registry::{PASSWORD, Registry, USER};
use serde_json::{Value, json};

use crate::support::{container, create, image, output_of, spec, status_of, until, until_event, waits_for};

fn of(reference: &str) -> Value {
    json!([{ "name": "main", "image": reference }])
}

/// Back-off between pulls starts at 10 s, so this may take longer than the others.
fn until_not_pulled(cluster: &Cluster, pod: &str) -> String {
    let pod = until(cluster, pod, "its image cannot be had", |pod| {
        matches!(waits_for(pod, "main"), "ErrImagePull" | "ImagePullBackOff")
    });
    status_of(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_docker_image_runs_with_its_entrypoint_and_environment() {
    let cluster = Cluster::new("docker-image").unwrap();
    let registry = Registry::start().unwrap();
    let artifact = Artifact::docker(&guests::bytes("env").unwrap(), "/env.wasm").unwrap();
    let reference = registry.push(&artifact, "env", "docker").unwrap();
    create(&cluster, "docker", &spec(&cluster, "Never", &of(&reference)));
    let output = output_of(&cluster, "docker");
    assert!(output.contains("FROM_IMAGE=yes\n"), "{output}");
    let pod = cluster.kubectl.get("pod", "docker").unwrap();
    assert_eq!(status_of(&pod, "main")["image"], reference);
    assert!(status_of(&pod, "main")["imageID"].as_str().unwrap().contains("sha256:"), "{:#}", pod["status"]);
}

#[test]
fn a_reference_by_digest() {
    let cluster = Cluster::new("digest").unwrap();
    let registry = Registry::start().unwrap();
    let artifact = Artifact::wasm(&guests::bytes("hello").unwrap(), "wasip1");
    registry.push(&artifact, "hello", "any").unwrap();
    let reference = format!("{}/hello@{}", registry.host(), artifact.manifest().digest());
    create(&cluster, "pinned", &spec(&cluster, "Never", &of(&reference)));
    assert_eq!(output_of(&cluster, "pinned"), "hello from wasm\n");
}

#[test]
fn pull_secrets_open_a_private_registry() {
    let cluster = Cluster::new("pull-secrets").unwrap();
    let registry = Registry::start_private().unwrap();
    let reference = registry.push_guest("hello").unwrap();
    create(&cluster, "stranger", &spec(&cluster, "Never", &of(&reference)));
    let message = until_not_pulled(&cluster, "stranger");
    assert!(message.contains(&reference), "{message}");
    until_event(&cluster, "stranger", "Failed");

    let server = format!("--docker-server={}", registry.host());
    let (user, password) = (format!("--docker-username={USER}"), format!("--docker-password={PASSWORD}"));
    cluster.kubectl.run(&["create", "secret", "docker-registry", "pull", &server, &user, &password]).unwrap();
    let mut known = spec(&cluster, "Never", &of(&reference));
    known["imagePullSecrets"] = json!([{ "name": "pull" }]);
    create(&cluster, "known", &known);
    assert_eq!(output_of(&cluster, "known"), "hello from wasm\n");
    assert!(!cluster.node.log().contains(PASSWORD), "the password is in the log");
}

#[test]
fn a_pod_without_the_secret_does_not_get_what_another_pulled() {
    let cluster = Cluster::new("pulled-before").unwrap();
    let registry = Registry::start_private().unwrap();
    let reference = registry.push_guest("hello").unwrap();
    let server = format!("--docker-server={}", registry.host());
    let (user, password) = (format!("--docker-username={USER}"), format!("--docker-password={PASSWORD}"));
    cluster.kubectl.run(&["create", "secret", "docker-registry", "pull", &server, &user, &password]).unwrap();
    let mut known = spec(&cluster, "Never", &of(&reference));
    known["imagePullSecrets"] = json!([{ "name": "pull" }]);
    create(&cluster, "known", &known);
    output_of(&cluster, "known");
    let mut stranger = spec(&cluster, "Never", &of(&reference));
    stranger["containers"][0]["imagePullPolicy"] = json!("Always");
    create(&cluster, "stranger", &stranger);
    until_not_pulled(&cluster, "stranger");
}

#[test]
fn a_registry_that_comes_back_is_asked_again() {
    let cluster = Cluster::new("registry-down").unwrap();
    let mut registry = Registry::start().unwrap();
    let reference = registry.push_guest("hello").unwrap();
    registry.stop();
    create(&cluster, "waits", &spec(&cluster, "Never", &of(&reference)));
    let message = until_not_pulled(&cluster, "waits");
    assert!(message.contains(&reference), "{message}");
    registry.resume().unwrap();
    assert_eq!(output_of(&cluster, "waits"), "hello from wasm\n");
}

#[test]
fn images_that_do_not_exist_or_may_not_be_pulled() {
    let cluster = Cluster::new("absent-images").unwrap();
    let absent = image("hello").replace(":v1", ":v2");
    create(&cluster, "absent", &spec(&cluster, "Never", &of(&absent)));
    let message = until_not_pulled(&cluster, "absent");
    assert!(message.contains(&absent), "{message}");
    until_event(&cluster, "absent", "Failed");

    let mut never = container("main", "hello", &[]);
    never["imagePullPolicy"] = json!("Never");
    create(&cluster, "never", &spec(&cluster, "Never", &json!([never])));
    until(&cluster, "never", "it may not be pulled", |pod| waits_for(pod, "main") == "ErrImageNeverPull");
    until_event(&cluster, "never", "ErrImageNeverPull");

    create(&cluster, "invalid", &spec(&cluster, "Never", &of("Not/A valid:reference")));
    until(&cluster, "invalid", "its name is no name", |pod| waits_for(pod, "main") == "InvalidImageName");
    until_event(&cluster, "invalid", "InspectFailed");
}

#[test]
fn a_cached_image_is_not_pulled_again() {
    let cluster = Cluster::new("cached").unwrap();
    let mut registry = Registry::start().unwrap();
    let reference = registry.push_guest("hello").unwrap();
    create(&cluster, "first", &spec(&cluster, "Never", &of(&reference)));
    output_of(&cluster, "first");
    registry.stop();
    create(&cluster, "second", &spec(&cluster, "Never", &of(&reference)));
    assert_eq!(output_of(&cluster, "second"), "hello from wasm\n");
    assert!(until_event(&cluster, "second", "Pulled").contains("already present"));
}
