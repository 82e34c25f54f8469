//! `kubectl exec`, `attach` and `port-forward`: over WebSocket, as kubectl does by itself, and over SPDY, as older ones do.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use coracle_tests::cluster::Cluster;
use coracle_tests::process::{self, Finished};
use coracle_tests::{http, wait};
use serde_json::json;

use crate::support::{container, create, image, serve, soon, spec, until_ready};

/// Whether kubectl speaks WebSocket to the apiserver.
pub(crate) const TRANSPORTS: [bool; 2] = [true, false];

pub(crate) fn kubectl(cluster: &Cluster, websockets: bool, args: &[&str]) -> Command {
    let mut command = cluster.kubectl.command(args).unwrap();
    for variable in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
        command.env(variable, websockets.to_string());
    }
    command
}

pub(crate) fn finish(cluster: &Cluster, websockets: bool, args: &[&str], input: Option<&[u8]>) -> Finished {
    process::finish(kubectl(cluster, websockets, args), input, soon()).unwrap()
}

/// A pod that stays, with the program that can do things beside it.
fn stay(cluster: &Cluster) {
    let mut main = container("main", "stay", &[]);
    main["env"] = json!([{ "name": "COLOUR", "value": "blue" }]);
    create(cluster, "stay", &spec(cluster, "Always", &json!([main])));
    until_ready(cluster, "stay");
}

#[test]
fn commands_have_input_output_and_an_exit_code() {
    let cluster = Cluster::new("exec").unwrap();
    stay(&cluster);
    let large: Vec<u8> = (0..3_000_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    for websockets in TRANSPORTS {
        let exec = |args: &[&str], input| finish(&cluster, websockets, &[&["exec"], args].concat(), input);

        let done = exec(&["stay", "--", "stay", "env", "COLOUR"], None);
        assert_eq!((done.stdout.as_str(), done.code), ("blue\n", Some(0)), "{done:?}");

        let done = exec(&["stay", "--", "stay", "exit", "7"], None);
        assert_eq!((done.stdout.as_str(), done.code), ("", Some(7)), "{done:?}");
        assert_eq!(done.stderr, "stay: ends with 7\ncommand terminated with exit code 7\n");

        let done = exec(&["--stdin", "stay", "--", "stay", "echo"], Some(&large));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stdout.as_bytes() == large, "{} bytes of {}", done.stdout.len(), large.len());

        let done = exec(&["stay", "--", "stay", "flood", "30000000"], None);
        assert_eq!((done.stdout.len(), done.code), (30_000_000, Some(0)), "{}", done.stderr);

        let done = exec(&["stay", "--container=absent", "--", "stay"], None);
        assert!(done.code == Some(1) && done.stderr.contains("absent"), "{done:?}");
    }
}

/// Runs a command with a terminal of its own, to its end.
pub(crate) fn in_a_terminal(command: &Command) -> Finished {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = process::tethered("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    process::finish(script, None, soon()).unwrap()
}

#[test]
fn a_terminal_is_one() {
    let cluster = Cluster::new("terminal").unwrap();
    stay(&cluster);
    for websockets in TRANSPORTS {
        let exec = kubectl(&cluster, websockets, &["exec", "-it", "stay", "--", "stay", "terminal"]);
        let done = in_a_terminal(&exec);
        assert!(done.stdout.contains("[true, true, true]"), "{done:?}");
    }
}

#[test]
fn a_client_attaches_to_what_runs() {
    let cluster = Cluster::new("attach").unwrap();
    for websockets in TRANSPORTS {
        let name = if websockets { "websocket" } else { "spdy" };
        let mut main = container("main", "stay", &["echo"]);
        main["stdin"] = json!(true);
        main["stdinOnce"] = json!(true);
        create(&cluster, name, &spec(&cluster, "Never", &json!([main])));
        until_ready(&cluster, name);
        let done = finish(&cluster, websockets, &["attach", "--stdin", name], Some(b"hello\nworld\n"));
        assert_eq!(
            done.stdout.replace("If you don't see a command prompt, try pressing enter.\n", ""),
            "hello\nworld\n"
        );
        crate::support::until(&cluster, name, "it ended with its input", |pod| {
            pod["status"]["phase"] == "Succeeded"
        });
    }
}

#[test]
fn a_debugger_joins_a_pod_that_runs() {
    let cluster = Cluster::new("debug").unwrap();
    stay(&cluster);
    let image = format!("--image={}", image("stay"));
    let debug = ["debug", "stay", &image, "--container=ends", "--", "stay", "exit", "3"];
    let done = finish(&cluster, true, &debug, None);
    assert_eq!(done.code, Some(0), "{done:?}");
    let pod = crate::support::until(&cluster, "stay", "the debugger has ended", |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    });
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(crate::support::restarts(&pod, "main"), 0);
    let logs = cluster.kubectl.run(&["logs", "stay", "--container=ends"]).unwrap();
    assert_eq!(logs, "stay: ends with 3\n");
}

/// A `kubectl port-forward`, and the port where it listens.
pub(crate) fn forward(cluster: &Cluster, websockets: bool, pod: &str, port: &str) -> (Child, u16) {
    let mut command = kubectl(cluster, websockets, &["port-forward", pod, &format!(":{port}")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process::spawn(command).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.next().unwrap_or_default();
    let address = line.strip_prefix("Forwarding from 127.0.0.1:").unwrap_or_else(|| panic!("{line:?}"));
    let local = address.split(' ').next().unwrap().parse().unwrap();
    // It prints a line for each connection, and would stop if nobody read it.
    thread::spawn(move || lines.count());
    (child, local)
}

#[test]
fn ports_of_a_pod_are_forwarded() {
    let cluster = Cluster::new("forward").unwrap();
    serve(&cluster, "http");
    for websockets in TRANSPORTS {
        let (mut child, port) = forward(&cluster, websockets, "pod/http", "8080");
        let clients: Vec<_> = (0..10)
            .map(|_| thread::spawn(move || http::get(&format!("http://127.0.0.1:{port}/")).unwrap().status))
            .collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let (child, port) = forward(&cluster, websockets, "pod/http", "81");
        assert!(http::get(&format!("http://127.0.0.1:{port}/")).is_err());
        let done = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(told.contains("error forwarding port 81 to pod http"), "{told}");
    }
    wait::until("it still serves", soon(), || {
        cluster.kubectl.get("pod", "http").is_ok_and(|pod| pod["status"]["phase"] == "Running")
    })
    .unwrap();
}
