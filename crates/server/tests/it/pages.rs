//! Everything that is neither pods nor streams: configuration, flags, status, the node's logs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use axum::body::Body;
use coracle_server::About;
use http::Request;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::fakes::{FakeHost, pod};
use crate::server::{Setup, TestServer, request};

fn with(about: About) -> Setup {
    let mut setup = Setup::default();
    setup.options.about = about;
    setup
}

#[tokio::test]
async fn configz_shows_the_configuration_under_upstreams_name() {
    let about =
        About { configuration: json!({"kind": "KubeletConfiguration", "port": 10250}), ..About::default() };
    let server = TestServer::start(with(about)).await;
    let answer = server.admin().await.get("/configz").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body, json!({"kubeletconfig": {"kind": "KubeletConfiguration", "port": 10250}}));
}

#[tokio::test]
async fn flags_and_status_are_text_or_what_was_asked_for() {
    let flags =
        BTreeMap::from([("v".to_owned(), "2".to_owned()), ("config".to_owned(), "/etc/k".to_owned())]);
    let about = About { flags, version: "v1.37.2+coracle.9.9.9".to_owned(), ..About::default() };
    let server = TestServer::start(with(about)).await;
    let mut admin = server.admin().await;
    let answer = admin.get("/flagz").await;
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert!(answer.body.starts_with("\nkubelet flagz\nWarning: "), "{answer:?}");
    assert!(answer.body.ends_with("\nconfig: /etc/k\nv: 2\n"), "{answer:?}");
    let answer = admin.get("/statusz").await;
    assert!(answer.body.contains("\nBinary version: 1.37.2\nEmulation version: 1.37\n"), "{answer:?}");
    assert!(answer.body.contains("/metrics /pods"), "{answer:?}");

    let mut ask = async |path: &str, accept: &str| {
        let mut request = request("GET", path, None);
        request.headers_mut().insert("accept", accept.parse().unwrap());
        admin.ask(request).await
    };
    let answer = ask("/flagz", "application/json;v=v1beta1;g=config.k8s.io;as=Flagz").await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let expected = json!({
        "kind": "Flagz",
        "apiVersion": "config.k8s.io/v1beta1",
        "metadata": {"name": "kubelet"},
        "flags": {"config": "/etc/k", "v": "2"},
    });
    assert_eq!(body, expected);
    assert!(!answer.headers.contains_key("warning"));
    let answer = ask("/statusz", "application/json;v=v1alpha1;g=config.k8s.io;as=Statusz").await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["binaryVersion"], "1.37.2");
    assert!(answer.headers["warning"].to_str().unwrap().starts_with("299 - "), "{answer:?}");
    assert_eq!(ask("/statusz", "application/json").await.status, 406);
}

#[tokio::test]
async fn running_pods_are_a_list() {
    let host = Arc::new(FakeHost::default());
    *host.pods.lock() = vec![Arc::new(pod("a"))];
    let server = TestServer::start(Setup { host, ..Setup::default() }).await;
    let answer = server.admin().await.get("/runningpods/").await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&body["kind"], &body["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("a")));
}

#[tokio::test]
async fn checkpoints_are_refused_in_upstreams_order() {
    let host = Arc::new(FakeHost::default());
    *host.pods.lock() = vec![Arc::new(pod("pod"))];
    let server = TestServer::start(Setup { host, ..Setup::default() }).await;
    let mut admin = server.admin().await;
    for (path, status, body) in [
        ("/checkpoint/ns/none/c", 404, "pod does not exist"),
        ("/checkpoint/ns/pod/none", 404, "container none does not exist"),
        ("/checkpoint/ns/pod/c?timeout=1&timeout=x", 404, "cannot parse value of timeout parameter"),
        (
            "/checkpoint/ns/pod/c?timeout=1",
            500,
            "checkpointing of ns/pod/c failed (the container's runtime cannot checkpoint)",
        ),
    ] {
        assert_eq!(admin.ask(request("POST", path, None)).await.is(), (status, body), "{path}");
    }
}

#[tokio::test]
async fn the_log_level_is_changed_by_put_alone() {
    let level = Arc::new(Mutex::new(String::new()));
    let set = level.clone();
    let set_verbosity = move |value: &str| {
        value.parse::<u32>().map_err(|error| error.to_string())?;
        value.clone_into(&mut set.lock());
        Ok(())
    };
    let about = About { set_verbosity: Some(Arc::new(set_verbosity)), ..About::default() };
    let server = TestServer::start(with(about)).await;
    let mut admin = server.admin().await;
    let put = |body: &str| {
        let request = Request::put("/debug/flags/v").header("host", "localhost");
        request.body(Body::from(body.to_owned())).unwrap()
    };
    assert_eq!(admin.ask(put("5")).await.is(), (200, "successfully set klog.logging.verbosity to 5"));
    assert_eq!(*level.lock(), "5");
    let refused = admin.ask(put("x")).await;
    assert_eq!(refused.is(), (400, "failed set klog.logging.verbosity x: invalid digit found in string"));
    assert_eq!(admin.ask(put(&"9".repeat(1000))).await.status, 400);
    assert_eq!(admin.get("/debug/flags/v").await.is(), (406, "unsupported http method"));
    assert_eq!(*level.lock(), "5");
}

#[tokio::test]
async fn the_nodes_logs_are_shown_and_nothing_outside_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, outside) = (folder.path().join("log"), folder.path().join("secret"));
    fs::create_dir_all(logs.join("pods/a b")).unwrap();
    fs::write(logs.join("pods/a b/0.log"), "hello\n").unwrap();
    fs::write(logs.join("<i>"), "").unwrap();
    fs::write(&outside, "secret").unwrap();
    fs::create_dir(logs.join("containers")).unwrap();
    symlink(logs.join("pods/a b/0.log"), logs.join("containers/link")).unwrap();
    symlink(&outside, logs.join("evil")).unwrap();
    symlink("../..", logs.join("pods/up")).unwrap();
    let about = About { system_logs: Some(logs.clone()), ..About::default() };
    let server = TestServer::start(with(about)).await;
    let mut admin = server.admin().await;

    let list = admin.get("/logs/").await;
    assert_eq!(list.headers["content-type"], "text/html; charset=utf-8");
    assert!(list.body.contains("<a href=\"containers/\">containers/</a>\n"), "{list:?}");
    assert!(list.body.contains("<a href=\"%3Ci%3E\">&lt;i&gt;</a>\n"), "{list:?}");
    for path in ["/logs/pods/a%20b/0.log", "/logs/containers/link"] {
        let answer = admin.get(path).await;
        assert_eq!(answer.is(), (200, "hello\n"), "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(admin.get("/logs").await.headers["location"], "/logs/");
    assert_eq!(admin.get("/logs/pods/a%20b").await.headers["location"], "a%20b/");
    for (path, status) in [
        ("/logs/none", 404),
        ("/logs/evil", 403),
        ("/logs/pods/up/", 403),
        ("/logs/pods/up/secret", 403),
        ("/logs/..%2fsecret", 404),
        ("/logs/../secret", 404),
        ("/logs/a%00b", 404),
        ("/logs//etc/passwd", 404),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(!answer.body.contains("secret\n"), "{answer:?}");
    }
    assert_eq!(admin.ask(request("POST", "/logs/", None)).await.status, 405);
}
