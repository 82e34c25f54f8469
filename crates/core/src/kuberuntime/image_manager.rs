//! Seeing to it that an image is present (upstream: `pkg/kubelet/images/image_manager.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ErrorKind, ImageSpec, Provider, PullProgress};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;

use super::puller::{Pull, Pulled, Puller};
use super::sync_result::{SyncFailure, reason};
use crate::backoff::Backoff;
use crate::credential_provider::{CredentialPlugins, Keyring, NodeKeyring, PodIdentity, TrackedAuthConfig};
use crate::metrics::{IMAGE_PULL_DURATION, image_size_bucket, runtime_operation};
use crate::pod::PodExt;
use crate::pod_startup::PodStartupLatencyTracker;
use crate::ports::{EventType, ObjectReader};
use crate::pull_manager::PullManager;
use crate::recorder::{self, Recorder};

/// Back-off after a failed pull: the first, and the longest (`imageBackOffPeriod`, `MaxImageBackOff`).
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// How a pull comes along, for somebody who watches.
#[derive(Clone, Debug)]
pub struct PullReport {
    /// The image as the user wrote it.
    pub image: String,
    /// How far it is; none when it ended.
    pub progress: Option<PullProgress>,
}

/// Settings of the image manager.
#[derive(Clone, Debug, Default)]
pub struct ImageManagerOptions {
    /// Pulls at a time; none is no limit. `serializeImagePulls` is 1.
    pub max_parallel_pulls: Option<usize>,
    /// Pulls begun a second, and at once; none is no limit (`registryPullQPS`, `registryBurst`).
    pub rate: Option<(f64, u32)>,
    /// What decides who may have an image that is present; without it, everybody may.
    pub pull_manager: Option<Arc<PullManager>>,
    /// The node's own credentials.
    pub node_keyring: Arc<NodeKeyring>,
    /// Programs that give credentials.
    pub credential_plugins: Option<Arc<CredentialPlugins>>,
    /// Who watches pulls.
    pub progress: Option<mpsc::Sender<PullReport>>,
}

/// Pulls images by their policy, with back-off.
pub struct ImageManager {
    recorder: Recorder,
    objects: Arc<dyn ObjectReader>,
    back_off: Backoff,
    /// What went wrong last, to be shown while backing off.
    previous_errors: Mutex<HashMap<String, String>>,
    puller: Puller,
    pull_manager: Option<Arc<PullManager>>,
    node_keyring: Arc<NodeKeyring>,
    credential_plugins: Option<Arc<CredentialPlugins>>,
    progress: Option<mpsc::Sender<PullReport>>,
    startup: Arc<PodStartupLatencyTracker>,
}

impl ImageManager {
    /// An image manager.
    pub fn new(recorder: Recorder, objects: Arc<dyn ObjectReader>, options: ImageManagerOptions) -> Self {
        Self {
            recorder,
            objects,
            back_off: Backoff::new(BACK_OFF.0, BACK_OFF.1, BACK_OFF.1 * 2),
            previous_errors: Mutex::default(),
            puller: Puller::new(options.max_parallel_pulls, options.rate, options.pull_manager.clone()),
            pull_manager: options.pull_manager,
            node_keyring: options.node_keyring,
            credential_plugins: options.credential_plugins,
            progress: options.progress,
            startup: Arc::default(),
        }
    }

    /// Tells this tracker of pulls.
    pub fn with_startup_tracker(self, startup: Arc<PodStartupLatencyTracker>) -> Self {
        Self { startup, ..self }
    }

    /// Makes a container's image present and answers its reference (`EnsureImageExists`).
    pub(super) async fn ensure_image_exists(
        &self,
        provider: &Arc<dyn Provider>,
        runtime_handler: &str,
        pod: &Pod,
        container: &Container,
    ) -> Result<String, SyncFailure> {
        let image = container.image.as_deref().unwrap_or_default();
        let request = Request { manager: self, pod, container, image, credentials: OnceCell::new() };
        let ensured = request.ensure(provider, runtime_handler).await;
        if let Err(failure) = &ensured {
            let message = format!("Error: {}", failure.reason);
            request.event(EventType::Warning, recorder::reason::FAILED, message);
        }
        ensured
    }

    /// Forgets a pod's back-off.
    pub(super) fn forget(&self, uid: &str) {
        self.back_off.forget(uid);
        self.previous_errors.lock().retain(|key, _| !key.starts_with(uid));
    }

