//! Health of each provider (upstream: `pkg/kubelet/runtime.go`, where it is one for the whole node).

use std::collections::BTreeMap;

use coracle_provider::RuntimeStatus;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::pleg::RELIST_THRESHOLD;
use crate::pod_cache::ProviderName;

/// What is known about the health of the providers.
#[derive(Debug, Default)]
pub struct RuntimeState {
    providers: RwLock<BTreeMap<ProviderName, ProviderState>>,
}

#[derive(Debug, Default)]
struct ProviderState {
    /// Why containers cannot be started; none if they can.
    runtime_error: Option<String>,
    /// Why pods get no network; none if they do.
    network_error: Option<String>,
    /// When the last list succeeded.
    last_relist: Option<Instant>,
}

impl RuntimeState {
    /// Adds a provider that has not been heard of yet.
    pub fn register(&self, provider: ProviderName) {
        let state =
            ProviderState { runtime_error: Some("has not answered yet".to_owned()), ..Default::default() };
        self.providers.write().entry(provider).or_insert(state);
    }

    /// Takes a provider's status in, or that it could not be had. Says whether health changed.
    pub fn update(
        &self,
        provider: ProviderName,
        status: Result<&RuntimeStatus, &coracle_provider::Error>,
    ) -> bool {
        let (runtime_error, network_error) = match status {
            Ok(status) => (
                (!status.runtime_ready.status).then(|| status.runtime_ready.message.clone()),
                (!status.network_ready.status).then(|| status.network_ready.message.clone()),
            ),
            Err(error) => (Some(format!("runtime status check failed: {error}")), None),
        };
        let mut providers = self.providers.write();
        let state = providers.entry(provider).or_default();
        let changed = state.runtime_error != runtime_error || state.network_error != network_error;
        state.runtime_error = runtime_error;
        state.network_error = network_error;
        changed
    }

    /// A list of everything has succeeded.
    pub fn relisted(&self, provider: ProviderName) {
        self.providers.write().entry(provider).or_default().last_relist = Some(Instant::now());
    }

    /// Why pods of this provider cannot be synced now (`runtimeErrors`).
    pub fn runtime_error(&self, provider: ProviderName) -> Option<String> {
        self.providers.read().get(provider).and_then(ProviderState::error).map(|e| format!("{provider}: {e}"))
    }

    /// Why pods of this provider get no network now (`networkErrors`).
    pub fn network_error(&self, provider: ProviderName) -> Option<String> {
        self.providers.read().get(provider)?.network_error.as_ref().map(|e| format!("{provider}: {e}"))
    }

    /// Everything that is wrong, one line each, for the node's Ready condition.
    pub fn errors(&self) -> Vec<String> {
        let providers = self.providers.read();
        let lines = |(name, state): (&ProviderName, &ProviderState)| {
            let network = state.network_error.as_ref().map(|e| format!("network not ready: {e}"));
            state.error().into_iter().chain(network).map(|e| format!("{name}: {e}")).collect::<Vec<_>>()
        };
        providers.iter().flat_map(lines).collect()
    }
}

impl ProviderState {
    fn error(&self) -> Option<String> {
        if let Some(error) = &self.runtime_error {
            return Some(error.clone());
        }
        match self.last_relist {
            None => Some("PLEG is not healthy: pleg has yet to be successful".to_owned()),
            Some(at) if at.elapsed() > RELIST_THRESHOLD => Some(format!(
                "PLEG is not healthy: pleg was last seen active {:?} ago; threshold is {RELIST_THRESHOLD:?}",
                at.elapsed()
            )),
            Some(_) => None,
        }
    }
}
