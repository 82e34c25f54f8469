//! `kubectl logs`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::process;
use serde_json::json;

use crate::support::{ask, container, create, output_of, serve, soon, spec, until, until_ready};

#[test]
fn logs_of_what_has_ended() {
    let cluster = Cluster::new("logs").unwrap();
    let lines = ["a", "b", "c", "d"];
    create(&cluster, "lines", &spec(&cluster, "Never", &json!([container("main", "hello", &lines)])));
    assert_eq!(output_of(&cluster, "lines"), "hello from wasm\na\nb\nc\nd\n");

    let logs = |args: &[&str]| cluster.kubectl.run(&[&["logs", "lines"], args].concat()).unwrap();
    assert_eq!(logs(&["--tail=2"]), "c\nd\n");
    assert_eq!(logs(&["--tail=0"]), "");
    assert_eq!(logs(&["--limit-bytes=5"]), "hello");
    assert_eq!(logs(&["--since=1h"]).lines().count(), 5);
    assert_eq!(logs(&["--since-time=2100-01-01T00:00:00Z"]), "");
    for line in logs(&["--timestamps"]).lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.contains('T'), "{line}");
    }
    // Following what has ended ends.
    assert_eq!(logs(&["--follow"]).lines().count(), 5);
}

#[test]
fn both_outputs_are_logged() {
    let cluster = Cluster::new("outputs").unwrap();
    create(&cluster, "both", &spec(&cluster, "Never", &json!([container("main", "exit", &["0"])])));
    let output = output_of(&cluster, "both");
    assert!(output.contains("exit: stdout\n") && output.contains("exit: stderr\n"), "{output}");
}

#[test]
fn following_shows_lines_as_they_come() {
    let cluster = Cluster::new("follow").unwrap();
    create(
        &cluster,
        "ticks",
        &spec(&cluster, "Always", &json!([container("main", "stay", &["tick", "200"])])),
    );
    until_ready(&cluster, "ticks");
    let mut command = cluster.kubectl.command(&["logs", "ticks", "--follow", "--tail=1"]).unwrap();
    command.stdout(Stdio::piped());
    let mut child = process::spawn(command).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let start = Instant::now();
    let ticks: Vec<String> = lines.filter(|line| line.starts_with("tick ")).take(6).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let number = |line: &String| line.trim_start_matches("tick ").parse::<u64>().unwrap();
    let numbers: Vec<u64> = ticks.iter().map(number).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "none is lost, none comes twice: {numbers:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_service_logs_too() {
    let cluster = Cluster::new("http-logs").unwrap();
    let ip = serve(&cluster, "http");
    ask(&ip, "/written-down");
    let log = || cluster.kubectl.run(&["logs", "http"]).unwrap_or_default();
    coracle_tests::wait::until("the line is there", soon(), || log().contains("/written-down\n")).unwrap();
}

#[test]
fn what_has_no_logs_says_so() {
    let cluster = Cluster::new("no-logs").unwrap();
    create(&cluster, "one", &spec(&cluster, "Never", &json!([container("main", "hello", &[])])));
    output_of(&cluster, "one");
    let error =
        |args: &[&str]| cluster.kubectl.run(&[&["logs", "one"], args].concat()).unwrap_err().to_string();
    assert!(error(&["--previous"]).contains("previous terminated container"), "{}", error(&["--previous"]));
    assert!(error(&["--container=absent"]).contains("absent"));
    until(&cluster, "one", "it is still there", |pod| pod["status"]["phase"] == "Succeeded");
}
