//! What containers see of the kubelet's own: the hosts file, and the file for their last words.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{World, on, one};

/// A pod as the apiserver has it, with defaults filled in.
fn with_message(policy: &str, message_policy: &str) -> Value {
    let mut spec = one(policy, "app");
    spec["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    spec["containers"][0]["terminationMessagePolicy"] = json!(message_policy);
    spec
}

fn says(world: &World, uid: &str, restarts: u32, text: &[u8]) {
    let path = PathBuf::from(format!("/pods/{uid}/containers/main/{restarts}"));
    *world.api.termination_logs.lock().get_mut(&path).unwrap() = text.to_vec();
}

/// How the container is said to have ended, now and before.
fn ends(world: &World, uid: &str) -> [Option<ContainerStateTerminated>; 2] {
    let pod = world.api.get(uid).unwrap();
    let status = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
    let end = |state: Option<ContainerState>| state.and_then(|state| state.terminated);
    [end(status.state), end(status.last_state)]
}

fn messages(world: &World, uid: &str) -> [Option<String>; 2] {
    ends(world, uid).map(|end| end.and_then(|end| end.message))
}

#[tokio::test(start_paused = true)]
async fn the_hosts_file_says_who_the_pod_is() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["hostname"] = json!("web-0");
    spec["subdomain"] = json!("web");
    spec["hostAliases"] = json!([{ "ip": "192.0.2.7", "hostnames": ["db", "db.example"] }]);
    world.create("a", spec);
    world.until("Running", |w| w.phase("a") == "Running").await;
    let content = world.api.hosts_files.lock()["a"].clone();
    let ip = world.api.get("a").unwrap().status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert!(content.contains(&format!("\n{ip}\tweb-0.web.ns.svc.\tweb-0\n")), "{content}");
    assert!(content.ends_with("# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.example\n"), "{content}");
    let mounts = world.fast.containers()[0].mounts.clone();
    let seen: Vec<_> = mounts.iter().map(|it| (it.container_path.as_str(), it.read_only)).collect();
    // The default provider of these tests runs WebAssembly. A pod without a path for its message has no file for it.
    assert_eq!(seen, [("/etc/hosts", true)]);

    let mut spec = one("Always", "app");
    spec["hostNetwork"] = json!(true);
    world.create("on-node", spec);
    world.until("Running", |w| w.phase("on-node") == "Running").await;
    let content = world.api.hosts_files.lock()["on-node"].clone();
    assert!(content.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{content}");
}

#[tokio::test(start_paused = true)]
async fn a_variable_of_a_file_is_there_or_the_container_waits() {
    let world = World::start().await;
    let with = |volume: &str, key: &str, optional: bool| {
        let selector = json!({ "volumeName": volume, "path": "file", "key": key, "optional": optional });
        let mut spec = one("Always", "app");
        spec["containers"][0]["env"] = json!([{ "name": "A", "valueFrom": { "fileKeyRef": selector } }]);
        spec
    };
    let cases = [
        ("there", with("env", "KEY", false), None),
        ("optional", with("env", "OTHER", true), None),
        ("missing", with("env", "OTHER", false), Some("key \"OTHER\" not found in file \"file\"")),
        (
            "no-volume",
            with("none", "KEY", true),
            Some("env file \"file\" of volume \"none\": no such volume"),
        ),
    ];
    for (uid, spec, error) in cases {
        world.create(uid, spec);
        let Some(error) = error else {
            world.until("Running", |w| w.phase(uid) == "Running").await;
            continue;
        };
        world.until("it waits", |w| w.waiting(uid) == "CreateContainerConfigError").await;
        let events = world.api.events.lock();
        assert!(events.iter().any(|it| it.message.contains(error)), "{error}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_is_told() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["subdomain"] = json!("not_a_label");
    world.create("a", spec);
    world.until("told", |w| w.api.reasons().iter().any(|it| it == "FailedCreatePodSandBox")).await;
    let events = world.api.events.lock();
    assert!(events.iter().any(|it| it.message.contains("Subdomain \"not_a_label\"")), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_container_are_shown_and_stay() {
    let mut world = World::start().await;
    world.create("a", with_message("Always", "File"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    says(&world, "a", 0, b"out of luck");
    world.fast.exit("a", "main", 1);
    // It is started again at once the first time.
    world.until("restarted", |w| w.restarts("a") == 1).await;
    assert_eq!(messages(&world, "a"), [None, Some("out of luck".into())]);
    // Only the end of a long one, and never half a character.
    says(&world, "a", 1, format!("{}x", "ä".repeat(3000)).as_bytes());
    world.fast.exit("a", "main", 2);
    world.until("it waits", |w| w.waiting("a") == "CrashLoopBackOff").await;
    let shown = messages(&world, "a")[1].clone().unwrap();
    assert_eq!(shown, "ä".repeat(2047) + "x");

    // What was shown stays, without the file and over a restart of the agent.
    world.api.termination_logs.lock().clear();
    world.kill_agent();
    world.start_agent();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(messages(&world, "a")[1].as_ref(), Some(&shown));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_done_keeps_its_message() {
    let world = World::start().await;
    world.create("a", with_message("Never", "File"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    says(&world, "a", 0, b"all \xff done");
    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
    world.api.termination_logs.lock().clear();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(messages(&world, "a")[0].as_deref(), Some("all \u{fffd} done"));
    let patches = world.patches("a");
    assert_eq!(patches, ["Running", "Succeeded"], "and nothing more is written");
}

#[tokio::test(start_paused = true)]
async fn the_log_speaks_for_a_container_that_failed_and_said_nothing() {
    let world = World::start().await;
    // Policy, exit code, what is in the file, and what is shown.
    let cases = [
        ("quiet", "FallbackToLogsOnError", 3, "", Some("from the log\n")),
        ("loud", "FallbackToLogsOnError", 3, "own words", Some("own words")),
        ("well", "FallbackToLogsOnError", 0, "", None),
        ("file", "File", 3, "", None),
    ];
    for (uid, policy, code, words, expected) in cases {
        let mut spec = with_message("Never", policy);
        spec["terminationGracePeriodSeconds"] = json!(0);
        world.create(uid, on("slow", spec));
        world.until("Running", |w| w.phase(uid) == "Running").await;
        world.write_log(uid, "main", 0, "2026-01-01T00:00:00Z stderr F from the log\n");
        says(&world, uid, 0, words.as_bytes());
        world.slow.exit(uid, "main", code);
        world.until("ended", |w| ["Succeeded", "Failed"].contains(&&*w.phase(uid))).await;
        let [end, _] = ends(&world, uid);
        let end = end.unwrap();
        assert_eq!((end.exit_code, end.message.as_deref()), (code, expected), "{uid}");
    }
}
