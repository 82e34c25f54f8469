//! Static pods from a URL (upstream: `pkg/kubelet/config/http.go`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use coracle_core::config::{MAX_MANIFEST_BYTES, ManifestError, ManifestOrigin, decode_static_pods};
use coracle_core::ports::{PodSource, SourceKind, SourceUpdate};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After so many failures in a row the log has enough of them.
const MAX_TOLD_FAILURES: u32 = 4;

/// The pods that a URL names: one Pod or a PodList, YAML or JSON.
pub(super) struct ManifestUrl {
    url: String,
    headers: HeaderMap,
    node_name: String,
    period: Duration,
    client: Client,
}

/// Why there is no answer that can be used. URLs are told without what a user might have hidden in them.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Request(String),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {} MiB", MAX_MANIFEST_BYTES >> 20)]
    TooLarge,
    #[error("the answer is empty; there are no static pods")]
    Empty,
    #[error("no usable pods: {0}")]
    Manifest(#[from] ManifestError),
}

impl ManifestUrl {
    /// Asks `url` (`staticPodURL`) with these headers (`staticPodURLHeader`) once in `period` (`httpCheckFrequency`).
    pub(super) fn new(
        url: String,
        headers: &BTreeMap<String, Vec<String>>,
        node_name: String,
        period: Duration,
    ) -> anyhow::Result<Self> {
        let client = client().context("cannot make a client for staticPodURL")?;
        Ok(Self { url, headers: header_map(headers)?, node_name, period, client })
    }

    /// The body of the answer.
    async fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        let request = self.client.get(&self.url).headers(self.headers.clone());
        let mut answer = request.send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_MANIFEST_BYTES {
                return Err(FetchError::TooLarge);
            }
        }
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        Ok(body)
    }

    /// What is new since `before`, the last answer.
    async fn look(&self, before: &mut Vec<u8>) -> (Option<SourceUpdate>, Result<(), FetchError>) {
        let body = match self.fetch().await {
            Ok(body) => body,
            Err(error) => return (None, Err(error)),
        };
        if body.is_empty() {
            return (Some(SourceUpdate::Set(Vec::new())), Err(FetchError::Empty));
        }
        if body == *before {
            return (None, Ok(()));
        }
        *before = body;
        match decode_static_pods(before, ManifestOrigin::Url(&self.url), &self.node_name) {
            Ok(pods) => {
                for warning in pods.iter().flat_map(|pod| &pod.warnings) {
                    warn!("static pod of staticPodURL: {warning}");
                }
                let pods = pods.into_iter().map(|pod| pod.pod).collect();
                (Some(SourceUpdate::Set(pods)), Ok(()))
            }
            Err(error) => (None, Err(error.into())),
        }
    }
}

#[async_trait]
impl PodSource for ManifestUrl {
    fn kind(&self) -> SourceKind {
        SourceKind::Http
    }

    async fn run(&self, updates: mpsc::Sender<SourceUpdate>) {
        let mut period = tokio::time::interval(self.period);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut body, mut failures) = (Vec::new(), 0);
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = updates.closed() => return,
            }
            let (update, outcome) = self.look(&mut body).await;
            if let Some(update) = update
                && updates.send(update).await.is_err()
            {
                return;
            }
            failures = match outcome {
                Ok(()) => tell_success(failures),
                Err(error) => tell_failure(failures, &error),
            };
        }
    }
}

fn tell_success(failures: u32) -> u32 {
    if failures > 0 {
        info!("static pods are read from staticPodURL again");
    }
    0
}

fn tell_failure(failures: u32, error: &dyn Display) -> u32 {
    if failures < MAX_TOLD_FAILURES {
        warn!("static pods cannot be read from staticPodURL: {error}");
    } else {
        debug!("static pods cannot be read from staticPodURL: {error}");
    }
    failures.saturating_add(1)
}

/// Trusts the node's certificates, as Go's client does.
fn client() -> anyhow::Result<Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Client::builder().timeout(TIMEOUT).tls_backend_preconfigured(tls).build()?)
}

/// Headers may be secret: they are neither told nor shown.
fn header_map(headers: &BTreeMap<String, Vec<String>>) -> anyhow::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let key = HeaderName::try_from(name)
            .with_context(|| format!("staticPodURLHeader: {name:?} is not the name of a header"))?;
        for value in values {
            let mut value = HeaderValue::try_from(value)
                .with_context(|| format!("staticPodURLHeader: a value of {name} is not that of a header"))?;
            value.set_sensitive(true);
            map.append(key.clone(), value);
        }
    }
    Ok(map)
}

