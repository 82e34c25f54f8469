//! In which order the containers of a pod stop (upstream: `kuberuntime_termination_order.go`).

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::pod::{PodExt, is_restartable_init_container};

/// Lets sidecars stop after all main containers, and each after those that come later in the spec
/// (`terminationOrdering`).
pub(super) struct TerminationOrder {
    /// Cancelled once the container of this name has ended.
    terminated: HashMap<String, CancellationToken>,
    /// What a container waits for.
    prerequisites: HashMap<String, Vec<CancellationToken>>,
}

impl TerminationOrder {
    /// The order among the containers that run.
    pub(super) fn new(pod: &Pod, running: &[&str]) -> Self {
        let token = |name: &str| {
            let token = CancellationToken::new();
            if !running.contains(&name) {
                token.cancel();
            }
            token
        };
        let mut terminated = HashMap::new();
        let mut before = Vec::new();
        for container in pod.containers() {
            let token = token(&container.name);
            before.push(token.clone());
            terminated.insert(container.name.clone(), token);
        }
        let mut prerequisites = HashMap::new();
        for sidecar in pod.init_containers().iter().rev().filter(|c| is_restartable_init_container(c)) {
            let token = token(&sidecar.name);
            prerequisites.insert(sidecar.name.clone(), before.clone());
            before.push(token.clone());
            terminated.insert(sidecar.name.clone(), token);
        }
        Self { terminated, prerequisites }
    }

    /// Waits until everything has ended that must end before this container, at the latest until the deadline.
    pub(super) async fn wait_for_turn(&self, name: &str, deadline: Instant) {
        let all = async {
            for token in self.prerequisites.get(name).into_iter().flatten() {
                token.cancelled().await;
            }
        };
        // When time is up it is everybody's turn.
        let _ = timeout_at(deadline, all).await;
    }

    /// A container has ended.
    pub(super) fn container_terminated(&self, name: &str) {
        if let Some(token) = self.terminated.get(name) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use serde_json::json;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn pod() -> Pod {
        let sidecar = |name: &str| json!({"name": name, "image": "i", "restartPolicy": "Always"});
        serde_json::from_value(json!({"spec": {
            "initContainers": [sidecar("init-1"), {"name": "once", "image": "i"}, sidecar("init-2"), sidecar("init-3")],
            "containers": [{"name": "main-1", "image": "i"}, {"name": "main-2", "image": "i"}],
        }}))
        .unwrap()
    }

    /// When each container gets its turn, if each then takes so many seconds to end.
    async fn turns(containers: &[(&str, u64)]) -> Vec<u64> {
        let running: Vec<&str> = containers.iter().map(|(name, _)| *name).collect();
        let order = TerminationOrder::new(&pod(), &running);
        let start = Instant::now();
        let stop = |(name, seconds): (&'static str, u64)| {
            let order = &order;
            async move {
                order.wait_for_turn(name, start + GRACE).await;
                let turn = start.elapsed().as_secs();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                order.container_terminated(name);
                turn
            }
        };
        let owned: Vec<(&'static str, u64)> =
            containers.iter().map(|(n, s)| (&*Box::leak((*n).to_owned().into_boxed_str()), *s)).collect();
        join_all(owned.into_iter().map(stop)).await
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_stop_after_the_main_containers_in_reverse_order() {
        let all = [("main-1", 3), ("main-2", 5), ("init-1", 1), ("init-2", 1), ("init-3", 1)];
        assert_eq!(turns(&all).await, [0, 0, 7, 6, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_does_not_run() {
        assert_eq!(turns(&[("main-2", 2), ("init-1", 1), ("init-3", 1)]).await, [0, 3, 2]);
        assert_eq!(turns(&[("init-1", 1)]).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_grace_period() {
        assert_eq!(turns(&[("main-1", 100), ("init-2", 1), ("init-1", 1)]).await, [0, 30, 30]);
    }
}
