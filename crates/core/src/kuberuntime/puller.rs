//! Pulls, so many at a time and a second as the node may (upstream: `images/puller.go`, `images/helpers.go`,
//! `PullImage` in `kuberuntime_image.go`).

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{Error, Image, ImageSpec, PodRef, Provider, PullProgress, PullRequest};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::credential_provider::TrackedAuthConfig;
use crate::metrics::runtime_operation;
use crate::pull_manager::PullManager;
use crate::token_bucket::TokenBucket;

/// How often a pull that waits for its turn looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(100);

/// Runs pulls. Each is a task, so that one that nobody waits for any more keeps its place among those at a time, and
/// is recorded with its credentials when it ends. Dropping the puller drops the tasks; their pulls then count as never
/// ended, which lets nobody in for the image's being there.
pub(super) struct Puller {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    slots: Option<Semaphore>,
    limit: Option<TokenBucket>,
    records: Option<Arc<PullManager>>,
}

/// One pull.
pub(super) struct Pull {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) spec: ImageSpec,
    pub(super) pod: PodRef,
    /// To be tried one after the other; none is anonymous.
    pub(super) credentials: Vec<TrackedAuthConfig>,
    /// Whether it will do if another pull brings the image meanwhile.
    pub(super) if_not_present: bool,
    pub(super) progress: Option<mpsc::Sender<PullProgress>>,
}

/// An image that was pulled.
pub(super) struct Pulled {
    pub(super) image: Image,
    /// Without the time until it began.
    pub(super) took: Duration,
}

impl Puller {
    /// `parallel` pulls at a time, and `rate` (a second, and at once) begun; none is no limit.
    pub(super) fn new(
        parallel: Option<usize>,
        rate: Option<(f64, u32)>,
        records: Option<Arc<PullManager>>,
    ) -> Self {
        let limit = rate.map(|(qps, burst)| TokenBucket::new(qps, burst));
        let shared = Shared { slots: parallel.map(Semaphore::new), limit, records };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }

    /// Pulls, or waits for its turn to.
    pub(super) async fn pull(&self, pull: Pull) -> Result<Pulled, Error> {
        let (answer, pulled) = oneshot::channel();
        let shared = self.shared.clone();
        {
            let mut tasks = self.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                // Nobody may be waiting any more.
                let _ = answer.send(shared.run(pull).await);
            });
        }
        pulled.await.unwrap_or_else(|_| Err(Error::internal("the pull was given up")))
    }
}

impl Shared {
    async fn run(&self, pull: Pull) -> Result<Pulled, Error> {
        let _slot = match &self.slots {
            Some(slots) => slots.acquire().await.ok(),
            None => None,
        };
        if let Some(image) = self.wait_for_turn(&pull).await {
            return Ok(Pulled { image, took: Duration::ZERO });
        }
        let name = pull.spec.image.clone();
        if let Some(records) = &self.records {
            records.record_pull_intent(&name).await.map_err(|error| {
                Error::internal(format!(
                    "Failed to record image pull intent for container image {name:?}: {error}"
                ))
            })?;
        }
        let since = Instant::now();
        let pulled = pull.try_credentials().await;
        if let Some(records) = &self.records {
            match &pulled {
                Ok((image, used)) => records.record_image_pulled(&name, &image.id, used.as_ref()).await,
                Err(_) => records.record_image_pull_failed(&name).await,
            }
        }
        pulled.map(|(image, _)| Pulled { image, took: since.elapsed() })
    }
}

impl Shared {
    /// Waits until one more pull may begin, or until the image has come by another one: many pods that start at once
    /// often want the same.
    async fn wait_for_turn(&self, pull: &Pull) -> Option<Image> {
        loop {
            if let Some(image) = self.brought_by_another(pull).await {
                return Some(image);
            }
            match &self.limit {
                Some(limit) if !limit.try_acquire() => tokio::time::sleep(LOOK).await,
                _ => return None,
            }
        }
    }

    async fn brought_by_another(&self, pull: &Pull) -> Option<Image> {
        if !pull.if_not_present {
            return None;
        }
        let image = pull.provider.image_status(&pull.spec).await.ok()??;
        let Some(records) = &self.records else { return Some(image) };
        let credentials = std::future::ready(pull.credentials.clone());
        let must_pull = records.must_attempt_image_pull(&pull.spec.image, &image.id, credentials).await;
        (!must_pull).then_some(image)
    }
}

impl Pull {
    /// The image, and the credentials that it was had with.
    async fn try_credentials(self) -> Result<(Image, Option<TrackedAuthConfig>), Error> {
        let candidates: Vec<_> = match self.credentials.is_empty() {
            true => vec![None],
            false => self.credentials.into_iter().map(Some).collect(),
        };
        let mut last_error = None;
        for candidate in candidates {
            let auth = candidate.as_ref().map(|candidate| candidate.auth.clone());
            let request = PullRequest { image: self.spec.clone(), auth, pod: self.pod.clone() };
            let pull = self.provider.pull_image(request, self.progress.clone());
            match runtime_operation("pull_image", pull).await {
                Ok(image) => return Ok((image, candidate)),
                // Other credentials may be the right ones.
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| Error::internal("no credentials were tried")))
    }
}