/// An error with its causes on one line.
fn failed(error: reqwest::Error) -> FetchError {
    FetchError::Request(format!("{:#}", anyhow::Error::new(error.without_url())))
}

#[cfg(test)]
mod tests {
    use coracle_core::pod::PodExt;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves these answers, one a connection, and gives the requests.
    async fn serve(answers: Vec<(u16, String)>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/pods", listener.local_addr().unwrap());
        let (requests, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = connection.read(&mut request).await.unwrap();
                requests.send(String::from_utf8_lossy(&request[..read]).into_owned()).await.unwrap();
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                connection.write_all(head.as_bytes()).await.unwrap();
                connection.write_all(body.as_bytes()).await.unwrap();
            }
        });
        (url, receiver)
    }

    fn source(url: &str) -> ManifestUrl {
        let headers = [("Metadata-Flavor".to_owned(), vec!["Google".to_owned(), "Other".to_owned()])];
        ManifestUrl::new(url.into(), &headers.into(), "Node-1".into(), Duration::from_millis(10)).unwrap()
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "1", "image": "foo"}]}})
    }

    fn list(names: &[&str]) -> String {
        let items: Vec<_> = names.iter().map(|name| pod(name)).collect();
        json!({"apiVersion": "v1", "kind": "PodList", "items": items}).to_string()
    }

    fn names(update: Option<SourceUpdate>) -> Option<Vec<String>> {
        let Some(SourceUpdate::Set(pods)) = update else { return None };
        Some(pods.iter().map(|pod| pod.name().to_owned()).collect())
    }

    #[tokio::test]
    async fn pods_come_from_the_answers_and_headers_go_out() {
        let answers = [list(&["a", "b"]), list(&["b"]), list(&[])].map(|body| (200, body));
        let (url, mut requests) = serve(answers.into()).await;
        let (sender, mut updates) = mpsc::channel(1);
        let source = tokio::spawn(async move { source(&url).run(sender).await });
        assert_eq!(names(updates.recv().await).unwrap(), ["a-node-1", "b-node-1"]);
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("GET /pods HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("metadata-flavor: Google\r\nmetadata-flavor: Other\r\n"), "{request}");
        assert_eq!(names(updates.recv().await).unwrap(), ["b-node-1"]);
        assert_eq!(names(updates.recv().await).unwrap(), [""; 0]);
        drop(updates);
        source.await.unwrap();
    }

    /// `TestExtractFromHttpBadness` and `TestExtractInvalidPods`.
    #[tokio::test]
    async fn what_cannot_be_used_changes_nothing() {
        let mut without_container = pod("a");
        (without_container["apiVersion"], without_container["kind"]) = (json!("v1"), json!("Pod"));
        without_container["spec"]["containers"] = json!([]);
        let answers = vec![
            (500, list(&["a"])),
            (200, "{".into()),
            (200, without_container.to_string()),
            (200, " ".repeat((MAX_MANIFEST_BYTES + 1) as usize)),
        ];
        let messages = ["500", "not JSON", "spec.containers", "larger than 10 MiB"];
        let (url, _requests) = serve(answers).await;
        let source = source(&url);
        let mut body = Vec::new();
        for message in messages {
            let (update, outcome) = source.look(&mut body).await;
            let error = outcome.unwrap_err().to_string();
            assert!(update.is_none() && error.contains(message), "{error}");
        }
        let (update, outcome) = source.look(&mut body).await;
        let error = outcome.unwrap_err().to_string();
        assert!(update.is_none() && error.contains("refused") && !error.contains('\n'), "{error}");
    }

    #[tokio::test]
    async fn an_empty_answer_means_no_pods_and_the_same_answer_nothing_new() {
        let answers = vec![(200, list(&["a"])), (200, list(&["a"])), (200, String::new())];
        let (url, _requests) = serve(answers).await;
        let source = source(&url);
        let mut body = Vec::new();
        assert_eq!(names(source.look(&mut body).await.0).unwrap(), ["a-node-1"]);
        let (update, outcome) = source.look(&mut body).await;
        assert!(update.is_none() && outcome.is_ok());
        let (update, outcome) = source.look(&mut body).await;
        assert_eq!(names(update).unwrap(), [""; 0]);
        assert!(matches!(outcome, Err(FetchError::Empty)));
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused_without_showing_them() {
        for (name, value) in [("bad name", "v"), ("name", "secret\nvalue")] {
            let headers = [(name.to_owned(), vec![value.to_owned()])].into();
            let error = format!("{:#}", header_map(&headers).unwrap_err());
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
