//! Which pods may have an image that is present (upstream: `pkg/kubelet/images/pullmanager`).
//!
//! An image that was pulled with a secret is for pods that have that secret, and for those that can pull it themselves.
//! What was pulled with what outlives the process. Questions are answered from memory; changes are written to disk
//! first, on blocking threads.

mod policy;
mod records;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::clock;
use crate::credential_provider::{CredentialSource, TrackedAuthConfig};
use policy::trim_image_tag_digest;
pub use policy::{Allowlist, VerificationPolicy};
use records::{FileName, ImagePullCredentials, ImagePullSecret, ImagePulledRecord, Records};

/// How many secrets of an image are remembered because they were found to fit. Namespaces that come and go must not
/// make a record grow for ever (`writeRecordWhileMatchingLimit`).
const WRITE_RECORD_WHILE_MATCHING_LIMIT: usize = 100;

/// What is known of the images that the kubelet has pulled.
#[derive(Debug)]
pub struct PullManager {
    policy: VerificationPolicy,
    records: Records,
    memory: Mutex<Memory>,
    /// Held while files and memory change together. Taken on blocking threads, before `memory`.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By the image's id.
    pulled: HashMap<String, ImagePulledRecord>,
    /// Pulls under way, by the image as pods name it.
    pulling: BTreeMap<String, usize>,
    /// What the last process was pulling when it ended.
    left: HashSet<String>,
    /// Records that do not parse: what they are about has to be verified.
    unreadable: HashSet<FileName>,
}

impl PullManager {
    /// Reads what is known, in the kubelet's folder. Blocks.
    pub fn open(root: &Path, policy: VerificationPolicy) -> io::Result<Arc<Self>> {
        let records = Records::open(root)?;
        let ((pulled, unreadable), (left, unreadable_intents)) = (records.pulled()?, records.intents()?);
        let memory = Mutex::new(Memory {
            pulled: pulled.into_iter().map(|record| (record.image_ref.clone(), record)).collect(),
            pulling: BTreeMap::new(),
            left: left.into_iter().collect(),
            unreadable: unreadable.into_iter().chain(unreadable_intents).collect(),
        });
        Ok(Arc::new(Self { policy, records, memory, writing: Mutex::default() }))
    }

    /// A pull of `image` begins. Until its end is recorded nobody gets the image for its being there
    /// (`RecordPullIntent`).
    pub(crate) async fn record_pull_intent(self: &Arc<Self>, image: &str) -> io::Result<()> {
        let image = image.to_owned();
        self.change(move |this| {
            this.records.write_intent(&image)?;
            *this.memory.lock().pulling.entry(image).or_default() += 1;
            Ok(())
        })
        .await
    }

    /// A pull of `image` has given the image `image_ref`, with those credentials (`RecordImagePulled`). If that can't
    /// be written, the pull counts as one that never ended, which keeps the image from those who can't pull it.
    pub(crate) async fn record_image_pulled(
        self: &Arc<Self>,
        image: &str,
        image_ref: &str,
        credentials: Option<&TrackedAuthConfig>,
    ) {
        let (name, id) = (image.to_owned(), image_ref.to_owned());
        let credentials = ImagePullCredentials::of(credentials);
        let recorded = self
            .change(move |this| {
                this.write_pulled_record_if_changed(&name, &id, Some(credentials))?;
                this.end_intent(&name)
            })
            .await;
        if let Err(error) = recorded {
            tracing::error!(image, image_ref, %error, "cannot record that an image was pulled");
        }
    }

    /// A pull of `image` has failed (`RecordImagePullFailed`).
    pub(crate) async fn record_image_pull_failed(self: &Arc<Self>, image: &str) {
        let name = image.to_owned();
        if let Err(error) = self.change(move |this| this.end_intent(&name)).await {
            tracing::error!(image, %error, "cannot remove the record of a pull that failed");
        }
    }

    /// What the last process was pulling, as far as it has not been settled.
    pub(crate) fn left_intents(&self) -> Vec<String> {
        self.memory.lock().left.iter().cloned().collect()
    }

