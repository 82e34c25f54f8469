//! Registration of the Node (upstream: `registerWithAPIServer`, `tryRegisterWithAPIServer`).

use std::time::Duration;

use coracle_core::clock;
use coracle_core::nodestatus::{NodeEvent, update_default_labels, update_node};
use coracle_core::ports::ApiError;
use k8s_openapi::api::core::v1::Node;
use tracing::{info, warn};

use super::patch::node_status_patch;
use crate::backoff::Backoff;
use crate::client::ApiClient;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);

/// Creates the Node, or takes over the one that exists. Tries until it succeeds. Gives the Node as it is at the apiserver,
/// and what users should hear of.
pub(super) async fn register(client: &ApiClient, desired: impl Fn() -> Node) -> (Node, Vec<NodeEvent>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let desired = desired();
        let name = desired.metadata.name.as_deref().unwrap_or_default();
        match try_register(client, &desired).await {
            Ok(registered) => {
                info!(node = name, "node registered");
                return registered;
            }
            Err(error) => warn!(node = name, "node not registered: {}", advise(&error)),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

async fn try_register(client: &ApiClient, desired: &Node) -> Result<(Node, Vec<NodeEvent>), ApiError> {
    let mut node = Node { status: None, ..desired.clone() };
    let events = update_node(&mut node, desired, clock::now());
    match client.create(None, &node).await {
        Ok(node) => Ok((node, events)),
        Err(ApiError::Conflict(_)) => Ok((take_over(client, desired).await?, Vec::new())),
        // Who may not create a Node may still use one that somebody else created.
        Err(refused @ ApiError::Forbidden(_)) => match take_over(client, desired).await {
            Ok(node) => Ok((node, Vec::new())),
            Err(ApiError::NotFound(_)) => Err(refused),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn take_over(client: &ApiClient, desired: &Node) -> Result<Node, ApiError> {
    let name = desired.metadata.name.as_deref().unwrap_or_default();
    let existing: Node = client.get(None, name).await?;
    let mut updated = existing.clone();
    if !update_default_labels(&mut updated, desired) {
        return Ok(existing);
    }
    let patch = node_status_patch(&existing, &updated).map_err(|e| ApiError::Invalid(e.to_string()))?;
    client.patch_status(None, name, &patch).await
}

/// What the NodeRestriction admission plugin refuses is refused for ever, unless somebody changes the configuration.
fn advise(error: &ApiError) -> String {
    let message = error.to_string();
    if message.contains("is not allowed to set the following labels")
        || message.contains("is not allowed to modify labels")
    {
        return format!("{message}; take them out of --node-labels and let an administrator set them");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_labels_come_with_advice() {
        let refused = ApiError::Forbidden(
            "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: \
             node-restriction.kubernetes.io/x"
                .to_owned(),
        );
        assert!(advise(&refused).ends_with(
            "node-restriction.kubernetes.io/x; take them out of --node-labels and let an administrator set them"
        ));
        assert_eq!(advise(&ApiError::Unavailable("down".to_owned())), "down");
    }
}
