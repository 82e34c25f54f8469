//! The part of `KubeletConfiguration` that this program uses, checked and with all defaults filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use coracle_core::quantity::Quantity;
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::duration;

/// `KubeletConfiguration` of kubelet.config.k8s.io/v1beta1. The names are upstream's, so its documentation applies.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletConfiguration {
    /// A file or a directory of static pods.
    #[serde(default, deserialize_with = "path")]
    pub static_pod_path: Option<PathBuf>,
    /// How often static pod files are read again without a change notice.
    #[serde(deserialize_with = "duration")]
    pub file_check_frequency: Duration,
    /// A URL of static pods; empty for none.
    #[serde(default, rename = "staticPodURL")]
    pub static_pod_url: String,
    /// Headers of the requests to that URL.
    #[serde(default, rename = "staticPodURLHeader")]
    pub static_pod_url_header: StaticPodUrlHeader,
    /// How often that URL is asked.
    #[serde(deserialize_with = "duration")]
    pub http_check_frequency: Duration,
    /// The longest time between two syncs of a pod.
    #[serde(deserialize_with = "duration")]
    pub sync_frequency: Duration,
    /// Where container logs are written; absolute.
    pub pod_logs_dir: PathBuf,

    /// Whether the HTTPS server runs.
    pub enable_server: bool,
    /// The address of the HTTPS server.
    pub address: IpAddr,
    /// The port of the HTTPS server.
    pub port: u16,
    /// The port of the server without authentication; 0 for none.
    #[serde(default)]
    pub read_only_port: u16,
    /// Whether logs, exec and the like are served.
    pub enable_debugging_handlers: bool,
    /// Whether the node's own logs are served.
    pub enable_system_log_handler: bool,
    /// Whether a request for profiles is told that there are none, or that they are switched off.
    pub enable_profiling_handler: bool,
    /// Whether the verbosity of the log can be changed over HTTP.
    pub enable_debug_flags_handler: bool,
    /// The port of the health endpoint; 0 for none.
    pub healthz_port: u16,
    /// The address of the health endpoint.
    pub healthz_bind_address: IpAddr,
    /// The serving certificate; `None` for a self-signed one.
    #[serde(default, deserialize_with = "path")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of the serving certificate; set exactly when that is.
    #[serde(default, deserialize_with = "path")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The lowest TLS version that is served.
    #[serde(default)]
    pub tls_min_version: TlsMinVersion,
    /// Cipher suites of TLS 1.2 by Go's names; empty for the library's own choice.
    #[serde(default)]
    pub tls_cipher_suites: Vec<String>,
    /// Key exchanges by their numbers in TLS; empty for the library's own choice.
    #[serde(default)]
    pub tls_curve_preferences: Vec<u16>,
    /// How long a session may be idle; zero for ever.
    #[serde(deserialize_with = "duration")]
    pub streaming_connection_idle_timeout: Duration,
    /// Who a request is from.
    pub authentication: KubeletAuthentication,
    /// What a request may do.
    pub authorization: KubeletAuthorization,

    /// Whether the node object is created.
    pub register_node: bool,
    /// The taints the node is created with.
    #[serde(default)]
    pub register_with_taints: Vec<Taint>,
    /// How often the node's status is computed.
    #[serde(deserialize_with = "duration")]
    pub node_status_update_frequency: Duration,
    /// How often an unchanged status is reported.
    #[serde(deserialize_with = "duration")]
    pub node_status_report_frequency: Duration,
    /// How long the node's lease lasts, in seconds; at least 1.
    pub node_lease_duration_seconds: u32,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How many pods the node takes for each of its processors; 0 for no such limit.
    #[serde(default)]
    pub pods_per_core: u32,
    /// The `spec.providerID` that the node is created with; empty for none.
    #[serde(default, rename = "providerID")]
    pub provider_id: String,
    /// How many images the node's status lists; -1 for all.
    pub node_status_max_images: i32,
    /// The range of pods' addresses, if the Node has none; empty for none.
    #[serde(default, rename = "podCIDR")]
    pub pod_cidr: String,
    /// Requests a second to the apiserver.
    #[serde(rename = "kubeAPIQPS")]
    pub kube_api_qps: u32,
    /// Requests to the apiserver in one burst.
    #[serde(rename = "kubeAPIBurst")]
    pub kube_api_burst: u32,
    /// Events a second; 0 is no limit.
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: u32,
    /// Events in one burst.
    pub event_burst: u32,

    /// The cluster's DNS domain; empty for none.
    #[serde(default)]
    pub cluster_domain: String,
    /// The name servers of pods with dnsPolicy ClusterFirst.
    #[serde(default, rename = "clusterDNS")]
    pub cluster_dns: Vec<IpAddr>,
    /// The resolver file that dnsPolicy Default follows.
    #[serde(default, deserialize_with = "path")]
    pub resolv_conf: Option<PathBuf>,

    /// Whether images are pulled one at a time.
    pub serialize_image_pulls: bool,
    /// How many images are pulled at a time where they are not serialized; `None` for no limit.
    #[serde(default)]
    pub max_parallel_image_pulls: Option<u32>,
    /// Pulls begun a second; 0 for no limit.
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: u32,
    /// Pulls begun at once.
    pub registry_burst: u32,
    /// Which pods may have an image that is present without showing credentials; the name of a policy.
    pub image_pull_credentials_verification_policy: String,
    /// The images of the policy that has a list.
    #[serde(default)]
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// The size in bytes at which a container's log is rotated; negative for never.
    #[serde(deserialize_with = "bytes")]
    pub container_log_max_size: i64,
    /// How many log files a container has at most; at least 2.
    pub container_log_max_files: usize,
    /// How many logs are rotated at a time; at least 1.
    pub container_log_max_workers: usize,
    /// How often the sizes of logs are looked at; at least 3 s.
    #[serde(deserialize_with = "duration")]
    pub container_log_monitor_interval: Duration,
    /// How long a measured volume is not measured again; `None` measures no volumes.
    #[serde(deserialize_with = "duration_unless_negative")]
    pub volume_stats_agg_period: Option<Duration>,
    /// How long an image is left alone after it came.
    #[serde(rename = "imageMinimumGCAge", deserialize_with = "duration")]
    pub image_minimum_gc_age: Duration,
    /// How long an image may be unused; zero for any time.
    #[serde(default, rename = "imageMaximumGCAge", deserialize_with = "duration")]
    pub image_maximum_gc_age: Duration,
    /// How full the disk of images may be, in percent, before unused ones are removed.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    /// How full it may stay then, in percent; less than the other.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    /// How crashing containers are held back.
    pub crash_loop_back_off: CrashLoopBackOffConfig,

    /// The CRI socket of the container runtime; empty for a node of Wasm pods only.
    #[serde(default)]
    pub container_runtime_endpoint: String,
    /// The CRI socket of its images, if that is another one.
    #[serde(default)]
    pub image_service_endpoint: String,
    /// What a call of the runtime gets that has no time of its own.
    #[serde(deserialize_with = "duration")]
    pub runtime_request_timeout: Duration,
    /// Whether CPU limits of containers are enforced.
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    /// The period in which a container gets its share.
    #[serde(rename = "cpuCFSQuotaPeriod", deserialize_with = "duration")]
    pub cpu_cfs_quota_period: Duration,
    /// Whether Linux pods have cgroups of their own.
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    /// The cgroup that theirs are made in, as a path below the mount of a hierarchy; empty for the root.
    #[serde(default)]
    pub cgroup_root: String,
    /// Who makes cgroups, if the runtime does not say: `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// How many processes and threads a Linux pod may have; -1 for no limit.
    pub pod_pids_limit: i64,
    /// What is kept from pods for what is not Kubernetes.
    #[serde(default)]
    pub system_reserved: BTreeMap<String, String>,
    /// What is kept from pods for this program and the runtime.
    #[serde(default)]
    pub kube_reserved: BTreeMap<String, String>,
    /// The cgroup of what is not Kubernetes.
    #[serde(default)]
    pub system_reserved_cgroup: String,
    /// The cgroup of this program and the runtime.
    #[serde(default)]
    pub kube_reserved_cgroup: String,
    /// Which reservations cgroups enforce.
    pub enforce_node_allocatable: Vec<String>,
    /// What may run out no further before pods are evicted at once, by signal.
    #[serde(default)]
    pub eviction_hard: BTreeMap<String, String>,
    /// What may run out no further for a while.
    #[serde(default)]
    pub eviction_soft: BTreeMap<String, String>,
    /// For how long, as Go writes durations.
    #[serde(default)]
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// How long the Node says so after it was seen last.
    #[serde(deserialize_with = "duration")]
    pub eviction_pressure_transition_period: Duration,
    /// Seconds that pods have to end at most for a soft threshold.
    #[serde(default)]
    pub eviction_max_pod_grace_period: i32,
    /// How much more than a threshold there has to be again.
    #[serde(default)]
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// Whether pods are held to their limits of local storage.
    pub local_storage_capacity_isolation: bool,
    /// Whether the runtime's seccomp profile holds for containers that name none.
    pub seccomp_default: bool,

    /// This program's own log.
    pub logging: LoggingConfiguration,
}

