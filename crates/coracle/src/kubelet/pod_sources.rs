//! Where this node's pods come from (upstream: `makePodSourceConfig`).

use std::sync::Arc;

use coracle_core::config::FileSource;
use coracle_core::ports::PodSource;

use super::clients::Clients;
use super::manifest_url::ManifestUrl;
use crate::config::Resolved;

/// Refuses a node that no pod would ever come to: most likely, something was forgotten.
pub(super) fn check_pod_sources(resolved: &Resolved) -> anyhow::Result<()> {
    let Resolved { flags, config, .. } = resolved;
    let has_any =
        flags.kubeconfig.is_some() || config.static_pod_path.is_some() || !config.static_pod_url.is_empty();
    anyhow::ensure!(
        has_any,
        "this node would have no pods: give --kubeconfig, or staticPodPath or staticPodURL for a node without a cluster; \
         `coracle run` runs pods of a file"
    );
    Ok(())
}

/// The apiserver unless the node stands alone, and the sources of static pods that are configured.
pub(super) fn pod_sources(resolved: &Resolved, clients: &Clients) -> anyhow::Result<Vec<Arc<dyn PodSource>>> {
    let (config, node_name) = (&resolved.config, &resolved.flags.node_name);
    let mut sources: Vec<Arc<dyn PodSource>> = clients.pod_source.iter().cloned().collect();
    if let Some(path) = &config.static_pod_path {
        let period = config.file_check_frequency;
        sources.push(Arc::new(FileSource::new(path.clone(), node_name.clone(), period)));
    }
    if !config.static_pod_url.is_empty() {
        sources.push(Arc::new(ManifestUrl::new(
            config.static_pod_url.clone(),
            &config.static_pod_url_header.0,
            node_name.clone(),
            config.http_check_frequency,
        )?));
    }
    Ok(sources)
}
