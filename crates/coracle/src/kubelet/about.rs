//! What the kubelet's API tells of this agent besides its pods.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_core::machine::MachineInfo;
use coracle_node::{NodeUsageReader, is_own_address};
use coracle_server::{About, MetricsSource};
use serde_json::json;

use crate::config::Resolved;
use crate::{logging, version};

/// What `/logs/` shows.
const SYSTEM_LOGS: &str = "/var/log";

/// From the configuration, and what is known of the machine.
pub(super) fn about(resolved: &Resolved, machine: MachineInfo, metrics: Vec<MetricsSource>) -> About {
    let config = &resolved.config;
    let mut configuration = resolved.effective.clone();
    if let Some(configuration) = configuration.as_object_mut() {
        configuration.insert("kind".to_owned(), json!("KubeletConfiguration"));
        configuration.insert("apiVersion".to_owned(), json!("kubelet.config.k8s.io/v1beta1"));
    }
    About {
        node_name: resolved.flags.node_name.clone(),
        version: version::kubelet_version(),
        configuration,
        flags: resolved.flag_values.clone(),
        machine,
        node_usage: Arc::new(NodeUsageReader::new(&resolved.flags.root_dir)),
        metrics,
        is_own_address: Arc::new(is_own_address),
        profiling_is_off: !config.enable_profiling_handler,
        system_logs: config.enable_system_log_handler.then(|| PathBuf::from(SYSTEM_LOGS)),
        set_verbosity: config.enable_debug_flags_handler.then(|| Arc::new(logging::set_verbosity) as _),
        ..About::default()
    }
}
