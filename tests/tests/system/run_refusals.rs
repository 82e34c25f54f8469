//! `coracle run` with everything that a person can get wrong: it ends, not well, and says what to change.

use coracle_tests::coracle::Developer;
use coracle_tests::guests;
use coracle_tests::network;
use coracle_tests::process::Finished;
use coracle_tests::registry::Registry;

/// Not a success, not a signal, not a panic; and it names all this.
#[track_caller]
fn assert_refused(finished: &Finished, names: &[&str]) {
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    let said = finished.stderr.to_lowercase();
    assert!(!said.contains("panicked"), "{finished:?}");
    for name in names {
        assert!(said.contains(&name.to_lowercase()), "it does not name `{name}`: {finished:?}");
    }
}

fn run_yaml(yaml: &str) -> Finished {
    let developer = Developer::new().unwrap();
    developer.guest("env").unwrap();
    developer.run_with_input(&["-"], yaml).unwrap()
}

fn pod(containers: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: wrong }}, \
           spec: {{ restartPolicy: Never, containers: {containers} }} }}"
    )
}

#[test]
fn files_that_are_no_modules() {
    let developer = Developer::new().unwrap();
    let hello = guests::bytes("hello").unwrap();
    developer.file("text.wasm", "this is no module\n").unwrap();
    developer.file("empty.wasm", "").unwrap();
    developer.file("half.wasm", &hello[..hello.len() / 2]).unwrap();
    developer.file("native.cwasm", guests::native_code()).unwrap();
    developer.file("native.wasm", guests::native_code()).unwrap();
    developer.guest("imports").unwrap();

    assert_refused(&developer.run(&["text.wasm"]).unwrap(), &["text.wasm"]);
    assert_refused(&developer.run(&["empty.wasm"]).unwrap(), &["empty.wasm"]);
    assert_refused(&developer.run(&["half.wasm"]).unwrap(), &["half.wasm"]);
    assert_refused(&developer.run(&["native.wasm"]).unwrap(), &["native.wasm", "native code"]);
    assert_refused(&developer.run(&["native.cwasm"]).unwrap(), &["native.cwasm"]);
    assert_refused(&developer.run(&["absent.wasm"]).unwrap(), &["absent.wasm"]);
    assert_refused(&developer.run(&["imports.wasm"]).unwrap(), &["coracle:test/absent"]);
}

#[test]
fn documents_that_are_no_pods() {
    assert_refused(&run_yaml("kind: [unfinished"), &[]);
    assert_refused(&run_yaml(""), &[]);
    let deployment = "{ apiVersion: apps/v1, kind: Deployment, metadata: { name: web }, spec: {} }";
    assert_refused(&run_yaml(deployment), &["Deployment"]);
    let config_map = "{ apiVersion: v1, kind: ConfigMap, metadata: { name: lonely } }";
    assert_refused(&run_yaml(config_map), &["Pod"]);
}

#[test]
fn pods_that_no_api_would_take() {
    assert_refused(&run_yaml(&pod("[{ name: a, imagee: ./env.wasm }]")), &["imagee"]);
    assert_refused(&run_yaml(&pod("[{ name: a, image: [./env.wasm] }]")), &["image"]);
    assert_refused(&run_yaml(&pod("[]")), &["containers"]);
    assert_refused(
        &run_yaml(&pod("[{ name: a, image: ./env.wasm }, { name: a, image: ./env.wasm }]")),
        &["duplicate"],
    );
    assert_refused(&run_yaml(&pod("[{ name: Not A Name, image: ./env.wasm }]")), &["name"]);
    let mount = "[{ name: a, image: ./env.wasm, volumeMounts: [{ name: absent, mountPath: /a }] }]";
    assert_refused(&run_yaml(&pod(mount)), &["absent"]);
}

#[test]
fn references_to_what_is_not_there() {
    let from_map = "[{ name: a, image: ./env.wasm, \
        env: [{ name: A, valueFrom: { configMapKeyRef: { name: absent-map, key: a } } }] }]";
    assert_refused(&run_yaml(&pod(from_map)), &["absent-map"]);
    let from_secret = "[{ name: a, image: ./env.wasm, envFrom: [{ secretRef: { name: absent-secret } }] }]";
    assert_refused(&run_yaml(&pod(from_secret)), &["absent-secret"]);
    let missing_key = "
{ apiVersion: v1, kind: ConfigMap, metadata: { name: there }, data: { a: b } }
---
";
    let from_key = "[{ name: a, image: ./env.wasm, \
        env: [{ name: A, valueFrom: { configMapKeyRef: { name: there, key: absent-key } } }] }]";
    assert_refused(&run_yaml(&format!("{missing_key}{}", pod(from_key))), &["absent-key"]);
    assert_refused(&run_yaml(&pod("[{ name: a, image: ./absent.wasm }]")), &["absent.wasm"]);
}

#[test]
fn images_that_cannot_be_had() {
    let mut registry = Registry::start().unwrap();
    let reference = registry.push_guest("hello").unwrap();
    let absent = format!("{}/absent:v1", registry.host());
    assert_refused(&run_yaml(&pod(&format!("[{{ name: a, image: '{absent}' }}]"))), &[&absent]);
    assert_refused(
        &run_yaml(&pod("[{ name: a, image: 'Not/A valid:reference' }]")),
        &["Not/A valid:reference"],
    );
    registry.stop();
    assert_refused(&run_yaml(&pod(&format!("[{{ name: a, image: '{reference}' }}]"))), &[&reference]);
}

#[test]
fn a_port_that_is_taken() {
    let developer = Developer::new().unwrap();
    developer.guest("http").unwrap();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert_ne!(port, network::free_port().unwrap());
    let finished = developer.run(&["--publish", &format!("{port}:8080"), "http.wasm"]).unwrap();
    assert_refused(&finished, &[&port.to_string(), "in use"]);
}

#[test]
fn flags_that_make_no_sense() {
    let developer = Developer::new().unwrap();
    developer.guest("http").unwrap();
    assert_refused(&developer.run(&["--publish", "many:8080", "http.wasm"]).unwrap(), &["many:8080"]);
    assert_refused(&developer.run(&["--no-such-flag", "http.wasm"]).unwrap(), &["--no-such-flag"]);
    assert_refused(&developer.run(&[]).unwrap(), &[]);
}
