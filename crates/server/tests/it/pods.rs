//! `/pods`.

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::fakes::{FakeHost, pod};
use crate::server::{Setup, TestServer, request};

#[tokio::test]
async fn the_list_of_pods_is_encoded_as_upstream_encodes_it() {
    let host = Arc::new(FakeHost::default());
    let server = TestServer::start(Setup { host: host.clone(), ..Setup::default() }).await;
    let mut admin = server.admin().await;
    let empty = "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":null}\n";
    assert_eq!(admin.get("/pods").await.is(), (200, empty));

    let pods: Vec<Pod> = (0..500).map(|i| pod(&format!("pod-{i}"))).collect();
    *host.pods.lock() = pods.iter().cloned().map(Arc::new).collect();
    for path in ["/pods", "/pods/"] {
        let answer = admin.get(path).await;
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
        let list: Value = serde_json::from_str(&answer.body).unwrap();
        let item = &list["items"][7];
        assert_eq!(item["metadata"]["name"], "pod-7");
        assert_eq!(item["status"]["podIP"], "10.0.0.1");
        assert_eq!((item.get("kind"), item.get("apiVersion")), (None, None));
        let list: List<Pod> = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(list.items, pods);
    }
}

#[tokio::test]
async fn only_get_is_allowed() {
    let server = TestServer::start(Setup::default()).await;
    let mut admin = server.admin().await;
    for path in ["/pods", "/pods/", "/containerLogs/default/mypod/mycontainer"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = admin.ask(request(method, path, None)).await;
            assert_eq!(answer.is(), (405, "Method Not Allowed"), "{method} {path}");
            assert_eq!(answer.headers.get_all(ALLOW).iter().collect::<Vec<_>>(), ["GET"], "{method} {path}");
        }
    }
}