    #[cfg(feature = "simulation")]
    pub(super) fn keys(&self) -> Vec<String> {
        let errors = self.previous_errors.lock().keys().cloned().collect::<Vec<_>>();
        self.back_off.keys().into_iter().chain(errors).collect()
    }

    pub(super) fn gc_back_off(&self) {
        self.back_off.gc();
    }
}

/// One container's wish for an image.
struct Request<'a> {
    manager: &'a ImageManager,
    pod: &'a Pod,
    container: &'a Container,
    image: &'a str,
    /// Looked up once, and not before they are needed.
    credentials: OnceCell<Vec<TrackedAuthConfig>>,
}

impl Request<'_> {
    async fn ensure(
        &self,
        provider: &Arc<dyn Provider>,
        runtime_handler: &str,
    ) -> Result<String, SyncFailure> {
        let spec = ImageSpec { image: self.image.to_owned(), runtime_handler: runtime_handler.to_owned() };
        let policy = self.container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let present = runtime_operation("image_status", provider.image_status(&spec)).await;
        let present = present.map_err(|error| self.inspect_failed(&error))?;
        if let Some(image) = present.filter(|_| policy != "Always")
            && !self.must_attempt_pull(&**provider, runtime_handler, &image.id).await
        {
            self.event(EventType::Normal, recorder::reason::PULLED_IMAGE, self.already_present());
            return Ok(image.id);
        }
        // It is not there, or not for this pod: a pod must not learn the difference.
        if policy == "Never" {
            let message =
                format!("Container image {:?} is not present with pull policy of Never", self.image);
            self.event(EventType::Warning, recorder::reason::ERR_IMAGE_NEVER_PULL, message.clone());
            return Err(SyncFailure::new(reason::IMAGE_NEVER_PULL, message));
        }
        self.pull(provider, spec).await
    }

    /// Whether the pod has to show to the registry that it may have an image that is present.
    async fn must_attempt_pull(
        &self,
        provider: &dyn Provider,
        runtime_handler: &str,
        image_ref: &str,
    ) -> bool {
        let Some(pulls) = &self.manager.pull_manager else { return false };
        for image in pulls.left_intents() {
            let spec = ImageSpec { image: image.clone(), runtime_handler: runtime_handler.to_owned() };
            if let Ok(Some(found)) = provider.image_status(&spec).await {
                pulls.settle_left_intent(&image, &found.id).await;
            }
        }
        let credentials = async { self.credentials().await.to_vec() };
        pulls.must_attempt_image_pull(self.image, image_ref, credentials).await
    }

    async fn pull(&self, provider: &Arc<dyn Provider>, spec: ImageSpec) -> Result<String, SyncFailure> {
        let manager = self.manager;
        let key = format!("{}_{}", self.pod.uid(), self.image);
        if let Some(until) = manager.back_off.waits_until_since_update(&key) {
            let mut message = format!("Back-off pulling image {:?}", self.image);
            self.event(EventType::Normal, recorder::reason::BACK_OFF, message.clone());
            if let Some(previous) = manager.previous_errors.lock().get(&key) {
                message = format!("{message}: {previous}");
            }
            return Err(SyncFailure { reason: reason::IMAGE_PULL_BACK_OFF, message, retry_at: Some(until) });
        }
        manager.previous_errors.lock().remove(&key);
        self.event(
            EventType::Normal,
            recorder::reason::PULLING_IMAGE,
            format!("Pulling image {:?}", self.image),
        );

        let since = Instant::now();
        let pull = Pull {
            provider: provider.clone(),
            spec,
            pod: self.pod.pod_ref(),
            credentials: self.credentials().await.to_vec(),
            if_not_present: self.container.image_pull_policy.as_deref() != Some("Always"),
            progress: self.report_progress(),
        };
        let pulled = manager.puller.pull(pull).await;
        manager.startup.image_pulled(&self.pod.uid(), since);
        match pulled {
            Ok(Pulled { image, took }) => {
                let duration = IMAGE_PULL_DURATION.with_label_values(&[image_size_bucket(image.size_bytes)]);
                duration.observe(took.as_secs_f64());
                manager.back_off.reset(&key);
                let (took, in_all) = (round_to_millis(took), round_to_millis(since.elapsed()));
                let message = format!(
                    "Successfully pulled image {:?} in {took:?} ({in_all:?} including waiting). Image size: {} bytes.",
                    self.image, image.size_bytes
                );
                self.event(EventType::Normal, recorder::reason::PULLED_IMAGE, message);
                Ok(image.id)
            }
            Err(error) => {
                let message = format!("Failed to pull image {:?}: {error}", self.image);
                self.event(EventType::Warning, recorder::reason::FAILED, message);
                manager.back_off.next(&key, crate::clock::now());
                let failure = self.pull_failure(&error);
                let previous = format!("{}: {}", failure.reason, failure.message);
                manager.previous_errors.lock().insert(key, previous);
                Err(failure)
            }
        }
    }

    /// What the image may be pulled with: the pod's secrets first, then the node's configuration, then what plugins
    /// give (`makeLookupPullCredentialsFunc`).
    async fn credentials(&self) -> &[TrackedAuthConfig] {
        let look_up = async || {
            let mut found = self.secrets().await.lookup(self.image);
            found.extend(self.manager.node_keyring.lookup(self.image).await);
            if let Some(plugins) = &self.manager.credential_plugins {
                let (metadata, uid) = (&self.pod.metadata, self.pod.uid());
                let pod = PodIdentity {
                    namespace: self.pod.namespace(),
                    name: metadata.name.as_deref().unwrap_or_default(),
                    uid: &uid,
                    service_account: self.pod.pod_spec().service_account_name.as_deref().unwrap_or_default(),
                };
                found.extend(plugins.lookup(self.image, pod).await);
            }
            found
        };
        self.credentials.get_or_init(look_up).await
    }

    async fn secrets(&self) -> Keyring {
        let names: Vec<&str> =
            self.pod.pod_spec().image_pull_secrets.iter().flatten().map(|r| r.name.as_str()).collect();
        let (mut secrets, mut missing): (Vec<Arc<Secret>>, Vec<String>) = Default::default();
        for name in names {
            match self.manager.objects.secret(self.pod.namespace(), name).await {
                Ok(secret) => secrets.push(secret),
                Err(_) => missing.push(name.to_owned()),
            }
        }
        let (keyring, unreadable) = Keyring::from_secrets(secrets.iter().map(AsRef::as_ref));
        missing.extend(unreadable);
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let reason = recorder::reason::FAILED_TO_RETRIEVE_IMAGE_PULL_SECRET;
            self.manager.recorder.warning(self.pod, reason, message);
        }
        keyring
    }

    /// Hands progress on to whoever watches, in a task that ends when the answer is dropped.
    fn report_progress(&self) -> Option<mpsc::Sender<PullProgress>> {
        let watcher = self.manager.progress.clone()?;
        let (sender, mut receiver) = mpsc::channel(16);
        let image = self.image.to_owned();
        tokio::spawn(async move {
            while let Some(progress) = receiver.recv().await {
                // Nobody waits for a watcher: what it cannot take in time is left out.
                let _ = watcher.try_send(PullReport { image: image.clone(), progress: Some(progress) });
            }
            let _ = watcher.try_send(PullReport { image, progress: None });
        });
        Some(sender)
    }

    fn pull_failure(&self, error: &coracle_provider::Error) -> SyncFailure {
        match error.kind {
            ErrorKind::InvalidImageName => SyncFailure::new(reason::INVALID_IMAGE_NAME, error.to_string()),
            ErrorKind::RegistryUnavailable => {
                let message = format!(
                    "image pull failed for {} because the registry is unavailable: {error}",
                    self.image
                );
                SyncFailure::new(reason::REGISTRY_UNAVAILABLE, message)
            }
            _ => SyncFailure::new(reason::IMAGE_PULL, error.to_string()),
        }
    }

    fn inspect_failed(&self, error: &coracle_provider::Error) -> SyncFailure {
        let (reason, message) = if error.kind == ErrorKind::InvalidImageName {
            let message = format!("Failed to apply default image tag {:?}: {error}", self.image);
            (reason::INVALID_IMAGE_NAME, message)
        } else {
            (reason::IMAGE_INSPECT, format!("Failed to inspect image {:?}: {error}", self.image))
        };
        self.event(EventType::Warning, recorder::reason::FAILED_TO_INSPECT_IMAGE, message.clone());
        SyncFailure::new(reason, message)
    }

    fn already_present(&self) -> String {
        format!("Container image {:?} already present on machine and can be accessed by the pod", self.image)
    }

    fn event(&self, event_type: EventType, reason: &'static str, message: String) {
        self.manager.recorder.container(self.pod, &self.container.name, event_type, reason, message);
    }
}

fn round_to_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
