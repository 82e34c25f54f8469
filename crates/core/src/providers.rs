//! The providers of this node, and which of them serves what.

use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{ArtifactKind, Provider};

use crate::pod_cache::ProviderName;

/// A provider as the pipeline uses it.
#[derive(Clone)]
pub struct RegisteredProvider {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The RuntimeClass handlers that it serves.
    pub handlers: Vec<String>,
    /// How often a full list audits what events said. Seconds for a provider whose events are only hints.
    pub relist_period: Duration,
}

/// All providers of the node. The first one serves pods without a RuntimeClass.
#[derive(Clone, Default)]
pub struct Providers {
    all: Arc<[RegisteredProvider]>,
}

impl Providers {
    /// Registers providers; the first is the default.
    pub fn new(all: Vec<RegisteredProvider>) -> Self {
        Self { all: all.into() }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &RegisteredProvider> {
        self.all.iter()
    }

    /// The provider for a RuntimeClass handler; the default one for none. A handler that nobody names is for who runs Linux
    /// containers: such a runtime has its own, and does not say which.
    pub fn for_handler(&self, handler: &str) -> Option<&Arc<dyn Provider>> {
        let found = if handler.is_empty() {
            self.all.first()
        } else {
            let named = self.all.iter().find(|p| p.handlers.iter().any(|h| h == handler));
            named.or_else(|| self.all.iter().find(|p| p.provider.runs() == ArtifactKind::RootFs))
        };
        found.map(|p| &p.provider)
    }

    /// The provider of this name.
    pub fn by_name(&self, name: ProviderName) -> Option<&Arc<dyn Provider>> {
        self.all.iter().map(|p| &p.provider).find(|p| p.name() == name)
    }

    /// The handlers that any of them serves.
    pub fn handlers(&self) -> impl Iterator<Item = &str> {
        self.all.iter().flat_map(|p| p.handlers.iter().map(String::as_str))
    }
}
