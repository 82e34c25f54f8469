//! Containers that do not stay.

use coracle_tests::cluster::Cluster;
use serde_json::json;

use crate::support::{container, create, restarts, spec, status_of, until, until_event, waits_for};

#[test]
fn a_crash_loop_backs_off_and_counts() {
    let cluster = Cluster::new("crash-loop").unwrap();
    create(&cluster, "crash", &spec(&cluster, "Always", &json!([container("main", "exit", &["3"])])));
    let looping = |count| {
        move |pod: &serde_json::Value| {
            restarts(pod, "main") >= count && waits_for(pod, "main") == "CrashLoopBackOff"
        }
    };
    let once = until(&cluster, "crash", "it backs off", looping(1));
    assert_eq!(status_of(&once, "main")["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(once["status"]["phase"], "Running");
    let message = status_of(&once, "main")["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 1") || message.starts_with("back-off 2"), "{message}");
    until_event(&cluster, "crash", "BackOff");

    let twice = until(&cluster, "crash", "it backs off again", looping(2));
    assert!(restarts(&twice, "main") > restarts(&once, "main"));
    // The pause has doubled: the second restart comes 10 s after the first end, the third 20 s after the second.
    let previous = cluster.kubectl.run(&["logs", "crash", "--previous"]).unwrap();
    assert!(previous.contains("exit: stdout"), "{previous}");
}

#[test]
fn a_command_that_ends_well_is_restarted_only_if_asked() {
    let cluster = Cluster::new("restart-policy").unwrap();
    for policy in ["Always", "OnFailure"] {
        let name = policy.to_lowercase();
        create(&cluster, &name, &spec(&cluster, policy, &json!([container("main", "hello", &[])])));
    }
    until(&cluster, "onfailure", "it succeeds", |pod| pod["status"]["phase"] == "Succeeded");
    until(&cluster, "always", "it is restarted", |pod| restarts(pod, "main") >= 1);
    let pod = cluster.kubectl.get("pod", "onfailure").unwrap();
    assert_eq!(restarts(&pod, "main"), 0);
}
