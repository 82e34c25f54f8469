//! A pod from its creation to the end of its object.

use std::time::Instant;

use coracle_tests::cluster::Cluster;
use serde_json::{Value, json};

use crate::support::{
    ask, container, create, output_of, pod_ip, restarts, serve, soon, spec, status_of, until, until_event,
    until_phase, until_ready, waits_for,
};

#[test]
fn a_command_succeeds_and_says_so() {
    let cluster = Cluster::new("succeeds").unwrap();
    for guest in ["hello", "hello-p2"] {
        create(&cluster, guest, &spec(&cluster, "Never", &json!([container("main", guest, &["one"])])));
        assert_eq!(output_of(&cluster, guest), "hello from wasm\none\n");
    }
    let pod = cluster.kubectl.get("pod", "hello").unwrap();
    let ended = &status_of(&pod, "main")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(0), &json!("Completed")));
    assert!(ended["containerID"].as_str().unwrap().starts_with("wasm://"), "{ended}");
    for reason in ["Pulled", "Created", "Started"] {
        until_event(&cluster, "hello", reason);
    }
}

#[test]
fn a_command_fails_and_says_how() {
    let cluster = Cluster::new("fails").unwrap();
    create(&cluster, "seven", &spec(&cluster, "Never", &json!([container("main", "exit", &["7"])])));
    create(&cluster, "trap", &spec(&cluster, "Never", &json!([container("main", "exit", &["trap"])])));
    let seven = until_phase(&cluster, "seven", "Failed");
    assert_eq!(status_of(&seven, "main")["state"]["terminated"]["exitCode"], 7);
    assert_eq!(status_of(&seven, "main")["state"]["terminated"]["reason"], "Error");
    let trap = until_phase(&cluster, "trap", "Failed");
    assert_ne!(status_of(&trap, "main")["state"]["terminated"]["exitCode"], 0);
}

