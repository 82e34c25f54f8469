//! Running the hooks of containers (upstream: `pkg/kubelet/lifecycle/handlers.go`).

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{Error, Provider};
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, ObjectReference};

use crate::ports::{EventType, HookError, ProbeTransport, Scheme};
use crate::prober::http_get_request;
use crate::recorder::{Recorder, reason};

/// Nothing limits a hook but the end of its container; providers want a number.
pub(crate) const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// The container that a hook belongs to.
#[derive(Clone)]
pub struct HookTarget {
    /// The pod, as messages name it: `name_namespace(uid)`.
    pub pod: String,
    /// The pod, as Events name it.
    pub pod_reference: ObjectReference,
    /// The container, as far as it is known.
    pub container: Container,
    /// The instance's id.
    pub container_id: String,
    /// Who runs it.
    pub provider: Arc<dyn Provider>,
    /// The pod's address.
    pub pod_ip: Option<String>,
}

/// Runs hooks (`handlerRunner`).
#[derive(Clone)]
pub struct HandlerRunner {
    transport: Arc<dyn ProbeTransport>,
    recorder: Recorder,
}

impl HandlerRunner {
    /// A runner that makes requests over `transport`.
    pub fn new(transport: Arc<dyn ProbeTransport>, recorder: Recorder) -> Self {
        Self { transport, recorder }
    }

    /// Runs a hook to its end. The message of a failure may have what a program wrote, so it is for those only who may
    /// see the pod's status.
    pub async fn run(&self, target: &HookTarget, handler: &LifecycleHandler) -> Result<(), String> {
        let (name, pod) = (&target.container.name, &target.pod);
        let what = |kind: &str, which: &str| {
            format!("{kind} lifecycle hook ({which}) for Container {name:?} in Pod {pod:?}")
        };
        if let Some(exec) = &handler.exec {
            run_exec_handler(target, exec).await.map_err(|(error, output)| {
                let command = format!("[{}]", exec.command.as_deref().unwrap_or_default().join(" "));
                format!("{} failed - error: {error}, message: {output:?}", what("Exec", &command))
            })
        } else if let Some(get) = &handler.http_get {
            self.run_http_handler(target, get).await.map_err(|error| {
                format!("{} failed - error: {error}", what("HTTP", get.path.as_deref().unwrap_or_default()))
            })
        } else if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())).await;
            Ok(())
        } else {
            // The API still takes tcpSocket, which never did anything.
            Err("Cannot run handler: invalid handler: one of exec, httpGet and sleep is needed".to_owned())
        }
    }

    /// Any answer will do. A server without TLS is asked again without it, because hooks once never had any.
    async fn run_http_handler(&self, target: &HookTarget, action: &HTTPGetAction) -> Result<(), String> {
        let request = http_get_request(action, &target.container, target.pod_ip.as_deref())?;
        let error = match self.transport.http_hook(&request).await {
            Ok(()) => return Ok(()),
            Err(HookError::Failed(message)) => return Err(message),
            Err(HookError::HttpResponseToHttps(message)) => message,
        };
        let mut plain = request;
        plain.scheme = Scheme::Http;
        plain.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        if self.transport.http_hook(&plain).await.is_err() {
            return Err(error);
        }
        let message = format!(
            "request to HTTPS lifecycle hook {}:{} got HTTP response, retry with HTTP succeeded",
            plain.host, plain.port
        );
        let object = target.pod_reference.clone();
        self.recorder.event(object, EventType::Warning, reason::LIFECYCLE_HTTP_FALLBACK, message);
        Ok(())
    }
}

/// Runs a command; a failure comes with what it wrote.
async fn run_exec_handler(target: &HookTarget, exec: &ExecAction) -> Result<(), (Error, String)> {
    let command = exec.command.as_deref().unwrap_or_default();
    let result = target.provider.exec_sync(&target.container_id, command, UNLIMITED).await;
    let response = result.map_err(|error| (error, String::new()))?;
    if response.exit_code == 0 {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&response.stderr);
    let (line, code) = (command.join(" "), response.exit_code);
    let error = Error::internal(format!("command '{line}' exited with {code}: {stderr}"));
    let output = [response.stdout, response.stderr].concat();
    Err((error, String::from_utf8_lossy(&output).into_owned()))
}

#[cfg(test)]
mod tests;
