//! The node's heartbeat (upstream: component-helpers `apimachinery/lease/controller.go`).

use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::ApiError;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use rand::Rng;
use tracing::warn;

use super::controller::heartbeat_in_time;
use super::watch::NodeWatch;
use crate::backoff::Backoff;
use crate::client::ApiClient;

const NAMESPACE: &str = "kube-node-lease";

/// A lease is renewed four times in its life, and the pauses are longer by up to 4 %.
const RENEW_FRACTION: f64 = 0.25;
const JITTER: f64 = 0.04;

const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);

/// Keeps the lease of this node in `kube-node-lease`: as long as it is renewed, the node counts as alive.
pub struct LeaseController {
    client: ApiClient,
    node: Arc<NodeWatch>,
    duration: Duration,
    /// The lease as our last write left it.
    latest: Option<Lease>,
}

impl LeaseController {
    /// A controller of the lease of the Node that `node` watches; `duration` is `nodeLeaseDurationSeconds`.
    pub fn new(client: &ApiClient, node: Arc<NodeWatch>, duration: Duration) -> Self {
        Self { client: client.unlimited(), node, duration, latest: None }
    }

    /// Renews the lease from the time that the Node exists. Ends when it is dropped; the lease then runs out.
    pub async fn run(mut self) {
        loop {
            self.sync().await;
            let jitter = rand::rng().random_range(0.0..JITTER);
            tokio::time::sleep(self.duration.mul_f64(RENEW_FRACTION * (1.0 + jitter))).await;
        }
    }

    async fn sync(&mut self) {
        // Nobody else writes the lease: what we wrote last is what there is, without a look.
        if let Some(latest) = self.latest.take()
            && self.renew(latest).await
        {
            return;
        }
        // The lease belongs to the Node, by its UID.
        self.node.registered().await;
        let (lease, created) = self.ensure().await;
        if created {
            self.latest = Some(lease);
        } else {
            self.renew(lease).await;
        }
    }

    async fn renew(&mut self, mut base: Lease) -> bool {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for attempt in 1..=TRIES {
            let lease = self.renewed(base.clone());
            match self.in_time(self.client.replace(Some(NAMESPACE), self.node.name(), &lease)).await {
                Ok(lease) => {
                    self.latest = Some(lease);
                    return true;
                }
                Err(ApiError::Conflict(_)) => base = self.ensure().await.0,
                Err(ApiError::NotFound(_)) => return false,
                Err(error) => {
                    warn!(node = self.node.name(), attempt, "node lease not renewed: {error}");
                    if attempt == 2 {
                        self.reconnect().await;
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        false
    }

    /// The lease that exists, or a new one, and whether it is new. Tries until there is one.
    async fn ensure(&self) -> (Lease, bool) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match self.in_time(self.try_ensure()).await {
                Ok(lease) => return lease,
                Err(error) => warn!(node = self.node.name(), "no node lease: {error}"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn try_ensure(&self) -> Result<(Lease, bool), ApiError> {
        match self.client.get(Some(NAMESPACE), self.node.name()).await {
            Ok(lease) => Ok((lease, false)),
            Err(ApiError::NotFound(_)) => {
                let lease = self.renewed(self.new_lease());
                Ok((self.client.create(Some(NAMESPACE), &lease).await?, true))
            }
            Err(error) => Err(error),
        }
    }

    fn new_lease(&self) -> Lease {
        let name = self.node.name().to_owned();
        Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec { holder_identity: Some(name), ..LeaseSpec::default() }),
        }
    }

    fn renewed(&self, mut lease: Lease) -> Lease {
        let spec = lease.spec.get_or_insert_default();
        spec.lease_duration_seconds = i32::try_from(self.duration.as_secs()).ok();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let owners = lease.metadata.owner_references.get_or_insert_default();
        if owners.is_empty() {
            owners.extend(self.node.node().and_then(|node| owner(&node)));
        }
        lease
    }

    /// A connection can die without a word; a new one costs less than the lease. New certificates come with it.
    async fn reconnect(&self) {
        if let Err(error) = self.client.reload().await {
            warn!("still using the old connections: {error}");
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        heartbeat_in_time(self.duration.mul_f64(RENEW_FRACTION), call).await
    }
}

fn owner(node: &Node) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone()?,
        uid: node.metadata.uid.clone()?,
        ..OwnerReference::default()
    })
}
