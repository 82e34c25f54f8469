//! Where this node's pods come from (upstream: `makePodSourceConfig`).

use std::sync::Arc;

use coracle_cluster::ApiserverSource;
use coracle_core::config::FileSource;
use coracle_core::ports::PodSource;

use super::manifest_url::ManifestUrl;
use crate::config::Resolved;

/// The apiserver, and the sources of static pods that are configured.
pub(super) fn pod_sources(
    resolved: &Resolved,
    apiserver: ApiserverSource,
) -> anyhow::Result<Vec<Arc<dyn PodSource>>> {
    let (config, node_name) = (&resolved.config, &resolved.flags.node_name);
    let mut sources: Vec<Arc<dyn PodSource>> = vec![Arc::new(apiserver)];
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
