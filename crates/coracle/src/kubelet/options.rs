//! From the resolved configuration to what each part is made with.

use std::net::IpAddr;
use std::time::Duration;

use coracle_cluster::{ClientOptions, EventOptions, NodeOptions};
use coracle_core::image_gc::ImageGcPolicy;
use coracle_core::kubelet::KubeletOptions;
use coracle_core::kuberuntime::{
    DnsConfigurer, ImageManagerOptions, LinuxOptions, RuntimeOptions, SeccompOptions,
};
use coracle_core::logs::LogRotatePolicy;
use coracle_core::machine::MachineInfo;
use coracle_core::nodestatus::NodeSettings;
use coracle_core::pod_workers::PodWorkersOptions;
use k8s_openapi::api::core::v1::Taint;

use super::containers::Containers;
use super::reserved::reserved;
use crate::config::{KubeletConfiguration, Resolved, eviction};
use crate::version;

/// What a node that runs nothing but WebAssembly says its architecture is.
const WASM_ARCHITECTURE: &str = "wasm32-wasi";
/// The first wait after a crash, unless the longest is shorter.
const CRASH_LOOP_INITIAL: Duration = Duration::from_secs(10);

/// Where a root folder has the profiles of seccomp that pods name.
const SECCOMP_FOLDER: &str = "seccomp";

/// `kubeAPIQPS` where nobody set it.
const UPSTREAM_QPS: u32 = 50;

/// The kubelet's own.
pub(super) fn kubelet_options(
    resolved: &Resolved,
    images: ImageManagerOptions,
    node_ips: Vec<IpAddr>,
    memory_capacity: u64,
) -> KubeletOptions {
    let config = &resolved.config;
    let crash_loop_max = config.crash_loop_back_off.max_container_restart_period;
    KubeletOptions {
        node_name: resolved.flags.node_name.clone(),
        max_pods: usize::try_from(config.max_pods).unwrap_or(usize::MAX),
        workers: PodWorkersOptions { resync_interval: config.sync_frequency, ..PodWorkersOptions::default() },
        dns: DnsConfigurer {
            cluster_dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
            cluster_domain: config.cluster_domain.clone(),
            resolver_config: config.resolv_conf.clone(),
            in_cluster: true,
        },
        runtime: RuntimeOptions {
            pod_logs_dir: config.pod_logs_dir.clone(),
            crash_loop_initial: CRASH_LOOP_INITIAL.min(crash_loop_max),
            crash_loop_max,
            gc: resolved.flags.container_gc.clone(),
            linux: LinuxOptions {
                memory_capacity,
                has_apparmor: coracle_node::has_apparmor(),
                seccomp: SeccompOptions {
                    profile_root: resolved.flags.root_dir.join(SECCOMP_FOLDER),
                    default_to_runtime: config.seccomp_default,
                },
            },
            ..RuntimeOptions::default()
        },
        images,
        image_gc: image_gc(config),
        log_rotation: log_rotation(config),
        eviction: eviction::known(config, resolved.flags.allocatable_ignore_eviction),
        volume_stats_period: config.volume_stats_agg_period,
        node_ips,
    }
}

/// None where no image is ever removed (`StartGarbageCollection`).
fn image_gc(config: &KubeletConfiguration) -> Option<ImageGcPolicy> {
    let policy = ImageGcPolicy {
        high_threshold_percent: config.image_gc_high_threshold_percent,
        low_threshold_percent: config.image_gc_low_threshold_percent,
        min_age: config.image_minimum_gc_age,
        max_age: config.image_maximum_gc_age,
    };
    (policy.high_threshold_percent < 100 || !policy.max_age.is_zero()).then_some(policy)
}

/// None with a negative size.
fn log_rotation(config: &KubeletConfiguration) -> Option<LogRotatePolicy> {
    Some(LogRotatePolicy {
        max_size: u64::try_from(config.container_log_max_size).ok()?,
        max_files: config.container_log_max_files,
        max_workers: config.container_log_max_workers,
        monitoring_period: config.container_log_monitor_interval,
    })
}

/// The apiserver's client. A limit holds if somebody chose it: upstream's default of 50 calls a second belongs to a
/// client without priority and fairness on the other side, and here would only queue what a pod's start waits for.
pub(super) fn client_options(config: &KubeletConfiguration) -> ClientOptions {
    let is_chosen = config.kube_api_qps != UPSTREAM_QPS;
    ClientOptions {
        qps: is_chosen.then(|| f64::from(config.kube_api_qps)),
        burst: config.kube_api_burst,
        ..ClientOptions::default()
    }
}

/// The Event writer's.
pub(super) fn event_options(config: &KubeletConfiguration) -> EventOptions {
    EventOptions { qps: f64::from(config.event_record_qps), burst: config.event_burst }
}

/// The Node controller's.
pub(super) fn node_options(config: &KubeletConfiguration) -> NodeOptions {
    NodeOptions {
        register: config.register_node,
        update_frequency: config.node_status_update_frequency,
        report_frequency: config.node_status_report_frequency,
    }
}

/// What the scheduler and the apiserver may send here, of what they ask a node for (upstream's
/// `nodedeclaredfeatures`). What is not there is not declared.
const DECLARED_FEATURES: [&str; 3] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// What the Node object says by configuration.
pub(super) fn node_settings(
    resolved: &Resolved,
    containers: Option<&Containers>,
    machine: &MachineInfo,
) -> NodeSettings {
    let config = &resolved.config;
    // An empty list is a choice, too: no taint.
    let is_chosen = resolved.effective.get("registerWithTaints").is_some_and(|taints| !taints.is_null());
    let taints = if is_chosen {
        config.register_with_taints.clone()
    } else if containers.is_some() {
        Vec::new()
    } else {
        vec![wasm_taint()]
    };
    NodeSettings {
        name: resolved.flags.node_name.clone(),
        hostname: resolved.flags.node_name.clone(),
        architecture: containers.map_or(WASM_ARCHITECTURE.to_owned(), |_| machine.architecture.clone()),
        labels: resolved.flags.node_labels.clone(),
        taints,
        max_pods: config.max_pods,
        pods_per_core: config.pods_per_core,
        provider_id: Some(config.provider_id.clone()).filter(|id| !id.is_empty()),
        kubelet_version: version::kubelet_version(),
        container_runtime_version: containers
            .map_or(format!("wasm://{}", env!("CARGO_PKG_VERSION")), |containers| containers.version.clone()),
        kubelet_port: config.port,
        declared_features: DECLARED_FEATURES.map(str::to_owned).into(),
        controller_managed_attach: true,
        reserved: reserved(resolved, machine),
        max_images: usize::try_from(config.node_status_max_images).ok(),
        ..NodeSettings::default()
    }
}

/// Keeps pods away that did not ask for WebAssembly: nothing else can run here.
fn wasm_taint() -> Taint {
    Taint {
        key: "kubernetes.io/arch".to_owned(),
        value: Some(WASM_ARCHITECTURE.to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    }
}
