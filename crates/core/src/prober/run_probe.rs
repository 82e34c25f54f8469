//! Makes probes and tells what came of them (upstream: `prober/prober.go`).

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::ErrorKind;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, timeout};

use super::ProbeKey;
use super::request::{ProbeRequest, probe_request};
use crate::metrics::{self, runtime_operation};
use crate::pod::PodExt;
use crate::ports::{EventType, MAX_PROBE_OUTPUT, ProbeOutcome, ProbeTransport};
use crate::providers::Providers;
use crate::recorder::{Recorder, reason};

/// A probe that could not be made is tried so often (`maxProbeRetries`).
const MAX_RETRIES: usize = 3;
/// Whoever is asked keeps the timeout; should it not, the probe still ends.
const TIMEOUT_GUARD: Duration = Duration::from_secs(2);

/// Results as metrics call them.
const SUCCESSFUL: &str = "successful";
const FAILED: &str = "failed";
const UNKNOWN: &str = "unknown";

/// What to probe.
pub(super) struct Job {
    pub(super) key: ProbeKey,
    pub(super) pod: Arc<Pod>,
    pub(super) container_id: String,
    pub(super) pod_ip: Option<String>,
}

/// Makes probes.
#[derive(Clone)]
pub struct Prober {
    transport: Arc<dyn ProbeTransport>,
    providers: Providers,
    recorder: Recorder,
}

impl Prober {
    /// A prober that asks over `transport` and runs commands in `providers`.
    pub fn new(transport: Arc<dyn ProbeTransport>, providers: Providers, recorder: Recorder) -> Self {
        Self { transport, providers, recorder }
    }

    /// Makes a probe (`runProbeWithRetries`).
    pub(super) async fn probe(&self, job: &Job) -> ProbeOutcome {
        let started = Instant::now();
        let mut outcome = self.probe_once(job).await;
        for _ in 1..MAX_RETRIES {
            if !matches!(outcome, ProbeOutcome::Unknown(_)) {
                break;
            }
            outcome = self.probe_once(job).await;
        }
        count(job, &outcome, started);
        outcome
    }

    async fn probe_once(&self, job: &Job) -> ProbeOutcome {
        let mut containers = job.pod.containers().iter().chain(job.pod.init_containers());
        let container = containers.find(|c| c.name == *job.key.container);
        let Some((container, probe)) = container.and_then(|c| Some((c, job.key.probe_type.of(c)?))) else {
            return ProbeOutcome::Unknown("the pod no longer has this probe".to_owned());
        };
        let request = match probe_request(probe, container, job.pod_ip.as_deref()) {
            Ok(request) => request,
            Err(message) => return ProbeOutcome::Unknown(message),
        };
        let limit = probe.timeout_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        let limit = Duration::from_secs(limit.unwrap_or(1));
        let asked = async {
            match &request {
                ProbeRequest::Exec(command) => self.exec(&job.container_id, command, limit).await,
                ProbeRequest::Http(get) => self.transport.http(get, limit).await,
                ProbeRequest::Tcp(connect) => self.transport.tcp(connect, limit).await,
                ProbeRequest::Grpc(check) => self.transport.grpc(check, limit).await,
            }
        };
        match timeout(limit + TIMEOUT_GUARD, asked).await {
            Ok(outcome) => outcome,
            Err(_) => ProbeOutcome::Failure(format!("timeout: the probe did not end within {limit:?}")),
        }
    }

    /// Runs a command in the container (`pkg/probe/exec`).
    async fn exec(&self, container_id: &str, command: &[String], limit: Duration) -> ProbeOutcome {
        let Some((name, id)) = container_id.split_once("://") else {
            return ProbeOutcome::Unknown(format!("{container_id:?} is no container id"));
        };
        let Some(provider) = self.providers.iter().map(|p| &p.provider).find(|p| p.name() == name) else {
            return ProbeOutcome::Unknown(format!("the runtime {name:?} is not configured"));
        };
        match runtime_operation("exec_sync", provider.exec_sync(id, command, limit)).await {
            Ok(response) => {
                let output = limited([response.stdout, response.stderr].concat());
                if response.exit_code == 0 {
                    ProbeOutcome::Success(output)
                } else {
                    ProbeOutcome::Failure(output)
                }
            }
            Err(error) if error.kind == ErrorKind::DeadlineExceeded => ProbeOutcome::Failure(format!(
                "command timed out: {:?} timed out after {limit:?}",
                command.join(" ")
            )),
            Err(error) => ProbeOutcome::Unknown(error.to_string()),
        }
    }

    /// Tells of everything but plain success, in upstream's words.
    pub(super) fn record(&self, job: &Job, outcome: &ProbeOutcome) {
        let probe_type = job.key.probe_type;
        let (reason, message) = match outcome {
            ProbeOutcome::Success(_) => return,
            ProbeOutcome::Warning(output) => {
                (reason::CONTAINER_PROBE_WARNING, format!("{probe_type} probe warning: {output}"))
            }
            ProbeOutcome::Failure(output) => {
                (reason::CONTAINER_UNHEALTHY, format!("{probe_type} probe failed: {output}"))
            }
            ProbeOutcome::Unknown(error) => (
                reason::CONTAINER_UNHEALTHY,
                format!("{probe_type} probe errored and resulted in unknown state: {error}"),
            ),
        };
        tracing::debug!(pod = %job.pod.display_name(), container = %job.key.container, message, "probe");
        self.recorder.container(&job.pod, &job.key.container, EventType::Warning, reason, message);
    }
}

/// How long a probe took is of interest where it was answered.
fn count(job: &Job, outcome: &ProbeOutcome, started: Instant) {
    let result = match outcome {
        ProbeOutcome::Success(_) | ProbeOutcome::Warning(_) => SUCCESSFUL,
        ProbeOutcome::Failure(_) => FAILED,
        ProbeOutcome::Unknown(_) => UNKNOWN,
    };
    let (probe_type, container) = (job.key.probe_type.to_string(), &job.key.container);
    let (namespace, name) = (job.pod.namespace(), job.pod.name());
    let labels = [&**container, namespace, name, &job.key.pod_uid, &probe_type, result];
    metrics::PROBER_RESULTS.with_label_values(&labels).inc();
    if result == SUCCESSFUL {
        let duration =
            metrics::PROBER_DURATION.with_label_values(&[&**container, namespace, name, &probe_type]);
        duration.observe(started.elapsed().as_secs_f64());
    }
}

/// The probe is over: nobody counts it any more.
pub(super) fn forget_counts(pod: &Pod, key: &ProbeKey) {
    let (probe_type, namespace, name) = (key.probe_type.to_string(), pod.namespace(), pod.name());
    for result in [SUCCESSFUL, FAILED, UNKNOWN] {
        let labels = [&*key.container, namespace, name, &key.pod_uid, &probe_type, result];
        // What was never counted is not there.
        let _ = metrics::PROBER_RESULTS.remove_label_values(&labels);
    }
    let _ = metrics::PROBER_DURATION.remove_label_values(&[&*key.container, namespace, name, &probe_type]);
}

fn limited(mut output: Vec<u8>) -> String {
    output.truncate(MAX_PROBE_OUTPUT);
    String::from_utf8_lossy(&output).into_owned()
}
