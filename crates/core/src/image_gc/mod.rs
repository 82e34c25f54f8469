//! Removing images that nobody uses, when their disk is full or they are old (upstream:
//! `pkg/kubelet/images/image_gc_manager.go`).

mod error;
mod records;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ImageSpec, Provider};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock;
use crate::pod_cache::{PodCache, ProviderName};
use crate::ports::EventType;
use crate::providers::Providers;
use crate::pull_manager::PullManager;
use crate::recorder::{Recorder, reason};
pub use error::ImageGcError;
use records::{EvictionInfo, Records};

/// How often images are looked at (`ImageGCPeriod`).
const IMAGE_GC_PERIOD: Duration = Duration::from_secs(5 * 60);

/// When images are removed (`ImageGCPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGcPolicy {
    /// `imageGCHighThresholdPercent`: a disk as full as this is made emptier.
    pub high_threshold_percent: u8,
    /// `imageGCLowThresholdPercent`: to this, if possible.
    pub low_threshold_percent: u8,
    /// `imageMinimumGCAge`: an image that was seen first less than this ago stays, however full the disk is.
    pub min_age: Duration,
    /// `imageMaximumGCAge`: an image that nobody has used for longer goes, however empty the disk is; zero is never.
    pub max_age: Duration,
}

impl ImageGcPolicy {
    /// None is removed by itself, neither for space nor for age.
    pub const ON_DEMAND: Self = Self {
        high_threshold_percent: 100,
        low_threshold_percent: 99,
        min_age: Duration::from_secs(120),
        max_age: Duration::ZERO,
    };
}

/// Removes images, of each provider for itself.
pub struct ImageGcManager {
    providers: Providers,
    /// Whose containers use which images.
    cache: Arc<PodCache>,
    recorder: Recorder,
    /// What Events are about.
    node: ObjectReference,
    policy: ImageGcPolicy,
    records: Mutex<HashMap<ProviderName, Records>>,
    /// Who remembers what images were pulled with.
    pull_manager: Option<Arc<PullManager>>,
}

impl ImageGcManager {
    /// Looks after the images of `providers`; `cache` knows their containers.
    pub fn new(
        providers: Providers,
        cache: Arc<PodCache>,
        recorder: Recorder,
        node: ObjectReference,
        policy: ImageGcPolicy,
    ) -> Self {
        let (records, pull_manager) = (Mutex::default(), None);
        Self { providers, cache, recorder, node, policy, records, pull_manager }
    }

    /// Tells `pull_manager` of images that are gone (`NewImageGCManager`'s post-GC hooks).
    pub fn with_pull_manager(self, pull_manager: Option<Arc<PullManager>>) -> Self {
        Self { pull_manager, ..self }
    }

    /// Removes images now and then, until it is dropped. A provider that hangs holds up nobody else's.
    pub async fn run(&self) {
        let of_providers = self.providers.iter().map(|registered| self.run_for(&*registered.provider));
        tokio::join!(futures::future::join_all(of_providers), self.run_pruning());
    }

    /// Removes all images that no container uses and that are old enough (`DeleteUnusedImages`).
    pub async fn delete_unused_images(&self) {
        for registered in self.providers.iter() {
            let provider = &*registered.provider;
            if !self.cache.is_synced(provider.name()) {
                continue;
            }
            let now = Instant::now();
            let freed = match self.images_in_eviction_order(provider, now).await {
                Ok(images) => self.free_space(provider, images, u64::MAX, now).await,
                Err(error) => Err(error),
            };
            match freed {
                Ok(freed) => info!(provider = provider.name(), freed, "removed unused images"),
                Err(error) => warn!(provider = provider.name(), %error, "removing unused images failed"),
            }
        }
    }

    async fn run_for(&self, provider: &dyn Provider) {
        let mut period = tokio::time::interval(IMAGE_GC_PERIOD);
        let mut failed_before = false;
        loop {
            period.tick().await;
            let result = self.garbage_collect(provider).await;
            if let Err(error) = &result {
                warn!(provider = provider.name(), %error, "removing unused images failed");
                // Once may be bad luck.
                if failed_before {
                    self.warning(reason::IMAGE_GC_FAILED, error.to_string());
                }
            }
            failed_before = result.is_err();
        }
    }

    async fn run_pruning(&self) {
        let mut period = tokio::time::interval(IMAGE_GC_PERIOD);
        loop {
            period.tick().await;
            self.prune_pull_records(clock::now()).await;
        }
    }

    /// Forgets what images were pulled with that no provider has, if all providers say what they have.
    async fn prune_pull_records(&self, began: Timestamp) {
        let Some(pull_manager) = &self.pull_manager else { return };
        let mut ids = HashSet::new();
        for registered in self.providers.iter() {
            let Ok(images) = registered.provider.list_images().await else { return };
            ids.extend(images.into_iter().map(|image| image.id));
        }
        pull_manager.prune_unknown_records(ids, began).await;
    }

