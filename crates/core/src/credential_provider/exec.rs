//! Runs plugins (upstream: `execPlugin` in `pkg/credentialprovider/plugin/plugin.go`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A plugin that has not answered by then never will.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Answers are a few lines; more is not read.
const MAX_OUTPUT: u64 = 1 << 20;
/// How much of what a plugin complains about is shown.
const MAX_COMPLAINT: usize = 300;

/// Gives credentials for an image.
#[async_trait]
pub(super) trait Plugin: Send + Sync {
    /// Asks for them. The error is one line without secrets.
    async fn credentials(
        &self,
        image: &str,
        token: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Response, String>;
}

/// What a plugin answers (`CredentialProviderResponse`).
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Response {
    api_version: String,
    kind: String,
    pub(super) cache_key_type: CacheKeyType,
    /// A duration as Go writes it; none for the configured one.
    pub(super) cache_duration: Option<String>,
    pub(super) auth: Option<BTreeMap<String, Password>>,
}

/// For which images the answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

/// A user and a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Password {
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) password: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'a str,
    api_version: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_account_token: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_account_annotations: &'a BTreeMap<String, String>,
}

/// A program that is asked over its standard input. It has this process's environment, as upstream: plugins of clouds
/// need proxies and paths from there.
pub(super) struct ExecPlugin {
    pub(super) program: PathBuf,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

#[async_trait]
impl Plugin for ExecPlugin {
    async fn credentials(
        &self,
        image: &str,
        token: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Response, String> {
        let request = Request {
            kind: "CredentialProviderRequest",
            api_version: &self.api_version,
            image,
            service_account_token: token,
            service_account_annotations: annotations,
        };
        let request = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let output = tokio::time::timeout(TIMEOUT, self.run(request))
            .await
            .map_err(|_| format!("it did not answer within {TIMEOUT:?}"))??;
        self.read(&output)
    }
}

impl ExecPlugin {
    async fn run(&self, request: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("it cannot be run: {error}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            // One that does not read its input may answer all the same.
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(&request).await;
            }
        };
        let ((), output, complaint) = tokio::join!(write, read_some(stdout), read_some(stderr));
        let status = child.wait().await.map_err(|error| format!("it cannot be waited for: {error}"))?;
        if status.success() {
            return Ok(output);
        }
        let complaint = String::from_utf8_lossy(&complaint);
        let complaint: String =
            complaint.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_COMPLAINT).collect();
        Err(format!("{status}: {complaint}"))
    }

    fn read(&self, output: &[u8]) -> Result<Response, String> {
        // The parser's words could show what is in the answer.
        let response: Response = serde_json::from_slice(output)
            .map_err(|_| "its answer is not a CredentialProviderResponse".to_owned())?;
        if response.api_version != self.api_version || response.kind != "CredentialProviderResponse" {
            return Err(format!(
                "it answered with a {:.100} of {:.100}, not of {}",
                response.kind, response.api_version, self.api_version
            ));
        }
        Ok(response)
    }
}

async fn read_some(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What could not be read is missing in the answer, which then does not parse.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

    async fn ask(script: &str) -> Result<Response, String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("plugin");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plugin = ExecPlugin {
            program,
            api_version: V1.to_owned(),
            args: vec!["get".to_owned()],
            env: vec![("WHO".to_owned(), "me".to_owned())],
        };
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        plugin.credentials("example.com/app", "tok", &annotations).await
    }

    #[tokio::test]
    async fn the_request_comes_in_and_the_answer_goes_out() {
        let script = format!(
            "request=$(cat | base64 -w0)\n\
             echo '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"{V1}\",\"cacheKeyType\":\"Registry\",\
             \"cacheDuration\":\"5m0s\",\"auth\":{{\"example.com\":{{\"username\":\"'$WHO-$1'\",\"password\":\"'$request'\"}}}}}}'"
        );
        let response = ask(&script).await.unwrap();
        assert_eq!(
            (response.cache_key_type, response.cache_duration.as_deref()),
            (CacheKeyType::Registry, Some("5m0s"))
        );
        let auth = &response.auth.unwrap()["example.com"];
        assert_eq!(auth.username, "me-get");
        use base64::Engine as _;
        let request = base64::engine::general_purpose::STANDARD.decode(&auth.password).unwrap();
        let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
        assert_eq!(
            request,
            serde_json::json!({
                "kind": "CredentialProviderRequest", "apiVersion": V1, "image": "example.com/app",
                "serviceAccountToken": "tok", "serviceAccountAnnotations": {"a": "b"},
            })
        );
    }

    #[tokio::test]
    async fn plugins_that_fail_are_told_apart_and_show_no_secrets() {
        let other_version = "echo '{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"other/v1\",\"cacheKeyType\":\"Image\"}'";
        for (script, reason) in [
            ("echo no '\n' way >&2; exit 3", "exit status: 3: no way"),
            ("echo '{\"password\": \"s3cret\"}'", "is not a CredentialProviderResponse"),
            ("true", "is not a CredentialProviderResponse"),
            (other_version, "of other/v1, not of credentialprovider"),
        ] {
            let error = ask(script).await.err().unwrap();
            assert!(error.contains(reason), "{script}: {error}");
            assert!(!error.contains("s3cret") && !error.contains('\n'), "{error}");
        }
    }
}
