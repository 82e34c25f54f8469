//! `coracle run`: what a developer does without a cluster.

use coracle_tests::coracle::Developer;
use coracle_tests::process::Finished;
use coracle_tests::wait::{Deadline, eventually};
use coracle_tests::{http, network, programs};
use rustix::process::Signal;

#[track_caller]
fn assert_success(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn a_module_runs_with_its_arguments() {
    let developer = Developer::new().unwrap();
    developer.guest("hello").unwrap();
    let finished = developer.run(&["hello.wasm", "--", "one", "two words"]).unwrap();
    assert_success(&finished);
    assert_eq!(finished.stdout, "hello from wasm\none\ntwo words\n");
}

#[test]
fn a_component_runs_like_a_module() {
    let developer = Developer::new().unwrap();
    developer.guest("hello-p2").unwrap();
    let finished = developer.run(&["hello-p2.wasm", "--", "one"]).unwrap();
    assert_success(&finished);
    assert_eq!(finished.stdout, "hello from wasm\none\n");
}

#[test]
fn the_exit_code_and_both_outputs_are_the_guests() {
    let developer = Developer::new().unwrap();
    developer.guest("exit").unwrap();
    let finished = developer.run(&["exit.wasm", "--", "7"]).unwrap();
    assert_eq!(finished.code, Some(7), "{finished:?}");
    assert_eq!(finished.stdout, "exit: stdout\n");
    assert!(finished.stderr.contains("exit: stderr\n"), "{finished:?}");
}

#[test]
fn a_trap_is_a_failure_that_is_told() {
    let developer = Developer::new().unwrap();
    developer.guest("exit").unwrap();
    let finished = developer.run(&["exit.wasm", "--", "trap"]).unwrap();
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert!(finished.stderr.contains("unreachable"), "{finished:?}");
}

#[test]
fn a_pod_from_standard_input_finds_files_of_the_working_folder() {
    let developer = Developer::new().unwrap();
    developer.guest("env").unwrap();
    let pod = "
apiVersion: v1
kind: Pod
metadata: { name: env, labels: { app: shown } }
spec:
  restartPolicy: Never
  containers:
    - name: env
      image: ./env.wasm
      args: [PLAIN, LABEL, JOINED]
      env:
        - { name: PLAIN, value: text }
        - { name: LABEL, valueFrom: { fieldRef: { fieldPath: \"metadata.labels['app']\" } } }
        - { name: JOINED, value: $(PLAIN)-$(LABEL) }
";
    let finished = developer.run_with_input(&["-"], pod).unwrap();
    assert_success(&finished);
    for line in ["PLAIN=text", "LABEL=shown", "JOINED=text-shown"] {
        assert!(finished.stdout.contains(line), "{finished:?}");
    }
}

#[test]
fn images_are_found_beside_the_yaml_file() {
    let developer = Developer::new().unwrap();
    developer.file("pods/hello.wasm", coracle_tests::guests::bytes("hello").unwrap()).unwrap();
    let pod = "{ apiVersion: v1, kind: Pod, metadata: { name: hello }, \
               spec: { restartPolicy: Never, containers: [{ name: hello, image: ./hello.wasm }] } }";
    developer.file("pods/pod.yaml", pod).unwrap();
    let finished = developer.run(&["pods/pod.yaml"]).unwrap();
    assert_success(&finished);
    assert!(finished.stdout.contains("hello from wasm"), "{finished:?}");
}

#[test]
fn config_maps_and_secrets_come_from_the_same_file() {
    let developer = Developer::new().unwrap();
    developer.guest("files").unwrap();
    let documents = "
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { greeting: good morning }
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { password: open sesame }
---
apiVersion: v1
kind: Pod
metadata: { name: reader }
spec:
  restartPolicy: Never
  containers:
    - name: reader
      image: ./files.wasm
      args: [cat, /settings/greeting, cat, /keys/password, write, /work/a, made here, cat, /work/a]
      volumeMounts:
        - { name: settings, mountPath: /settings }
        - { name: keys, mountPath: /keys }
        - { name: work, mountPath: /work }
  volumes:
    - { name: settings, configMap: { name: settings } }
    - { name: keys, secret: { secretName: keys } }
    - { name: work, emptyDir: {} }
";
    let finished = developer.run_with_input(&["-"], documents).unwrap();
    assert_success(&finished);
    for text in ["good morning", "open sesame", "made here"] {
        assert!(finished.stdout.contains(text), "{finished:?}");
    }
}

#[test]
fn the_first_container_that_fails_gives_the_exit_code() {
    let developer = Developer::new().unwrap();
    for guest in ["exit", "hello"] {
        developer.guest(guest).unwrap();
    }
    let pod = "
apiVersion: v1
kind: Pod
metadata: { name: two }
spec:
  restartPolicy: Never
  containers:
    - { name: good, image: ./hello.wasm }
    - { name: bad, image: ./exit.wasm, args: ['9'] }
";
    let finished = developer.run_with_input(&["-"], pod).unwrap();
    assert_eq!(finished.code, Some(9), "{finished:?}");
    assert!(finished.stdout.contains("hello from wasm"), "{finished:?}");
}

#[test]
fn an_http_service_answers_until_ctrl_c() {
    let developer = Developer::new().unwrap();
    developer.guest("http").unwrap();
    let port = network::free_port().unwrap();
    let mut run = developer.start(&["--publish", &format!("{port}:8080"), "http.wasm"]).unwrap();
    let url = format!("http://127.0.0.1:{port}");

    let answer = eventually("it serves", Deadline::seconds(30), || http::get(&format!("{url}/one")));
    assert_eq!(
        answer.unwrap_or_else(|error| panic!("{error:#}\n{}", run.log())).body,
        "hello from wasm: /one\n"
    );
    assert_eq!(http::get(&format!("{url}/status/418")).unwrap().status, 418);
    // A request that traps takes nobody with it.
    assert!(http::get(&format!("{url}/trap")).map_or(true, |answer| answer.status == 500));
    assert_eq!(http::get(&format!("{url}/two")).unwrap().body, "hello from wasm: /two\n");

    let status = run.end_with(Signal::INT, Deadline::seconds(15)).unwrap();
    assert!(status.code().is_some(), "it ends by itself: {status}\n{}", run.log());
    assert!(http::get(&url).is_err(), "nobody answers any more");
}

#[test]
fn a_command_that_stays_ends_with_ctrl_c() {
    let developer = Developer::new().unwrap();
    developer.guest("stay").unwrap();
    let mut run = developer.start(&["stay.wasm", "--", "spin"]).unwrap();
    let log = || run.log();
    coracle_tests::wait::until("it runs", Deadline::seconds(30), || log().contains("stay: spin")).unwrap();
    let status = run.end_with(Signal::INT, Deadline::seconds(45)).unwrap();
    assert!(status.code().is_some(), "it ends by itself: {status}\n{}", run.log());
}

/// Every file in examples/ that has an end, run as the README says.
#[test]
fn the_examples_do_what_they_say() {
    let developer = Developer::new().unwrap();
    let example =
        |name: &str| programs::repository().join("examples").join(name).to_string_lossy().into_owned();
    for (file, code, text) in [
        ("hello.wasm", 0, "hello from wasm"),
        ("hello.yaml", 0, "hello from wasm"),
        ("job.yaml", 0, "hello from wasm"),
        ("configmap.yaml", 0, "GREETING=good morning"),
        ("failing.yaml", 3, "exit: stdout"),
    ] {
        let finished = developer.run(&[&example(file)]).unwrap();
        assert_eq!(finished.code, Some(code), "{file}: {finished:?}");
        assert!(finished.stdout.contains(text), "{file}: {finished:?}");
    }
}

#[test]
fn help_says_what_there_is() {
    let mut command = coracle_tests::process::tethered(programs::coracle().unwrap());
    command.args(["run", "--help"]);
    let finished = coracle_tests::process::finish(command, None, Deadline::seconds(10)).unwrap();
    assert_success(&finished);
    for flag in ["--publish", "--root-dir"] {
        assert!(finished.stdout.contains(flag), "{finished:?}");
    }
}
