//! This node's own Node object.

use std::sync::Arc;

use coracle_core::ports::ApiError;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::client::ApiClient;
use crate::watch::{Change, Watch};

/// The Node as the apiserver last showed it. Dropping this ends the watch.
pub struct NodeWatch {
    client: Arc<ApiClient>,
    name: String,
    seen: watch::Receiver<Seen>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, Default)]
struct Seen {
    synced: bool,
    node: Option<Arc<Node>>,
}

impl NodeWatch {
    /// Starts to watch the Node of this name. Needs a tokio runtime.
    pub fn start(client: Arc<ApiClient>, name: &str) -> Arc<Self> {
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(follow(Arc::clone(&client), name.to_owned(), sender));
        Arc::new(Self { client, name: name.to_owned(), seen, _task: AbortOnDropHandle::new(task) })
    }

    /// The name of the Node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Node; none before it was seen, or while it does not exist.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.seen.borrow().node.clone()
    }

    /// The Node as the apiserver has it now, which the watch may not show yet; none if it does not exist.
    pub async fn fetch(&self) -> Result<Option<Arc<Node>>, ApiError> {
        match self.client.get(None, &self.name).await {
            Ok(node) => Ok(Some(Arc::new(node))),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the apiserver has said for the first time whether there is such a Node.
    pub async fn synced(&self) {
        // The sender is gone only when the runtime goes down, and this future with it.
        let _ = self.seen.clone().wait_for(|seen| seen.synced).await;
    }

    /// Waits until the Node exists, and gives it.
    pub async fn registered(&self) -> Arc<Node> {
        let mut seen = self.seen.clone();
        loop {
            if let Some(node) = seen.borrow_and_update().node.clone() {
                return node;
            }
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn follow(client: Arc<ApiClient>, name: String, seen: watch::Sender<Seen>) {
    let mut nodes = Watch::<Node>::new(&client, None, format!("metadata.name={name}"));
    loop {
        let node = match nodes.next().await {
            Change::Set(nodes) => nodes.into_iter().next(),
            Change::Apply(node) => Some(node),
            Change::Delete(_) => None,
        };
        let node = node.map(|mut node| {
            node.metadata.managed_fields = None;
            Arc::new(node)
        });
        seen.send_replace(Seen { synced: true, node });
    }
}