    /// What the last process was pulling is there: with whose credentials it was pulled is not known, so that everybody
    /// has to show their own (`initialize`).
    pub(crate) async fn settle_left_intent(self: &Arc<Self>, image: &str, image_ref: &str) {
        let (name, id) = (image.to_owned(), image_ref.to_owned());
        let settled = self
            .change(move |this| {
                this.write_pulled_record_if_changed(&name, &id, None)?;
                this.memory.lock().left.remove(&name);
                if !this.memory.lock().pulling.contains_key(&name) {
                    this.records.delete_intent(&name)?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = settled {
            tracing::error!(image, image_ref, %error, "cannot record that an image was pulled");
        }
    }

    /// Whether a pod that names `image`, which is present as `image_ref`, has to pull it to be let have it
    /// (`MustAttemptImagePull`). `credentials` is what the pod could pull with; it is only waited for if it matters.
    pub(crate) async fn must_attempt_image_pull(
        self: &Arc<Self>,
        image: &str,
        image_ref: &str,
        credentials: impl Future<Output = Vec<TrackedAuthConfig>>,
    ) -> bool {
        let (record, pulled_by_kubelet) = {
            let memory = self.memory.lock();
            let is_unreadable = |key: &str| memory.unreadable.contains(&FileName::of(key));
            if !memory.unreadable.is_empty() && [image, image_ref].into_iter().any(is_unreadable) {
                return true;
            }
            let record = memory.pulled.get(image_ref).cloned();
            let is_pulling = memory.pulling.contains_key(image) || memory.left.contains(image);
            let pulled_by_kubelet = record.is_some() || is_pulling;
            (record, pulled_by_kubelet)
        };
        if !self.policy.requires_verification(image, pulled_by_kubelet) {
            return false;
        }
        let known =
            record.and_then(|mut record| record.credential_mapping.remove(trim_image_tag_digest(image)));
        let Some(known) = known else { return true };
        if known.node_pods_accessible {
            return false;
        }
        if known.kubernetes_secrets.is_empty() && known.kubernetes_service_accounts.is_empty() {
            return true;
        }
        match known.fit(&credentials.await) {
            Fit::None => true,
            Fit::Known => false,
            Fit::New(secret) => {
                self.remember(image, image_ref, secret).await;
                false
            }
        }
    }

    /// Forgets images that are gone, if nothing was recorded of them since `until` (`PruneUnknownRecords`).
    pub async fn prune_unknown_records(self: &Arc<Self>, image_refs: HashSet<String>, until: Timestamp) {
        let pruned = self
            .change(move |this| {
                let unknown: Vec<String> = {
                    let memory = this.memory.lock();
                    let gone = |record: &&ImagePulledRecord| {
                        record.last_updated_time < until && !image_refs.contains(&record.image_ref)
                    };
                    memory.pulled.values().filter(gone).map(|record| record.image_ref.clone()).collect()
                };
                for image_ref in unknown {
                    this.records.delete_pulled(&image_ref)?;
                    this.memory.lock().pulled.remove(&image_ref);
                }
                Ok(())
            })
            .await;
        if let Err(error) = pruned {
            tracing::error!(%error, "cannot remove the records of images that are gone");
        }
    }

    async fn remember(self: &Arc<Self>, image: &str, image_ref: &str, secret: ImagePullSecret) {
        let (name, id) = (image.to_owned(), image_ref.to_owned());
        let credentials =
            ImagePullCredentials { kubernetes_secrets: vec![secret], ..ImagePullCredentials::default() };
        let written =
            self.change(move |this| this.write_pulled_record_if_changed(&name, &id, Some(credentials))).await;
        if let Err(error) = written {
            tracing::error!(image, image_ref, %error, "cannot record that a secret fits an image");
        }
    }

    /// Blocks.
    fn write_pulled_record_if_changed(
        &self,
        image: &str,
        image_ref: &str,
        credentials: Option<ImagePullCredentials>,
    ) -> io::Result<()> {
        let now = clock::now();
        let known = self.memory.lock().pulled.get(image_ref).cloned();
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| ImagePulledRecord::new(image_ref, now));
        let has_changed =
            credentials.is_some_and(|credentials| record.merge(trim_image_tag_digest(image), credentials));
        if !is_new && !has_changed {
            return Ok(());
        }
        record.last_updated_time = now;
        self.records.write_pulled(&record)?;
        let mut memory = self.memory.lock();
        memory.unreadable.remove(&FileName::of(image_ref));
        memory.pulled.insert(image_ref.to_owned(), record);
        Ok(())
    }

    /// Blocks.
    fn end_intent(&self, image: &str) -> io::Result<()> {
        let is_last = self.memory.lock().pulling.get(image).is_none_or(|pulls| *pulls <= 1);
        if is_last {
            // The count goes after the file, so that the two always agree.
            self.records.delete_intent(image)?;
            let mut memory = self.memory.lock();
            memory.pulling.remove(image);
            memory.left.remove(image);
            memory.unreadable.remove(&FileName::of(image));
        } else if let Some(pulls) = self.memory.lock().pulling.get_mut(image) {
            *pulls -= 1;
        }
        Ok(())
    }

    async fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&Self) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let this = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let _writing = this.writing.lock();
            change(&this)
        });
        changed.await.map_err(io::Error::other)?
    }
}

