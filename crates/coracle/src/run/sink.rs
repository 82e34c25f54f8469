//! Where statuses and Events go without an apiserver: to the session.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::ports::{ApiError, EventRecord, EventSink, EventType, StatusSink, StatusUpdate};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc;

/// Something that happened to a pod.
#[derive(Debug)]
pub(super) enum News {
    /// Its status changed.
    Status(Arc<Pod>, Arc<PodStatus>),
    /// Something that its status does not show keeps it from starting.
    Obstacle {
        /// The pod's UID.
        uid: String,
        /// One line.
        message: String,
    },
}

/// Reasons of Events that stand for something which no container's status shows.
const OBSTACLES: [&str; 2] = ["FailedMount", "FailedCreatePodSandBox"];

/// Hands on what happens.
pub(super) struct SessionSink {
    news: mpsc::Sender<News>,
}

impl SessionSink {
    /// Hands it on to `news`.
    pub(super) fn new(news: mpsc::Sender<News>) -> Self {
        Self { news }
    }
}

#[async_trait]
impl StatusSink for SessionSink {
    async fn patch_status(&self, update: &StatusUpdate) -> Result<(), ApiError> {
        let news = News::Status(update.pod.clone(), update.status.clone());
        // A session that has ended wants to know nothing more.
        let _ = self.news.send(news).await;
        Ok(())
    }

    async fn delete_pod(&self, _pod: &Pod) -> Result<(), ApiError> {
        Ok(())
    }
}

impl EventSink for SessionSink {
    fn record(&self, event: EventRecord) {
        tracing::info!(reason = %event.reason, message = %event.message, "event");
        if event.event_type == EventType::Warning && OBSTACLES.contains(&&*event.reason) {
            let uid = event.object.uid.unwrap_or_default();
            // The same obstacle is reported again as long as it stands.
            let _ = self.news.try_send(News::Obstacle { uid, message: event.message });
        }
    }
}