/// Headers by name. Their values may be secret and are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StaticPodUrlHeader(pub BTreeMap<String, Vec<String>>);

impl fmt::Debug for StaticPodUrlHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Who a request to the HTTPS server is from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KubeletAuthentication {
    /// Client certificates.
    #[serde(default)]
    pub x509: KubeletX509Authentication,
    /// Bearer tokens.
    pub webhook: KubeletWebhookAuthentication,
    /// Requests without credentials.
    pub anonymous: KubeletAnonymousAuthentication,
}

/// Authentication by client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletX509Authentication {
    /// The CA whose client certificates are accepted; `None` accepts none.
    #[serde(default, rename = "clientCAFile", deserialize_with = "path")]
    pub client_ca_file: Option<PathBuf>,
}

/// Authentication by TokenReview.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KubeletWebhookAuthentication {
    /// Whether bearer tokens are checked; false on a node without an apiserver.
    pub enabled: bool,
    /// How long a checked token is remembered.
    #[serde(rename = "cacheTTL", deserialize_with = "duration")]
    pub cache_ttl: Duration,
}

/// Requests without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KubeletAnonymousAuthentication {
    /// Whether they pass authentication, as `system:anonymous`.
    pub enabled: bool,
}

/// What an authenticated request may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KubeletAuthorization {
    /// Who decides.
    pub mode: KubeletAuthorizationMode,
    /// How long decisions are remembered.
    pub webhook: KubeletWebhookAuthorization,
}

