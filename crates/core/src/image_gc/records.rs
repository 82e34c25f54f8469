//! What is remembered of images: since when they are here, and when they were used last.

use std::collections::HashMap;
use std::time::Duration;

use coracle_provider::Image;
use tokio::time::Instant;

/// The images of one provider (`imageRecords`).
#[derive(Debug, Default)]
pub(super) struct Records(HashMap<String, ImageRecord>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageRecord {
    pub(super) first_detected: Instant,
    /// None as long as no container was seen with it.
    pub(super) last_used: Option<Instant>,
    pub(super) size: u64,
    pub(super) pinned: bool,
}

/// An image that may go.
#[derive(Clone, Debug)]
pub(super) struct EvictionInfo {
    pub(super) id: String,
    pub(super) record: ImageRecord,
}

impl Records {
    /// Takes a list of all images in (`detectImages`). `in_use` are the image ids that containers show.
    pub(super) fn detect_images(&mut self, images: &[Image], in_use: &[&str], now: Instant) {
        self.0.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let record = self.0.entry(image.id.clone()).or_insert(ImageRecord {
                first_detected: now,
                last_used: None,
                size: 0,
                pinned: false,
            });
            if in_use.iter().any(|id| is_called(image, id)) {
                record.last_used = Some(now);
            }
            record.size = image.size_bytes;
            record.pinned = image.pinned;
        }
    }

    /// Images that are neither in use now nor pinned: the one that was used longest ago first, and of those that never
    /// were, the one that has been here longest.
    pub(super) fn in_eviction_order(&self, now: Instant) -> Vec<EvictionInfo> {
        let idle = self.0.iter().filter(|(_, record)| !record.pinned && record.last_used != Some(now));
        let mut images: Vec<_> =
            idle.map(|(id, record)| EvictionInfo { id: id.clone(), record: *record }).collect();
        // The id only keeps chance out of it.
        images.sort_by(|a, b| {
            let key = |image: &EvictionInfo| (image.record.last_used, image.record.first_detected);
            key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
        });
        images
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }

    #[cfg(test)]
    pub(super) fn get(&self, id: &str) -> Option<ImageRecord> {
        self.0.get(id).copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl EvictionInfo {
    /// How long it has been here.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.record.first_detected)
    }

    /// How long nobody has used it. One that never was used has been idle since it came: upstream takes it for one that
    /// has been idle for ever.
    pub(super) fn unused_for(&self, now: Instant) -> Duration {
        now.duration_since(self.record.last_used.unwrap_or(self.record.first_detected))
    }
}

/// Whether a container that shows this image id runs the image: by its own id, or by a name with a digest.
fn is_called(image: &Image, id: &str) -> bool {
    image.id == id || image.repo_digests.iter().chain(&image.repo_tags).any(|name| name == id)
}