#[test]
fn a_container_leaves_last_words_and_knows_its_pods_names() {
    let cluster = Cluster::new("last-words").unwrap();
    let message = |pod: &Value, state: &str| status_of(pod, "main")[state]["terminated"]["message"].clone();
    for guest in ["files", "files-p2", "files-p3"] {
        let words = ["cat", "/etc/hosts", "write", "/dev/termination-log", "bye", "cat", "/none"];
        let mut says = spec(&cluster, "Never", &json!([container("main", guest, &words)]));
        says["hostname"] = json!("web-0");
        says["subdomain"] = json!("web");
        says["hostAliases"] = json!([{ "ip": "192.0.2.7", "hostnames": ["db", "db.example"] }]);
        says["securityContext"] = json!({ "runAsUser": 1234 });
        create(&cluster, guest, &says);
        let pod = until_phase(&cluster, guest, "Failed");
        assert_eq!(message(&pod, "state"), "bye", "{guest}");
        let logs = cluster.kubectl.run(&["logs", guest]).unwrap();
        assert!(logs.starts_with("# Kubernetes-managed hosts file.\n"), "{logs}");
        assert!(logs.contains(&format!("\n{}\tweb-0.web.", pod_ip(&pod))), "{logs}");
        assert!(logs.contains("\n192.0.2.7\tdb\tdb.example\n"), "{logs}");
    }
    // One that says nothing is known by its log, and what it said before it was started again is kept.
    let mut quiet = container("main", "files", &["cat", "/none"]);
    quiet["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    create(&cluster, "quiet", &spec(&cluster, "Always", &json!([quiet])));
    let pod = until(&cluster, "quiet", "it waits", |pod| waits_for(pod, "main") == "CrashLoopBackOff");
    let said = message(&pod, "lastState");
    assert!(said.as_str().is_some_and(|said| said.starts_with("cat /none: ")), "{said}");
}

#[test]
fn a_variable_comes_from_a_file_that_an_init_container_wrote() {
    let cluster = Cluster::new("env-file").unwrap();
    let mut writes =
        container("writes", "files", &["write", "/work/env", "COLOUR='deep blue' # as the sea\n"]);
    writes["volumeMounts"] = json!([{ "name": "work", "mountPath": "/work" }]);
    let key = |name: &str, key: &str| {
        let selector =
            json!({ "volumeName": "work", "path": "env", "key": key, "optional": key != "COLOUR" });
        json!({ "name": name, "valueFrom": { "fileKeyRef": selector } })
    };
    let mut main = container("main", "env", &[]);
    main["env"] = json!([key("OWN", "COLOUR"), key("NONE", "MISSING")]);
    let mut spec = spec(&cluster, "Never", &json!([main]));
    spec["enableServiceLinks"] = json!(false);
    spec["initContainers"] = json!([writes]);
    spec["volumes"] = json!([{ "name": "work", "emptyDir": {} }]);
    create(&cluster, "env-file", &spec);
    let output = output_of(&cluster, "env-file");
    assert!(output.contains("OWN=deep blue\n") && !output.contains("NONE="), "{output}");
}

#[test]
fn init_containers_run_first_and_in_order() {
    let cluster = Cluster::new("init").unwrap();
    let mount = json!([{ "name": "work", "mountPath": "/work" }]);
    let append = |name: &str| {
        let mut it = container(name, "files", &["append", "/work/order", name]);
        it["volumeMounts"] = mount.clone();
        it
    };
    let mut main = container("main", "files", &["cat", "/work/order"]);
    main["volumeMounts"] = mount.clone();
    let mut spec = spec(&cluster, "Never", &json!([main]));
    spec["initContainers"] = json!([append("first"), append("second")]);
    spec["volumes"] = json!([{ "name": "work", "emptyDir": {} }]);
    create(&cluster, "ordered", &spec);
    assert_eq!(output_of(&cluster, "ordered"), "firstsecond");
}

#[test]
fn a_failed_init_container_keeps_the_others_from_starting() {
    let cluster = Cluster::new("init-fails").unwrap();
    let mut spec = spec(&cluster, "Never", &json!([container("main", "hello", &[])]));
    spec["initContainers"] = json!([container("first", "exit", &["4"])]);
    create(&cluster, "stuck", &spec);
    let pod = until_phase(&cluster, "stuck", "Failed");
    assert_eq!(status_of(&pod, "first")["state"]["terminated"]["exitCode"], 4);
    assert!(status_of(&pod, "main")["state"]["running"].is_null());
    assert!(status_of(&pod, "main")["lastState"]["terminated"].is_null());
}

#[test]
fn deletion_ends_everything_that_belongs_to_the_pod() {
    let cluster = Cluster::new("deletion").unwrap();
    let ip = serve(&cluster, "http");
    let spin = spec(&cluster, "Always", &json!([container("main", "stay", &["spin"])]));
    create(&cluster, "spin", &spin);
    let uid = until_ready(&cluster, "spin")["metadata"]["uid"].as_str().unwrap().to_owned();
    assert!(cluster.node.root().join("pods").join(&uid).is_dir());

    cluster.kubectl.run(&["delete", "pod", "http", "spin", "--wait=false"]).unwrap();
    for name in ["http", "spin"] {
        cluster.kubectl.until_gone("pod", name, soon()).unwrap();
    }
    assert!(coracle_tests::http::get(&format!("http://{ip}:8080/")).is_err(), "its address answers no more");
    let folder = cluster.node.root().join("pods").join(&uid);
    coracle_tests::wait::until("the pod's folder goes", soon(), || !folder.exists()).unwrap();
}

#[test]
fn a_pod_of_the_same_name_is_a_new_pod() {
    let cluster = Cluster::new("same-name").unwrap();
    let counting = spec(&cluster, "Always", &json!([container("main", "stay", &["sleep"])]));
    create(&cluster, "twin", &counting);
    let first = until_ready(&cluster, "twin");
    cluster.kubectl.run(&["delete", "pod", "twin"]).unwrap();
    create(&cluster, "twin", &counting);
    let second = until_ready(&cluster, "twin");
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_ne!(status_of(&first, "main")["containerID"], status_of(&second, "main")["containerID"]);
    assert_eq!(restarts(&second, "main"), 0);
}

#[test]
fn the_grace_period_is_a_limit_for_what_does_not_listen() {
    let cluster = Cluster::new("grace").unwrap();
    create(&cluster, "spin", &spec(&cluster, "Always", &json!([container("main", "stay", &["spin"])])));
    until_ready(&cluster, "spin");
    let start = Instant::now();
    cluster.kubectl.run(&["delete", "pod", "spin", "--grace-period=1"]).unwrap();
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
}

#[test]
fn one_container_of_two_is_restarted_and_the_other_stays() {
    let cluster = Cluster::new("one-of-two").unwrap();
    let containers = json!([container("stays", "stay", &["sleep"]), container("ends", "exit", &["1"])]);
    create(&cluster, "two", &spec(&cluster, "Always", &containers));
    let pod = until(&cluster, "two", "one is restarted", |pod| restarts(pod, "ends") >= 1);
    assert_eq!(restarts(&pod, "stays"), 0);
    assert!(status_of(&pod, "stays")["state"]["running"].is_object(), "{:#}", pod["status"]);
}

#[test]
fn pods_have_addresses_of_the_nodes_range() {
    let cluster = Cluster::new("addresses").unwrap();
    let (one, two) = (serve(&cluster, "one"), serve(&cluster, "two"));
    assert_ne!(one, two);
    let node = cluster.kubectl.get("node", cluster.node.name()).unwrap();
    let (first, bits) = node["spec"]["podCIDR"].as_str().unwrap().split_once('/').unwrap();
    let bits: u32 = bits.parse().unwrap();
    let network = |ip: &str| u32::from(ip.parse::<std::net::Ipv4Addr>().unwrap()) >> (32 - bits);
    for ip in [&one, &two] {
        assert_eq!(network(ip), network(first), "{ip} is not in {first}/{bits}");
        assert_eq!(ask(ip, "/name").body, "hello from wasm: /name\n");
    }
    let pod = cluster.kubectl.get("pod", "one").unwrap();
    assert_eq!(pod_ip(&pod), one);
    assert_eq!(pod["status"]["podIPs"][0]["ip"], *one);
}