/// Who decides what a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum KubeletAuthorizationMode {
    /// Every authenticated request is allowed.
    AlwaysAllow,
    /// SubjectAccessReview decides.
    Webhook,
}

/// How long SubjectAccessReview decisions are remembered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KubeletWebhookAuthorization {
    /// An allowed request.
    #[serde(rename = "cacheAuthorizedTTL", deserialize_with = "duration")]
    pub cache_authorized_ttl: Duration,
    /// A denied request.
    #[serde(rename = "cacheUnauthorizedTTL", deserialize_with = "duration")]
    pub cache_unauthorized_ttl: Duration,
}

/// How crashing containers are held back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrashLoopBackOffConfig {
    /// The longest wait before a crashing container starts again; 1 s to 300 s.
    #[serde(deserialize_with = "duration")]
    pub max_container_restart_period: Duration,
}

/// This program's own log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LoggingConfiguration {
    /// How a line looks.
    pub format: LogFormat,
    /// How much is logged: 0 is the least.
    #[serde(default)]
    pub verbosity: u32,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The lowest TLS version that is served. Older ones than these are never served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsMinVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "VersionTLS12", alias = "", alias = "VersionTLS10", alias = "VersionTLS11")]
    Tls12,
    /// TLS 1.3 alone.
    #[serde(rename = "VersionTLS13")]
    Tls13,
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let nanos = duration::parse(&text).map_err(D::Error::custom)?;
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| D::Error::custom(format!("{text} must not be negative")))
}

/// A Go duration; a negative one means never.
fn duration_unless_negative<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let nanos = duration::parse(&text).map_err(D::Error::custom)?;
    Ok(u64::try_from(nanos).ok().map(Duration::from_nanos))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Quantity::parse(&String::deserialize(deserializer)?).map(|size| size.value()).map_err(D::Error::custom)
}