    /// Applies the policy to the images of one provider (`GarbageCollect`).
    async fn garbage_collect(&self, provider: &dyn Provider) -> Result<(), ImageGcError> {
        if !self.cache.is_synced(provider.name()) {
            // Nobody knows yet which images are in use.
            return Ok(());
        }
        let now = Instant::now();
        let images = self.images_in_eviction_order(provider, now).await?;
        let images = self.free_old_images(provider, images, now).await?;

        let file_system = provider.image_fs_info().await?.into_iter().next().unwrap_or_default();
        let capacity = file_system.capacity_bytes;
        let available = file_system.available_bytes.min(capacity);
        if capacity == 0 {
            self.warning(reason::INVALID_DISK_CAPACITY, ImageGcError::InvalidCapacity.to_string());
            return Err(ImageGcError::InvalidCapacity);
        }
        let usage_percent = 100 - percent(available, capacity);
        if usage_percent < u64::from(self.policy.high_threshold_percent) {
            return Ok(());
        }
        let wanted_free = share(capacity, 100 - u64::from(self.policy.low_threshold_percent));
        let to_free = wanted_free.saturating_sub(available);
        info!(provider = provider.name(), usage_percent, to_free, "the disk of images is too full");
        let freed = self.free_space(provider, images, to_free, now).await?;
        if freed < to_free {
            let error = ImageGcError::NotEnough { usage_percent, capacity, freed };
            self.warning(reason::FREE_DISK_SPACE_FAILED, error.to_string());
            return Err(error);
        }
        Ok(())
    }

    /// Looks at what there is, and answers what may go, the one that was used longest ago first.
    async fn images_in_eviction_order(
        &self,
        provider: &dyn Provider,
        now: Instant,
    ) -> Result<Vec<EvictionInfo>, ImageGcError> {
        let images = provider.list_images().await?;
        let pods = self.cache.all();
        let containers = pods.iter().flat_map(|pod| &pod.containers);
        let in_use: Vec<&str> =
            containers.filter(|c| c.provider == provider.name()).map(|c| c.image_id.as_str()).collect();
        let mut records = self.records.lock();
        let records = records.entry(provider.name()).or_default();
        records.detect_images(&images, &in_use, now);
        Ok(records.in_eviction_order(now))
    }

    /// Removes what nobody has used for too long, and answers the rest. Failures are told once all is tried.
    async fn free_old_images(
        &self,
        provider: &dyn Provider,
        images: Vec<EvictionInfo>,
        now: Instant,
    ) -> Result<Vec<EvictionInfo>, ImageGcError> {
        let max_age = self.policy.max_age;
        if max_age.is_zero() {
            return Ok(images);
        }
        let (old, rest): (Vec<_>, Vec<_>) =
            images.into_iter().partition(|image| image.unused_for(now) > max_age);
        let mut errors = Vec::new();
        for image in old {
            errors.extend(self.free_image(provider, &image).await.err());
        }
        if errors.is_empty() { Ok(rest) } else { Err(ImageGcError::TooOld { max_age, errors }) }
    }

    /// Removes images until so many bytes are free, and answers how many are (`freeSpace`).
    async fn free_space(
        &self,
        provider: &dyn Provider,
        images: Vec<EvictionInfo>,
        to_free: u64,
        now: Instant,
    ) -> Result<u64, ImageGcError> {
        let (mut freed, mut errors) = (0, Vec::new());
        // A young one may have been fetched for a container that is about to be made.
        for image in images.iter().filter(|image| image.age(now) >= self.policy.min_age) {
            match self.free_image(provider, image).await {
                Ok(()) => freed += image.record.size,
                Err(error) => errors.push(error),
            }
            if freed >= to_free {
                break;
            }
        }
        if errors.is_empty() { Ok(freed) } else { Err(ImageGcError::Space { to_free, freed, errors }) }
    }

    async fn free_image(
        &self,
        provider: &dyn Provider,
        image: &EvictionInfo,
    ) -> coracle_provider::Result<()> {
        info!(
            provider = provider.name(),
            image = image.id,
            size = image.record.size,
            "removing an unused image"
        );
        provider.remove_image(&ImageSpec::new(&image.id)).await?;
        if let Some(records) = self.records.lock().get_mut(provider.name()) {
            records.forget(&image.id);
        }
        Ok(())
    }

    fn warning(&self, reason: &'static str, message: String) {
        self.recorder.event(self.node.clone(), EventType::Warning, reason, message);
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(u64::MAX)
}

fn share(whole: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}