/// Whether a pod's credentials are among those that an image was pulled with.
enum Fit {
    None,
    Known,
    /// They are, and this secret should be remembered.
    New(ImagePullSecret),
}

impl ImagePullCredentials {
    /// `trackedToImagePullCreds`.
    fn of(credentials: Option<&TrackedAuthConfig>) -> Self {
        let mut recorded = Self::default();
        match credentials.map(|credentials| (&credentials.source, &credentials.hash)) {
            None | Some((CredentialSource::Node, _)) => recorded.node_pods_accessible = true,
            Some((CredentialSource::Secret(coordinates), hash)) => {
                let secret =
                    ImagePullSecret { coordinates: coordinates.clone(), credential_hash: hash.clone() };
                recorded.kubernetes_secrets.push(secret);
            }
            Some((CredentialSource::ServiceAccount(coordinates), _)) => {
                recorded.kubernetes_service_accounts.push(coordinates.clone());
            }
        }
        recorded
    }

    fn fit(&self, credentials: &[TrackedAuthConfig]) -> Fit {
        let has_room = self.kubernetes_secrets.len() < WRITE_RECORD_WHILE_MATCHING_LIMIT;
        for credentials in credentials {
            let CredentialSource::Secret(coordinates) = &credentials.source else { continue };
            let own = ImagePullSecret {
                coordinates: coordinates.clone(),
                credential_hash: credentials.hash.clone(),
            };
            for known in &self.kubernetes_secrets {
                let is_same_content =
                    !known.credential_hash.is_empty() && known.credential_hash == own.credential_hash;
                let is_same_secret = known.coordinates == own.coordinates;
                match (is_same_content, is_same_secret) {
                    (true, false) if has_room => return Fit::New(own),
                    (true, _) => return Fit::Known,
                    // The secret has changed since: that counts for as long as there is room to say so.
                    (false, true) if has_room => return Fit::New(own),
                    (false, _) => {}
                }
            }
        }
        // The audience does not matter, so there is one service account a pod.
        let account = credentials.iter().find_map(|credentials| match &credentials.source {
            CredentialSource::ServiceAccount(coordinates) => Some(coordinates),
            _ => None,
        });
        match account.is_some_and(|account| self.kubernetes_service_accounts.contains(account)) {
            true => Fit::Known,
            false => Fit::None,
        }
    }
}

impl ImagePulledRecord {
    /// Adds credentials under a name; says whether that changed anything (`pulledRecordMergeNewCreds`).
    fn merge(&mut self, name: &str, new: ImagePullCredentials) -> bool {
        let Some(known) = self.credential_mapping.get_mut(name) else {
            self.credential_mapping.insert(name.to_owned(), new);
            return true;
        };
        let before = known.clone();
        if known.node_pods_accessible {
            return false;
        }
        if new.node_pods_accessible {
            *known = new;
            return true;
        }
        for secret in new.kubernetes_secrets {
            known.kubernetes_secrets.retain(|other| other.coordinates != secret.coordinates);
            known.kubernetes_secrets.push(secret);
        }
        known.kubernetes_secrets.sort();
        for account in new.kubernetes_service_accounts {
            if !known.kubernetes_service_accounts.contains(&account) {
                known.kubernetes_service_accounts.push(account);
            }
        }
        known.kubernetes_service_accounts.sort();
        *known != before
    }
}
