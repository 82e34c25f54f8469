//! Every field of `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) that upstream's v1.37.2 knows.
//!
//! This table is the one place that says what a field does here. Its types and defaults are compared with upstream's
//! own in `tests/config/upstream.rs`; where a default differs on purpose, that test says so.

use super::field::Field;
use super::field::Kind::*;
use super::field::Literal::*;
use super::field::Unset::*;
use super::support::Support::{NoEffect, Refused, Works};

const NO_DAEMON_CGROUPS: &str = "no cgroups are made for system daemons";
const NO_RESERVATION: &str =
    "nothing is reserved of single processors and NUMA nodes, nor for classes of pods";
const NO_PINNING: &str = "CPUs, memory and devices are not aligned or pinned";
const NO_SHUTDOWN: &str = "node shutdown is not delayed for pods";
const NO_IPTABLES: &str = "no iptables chains are made";
const NO_SYSCTLS: &str = "pods cannot set sysctls";
const NO_TRACES: &str =
    "no traces are sent; leave tracing out, and read kubelet_pod_start_sli_duration_seconds and the log";
const OWN_LOGGING: &str = "logs are written unbuffered to one stream";

/// The table.
#[rustfmt::skip]
pub static FIELDS: &[Field] = &[
    // Pod sources and the sync loop.
    Field::new("staticPodPath", Path, Zero, Works("a file or a directory of static pods")).flag("pod-manifest-path"),
    Field::new("fileCheckFrequency", Duration, ZeroMeans(Str("20s")), Works("how often static pod files are read again without a change notice")).flag("file-check-frequency"),
    Field::new("staticPodURL", Text, Zero, Works("a URL of static pods: one Pod or a PodList")).flag("manifest-url"),
    Field::new("staticPodURLHeader", TextListMap, Zero, Works("headers of the requests to staticPodURL")).flag("manifest-url-header"),
    Field::new("httpCheckFrequency", Duration, ZeroMeans(Str("20s")), Works("how often staticPodURL is asked")).flag("http-check-frequency"),
    Field::new("syncFrequency", Duration, ZeroMeans(Str("1m0s")), Works("the longest time between two syncs of a pod")).flag("sync-frequency"),
    Field::new("podLogsDir", Path, ZeroMeans(Str("/var/log/pods")), Works("where container logs are written; logs of pods that the node does not have are removed from it")),
    Field::new("runOnce", Bool, Zero, Refused("run-once mode is gone upstream too; `coracle run` runs pods without a cluster")).flag("runonce"),

    // The servers.
    Field::new("enableServer", Bool, NilMeans(Truth(true)), Works("whether the HTTPS server runs")).flag("enable-server"),
    Field::new("address", Ip, ZeroMeans(Str("0.0.0.0")), Works("the address of the HTTPS server")).flag("address"),
    Field::new("port", Int32, ZeroMeans(Int(10250)), Works("the port of the HTTPS server")).flag("port"),
    Field::new("readOnlyPort", Int32, Zero, Works("the port of the server without authentication: pods, statistics and metrics for everybody; 0 is none")).flag("read-only-port"),
    Field::new("healthzPort", Int32, NilMeans(Int(10248)), Works("the port of the health endpoint; 0 switches it off")).flag("healthz-port"),
    Field::new("healthzBindAddress", Ip, ZeroMeans(Str("127.0.0.1")), Works("the address of the health endpoint")).flag("healthz-bind-address"),
    Field::new("tlsCertFile", Path, Zero, Works("the serving certificate; without it a self-signed one is made in --cert-dir")).flag("tls-cert-file"),
    Field::new("tlsPrivateKeyFile", Path, Zero, Works("the key of tlsCertFile")).flag("tls-private-key-file"),
    Field::new("tlsMinVersion", Text, Zero, Works("VersionTLS13 refuses TLS 1.2; lower versions are never served")).flag("tls-min-version"),
    Field::new("tlsCipherSuites", Texts, Zero, Works("which ciphers of TLS 1.2 are served, of those with ECDHE and AEAD; others are left out, and those of TLS 1.3 always served")).flag("tls-cipher-suites"),
    Field::new("tlsCurvePreferences", Ints, Zero, Works("which key exchanges are served, of X25519, P-256 and P-384; others are left out")),
    Field::new("rotateCertificates", Bool, Zero, NoEffect("the client certificate is not renewed; renew the one in the kubeconfig")).flag("rotate-certificates"),
    Field::new("serverTLSBootstrap", Bool, Zero, NoEffect("no serving certificate is requested; set tlsCertFile, or a self-signed one is served")).flag("rotate-server-certificates"),
    Field::new("authentication.x509.clientCAFile", Path, Zero, Works("the CA whose client certificates are accepted")).flag("client-ca-file"),
    Field::new("authentication.webhook.enabled", Bool, NilMeans(Truth(true)), Works("bearer tokens are checked with TokenReview")).flag("authentication-token-webhook"),
    Field::new("authentication.webhook.cacheTTL", Duration, ZeroMeans(Str("2m0s")), Works("how long a checked token is remembered")).flag("authentication-token-webhook-cache-ttl"),
    Field::new("authentication.anonymous.enabled", Bool, NilMeans(Truth(false)), Works("whether requests without credentials pass authentication")).flag("anonymous-auth"),
    Field::new("authorization.mode", Text, ZeroMeans(Str("Webhook")), Works("Webhook asks SubjectAccessReview; AlwaysAllow asks nobody")).flag("authorization-mode"),
    Field::new("authorization.webhook.cacheAuthorizedTTL", Duration, ZeroMeans(Str("5m0s")), Works("how long an allowed request is remembered")).flag("authorization-webhook-cache-authorized-ttl"),
    Field::new("authorization.webhook.cacheUnauthorizedTTL", Duration, ZeroMeans(Str("30s")), Works("how long a denied request is remembered")).flag("authorization-webhook-cache-unauthorized-ttl"),
    Field::new("enableDebuggingHandlers", Bool, NilMeans(Truth(true)), Works("whether logs, exec, attach, port-forward and what shows this program itself are served")).flag("enable-debugging-handlers"),
    Field::new("enableSystemLogHandler", Bool, NilMeans(Truth(true)), Works("whether /var/log is served under /logs/")),
    Field::new("enableSystemLogQuery", Bool, Nil, NoEffect("the journal is never read; files of /var/log are served by name")),
    Field::new("enableProfilingHandler", Bool, NilMeans(Truth(true)), Works("whether requests for Go profiles are answered with 501, as there are none, or with 405")),
    Field::new("enableDebugFlagsHandler", Bool, NilMeans(Truth(true)), Works("whether the verbosity of the log can be changed by PUT to /debug/flags/v")),
    Field::new("enableContentionProfiling", Bool, Zero, NoEffect("Go profiles are never served")).flag("contention-profiling"),
    Field::new("streamingConnectionIdleTimeout", Duration, ZeroMeans(Str("4h0m0s")), Works("how long an exec, attach or port-forward may be idle before it is closed; 0 is for ever")).flag("streaming-connection-idle-timeout"),
    Field::new("showHiddenMetricsForVersion", Text, Zero, NoEffect("no metrics are hidden")),

    // The node object and the apiserver.
    Field::new("registerNode", Bool, NilMeans(Truth(true)), Works("whether the node object is created")).flag("register-node"),
    Field::new("registerWithTaints", Taints, Zero, Works("the taints the node is created with")).flag("register-with-taints"),
    Field::new("nodeStatusUpdateFrequency", Duration, ZeroMeans(Str("10s")), Works("how often the node's status is computed")).flag("node-status-update-frequency"),
    Field::new("nodeStatusReportFrequency", Duration, ZeroMeans(Str("5m0s")), Works("how often an unchanged status is reported; follows nodeStatusUpdateFrequency where only that is set")),
    Field::new("nodeLeaseDurationSeconds", Int32, ZeroMeans(Int(40)), Works("how long the node's lease lasts; it is renewed after a quarter of it")),
    Field::new("maxPods", Int32, ZeroMeans(Int(110)), Works("how many pods the node takes")).flag("max-pods"),
    Field::new("podCIDR", Text, Zero, Works("the range of pods' addresses, or one of each family with a comma between them, if the Node has no spec.podCIDR")).flag("pod-cidr"),
    Field::new("podsPerCore", Int32, Zero, Works("how many pods the node takes for each of its processors, up to maxPods; 0 is no such limit")).flag("pods-per-core"),
    Field::new("providerID", Text, Zero, Works("the spec.providerID that the node is created with")).flag("provider-id"),
    Field::new("nodeStatusMaxImages", Int32, NilMeans(Int(50)), Works("how many images the node's status lists, the largest ones; -1 lists all")).flag("node-status-max-images"),
    Field::new("kubeAPIQPS", Int32, ZeroMeans(Int(50)), Works("requests a second to the apiserver; with the default there is no limit")).flag("kube-api-qps"),
    Field::new("kubeAPIBurst", Int32, ZeroMeans(Int(100)), Works("requests to the apiserver in one burst, where kubeAPIQPS limits them")).flag("kube-api-burst"),
    Field::new("contentType", Text, ZeroMeans(Str("application/vnd.kubernetes.protobuf")), NoEffect("the apiserver is spoken to in JSON")).flag("kube-api-content-type"),
    Field::new("eventRecordQPS", Int32, NilMeans(Int(50)), Works("events a second; 0 is no limit")).flag("event-qps"),
    Field::new("eventBurst", Int32, ZeroMeans(Int(100)), Works("events in one burst")).flag("event-burst"),
    Field::new("configMapAndSecretChangeDetectionStrategy", Text, ZeroMeans(Str("Watch")), NoEffect("configMaps and secrets are always watched")),

    // DNS.
    Field::new("clusterDomain", Text, Zero, Works("the cluster's DNS domain, in the search list of pods")).flag("cluster-domain"),
    Field::new("clusterDNS", Ips, Zero, Works("the name servers of pods with dnsPolicy ClusterFirst")).flag("cluster-dns"),
    Field::new("resolvConf", Path, NilMeans(Str("/etc/resolv.conf")), Works("the resolver file that dnsPolicy Default follows; empty for none")).flag("resolv-conf"),

    // Images and logs.
    Field::new("serializeImagePulls", Bool, NilMeans(Truth(true)), Works("pulls one image at a time; false by default where maxParallelImagePulls is above 1")).flag("serialize-image-pulls"),
    Field::new("maxParallelImagePulls", Int32, Nil, Works("how many images are pulled at a time")),
    Field::new("registryPullQPS", Int32, NilMeans(Int(5)), Works("pulls begun a second; 0 is no limit. One too many waits for its turn")).flag("registry-qps"),
    Field::new("registryBurst", Int32, ZeroMeans(Int(10)), Works("pulls begun at once")).flag("registry-burst"),
    Field::new("imagePullCredentialsVerificationPolicy", Text, ZeroMeans(Str("NeverVerifyPreloadedImages")), Works("whether pods have to show credentials for images that are present: NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify")),
    Field::new("preloadedImagesVerificationAllowlist", Texts, Zero, Works("the images of NeverVerifyAllowlistedImages: repositories, or beginnings of them with /*")),
    Field::new("imageMinimumGCAge", Duration, ZeroMeans(Str("2m0s")), Works("how long an image is left alone after it came, however full the disk is")).flag("minimum-image-ttl-duration"),
    Field::new("imageMaximumGCAge", Duration, Zero, Works("images that no container has used for longer are removed; zero removes none for its age")),
    Field::new("imageGCHighThresholdPercent", Int32, NilMeans(Int(85)), Works("how full the disk of images may be before unused ones are removed; 100 removes none for space")).flag("image-gc-high-threshold"),
    Field::new("imageGCLowThresholdPercent", Int32, NilMeans(Int(80)), Works("how full the disk of images may stay when unused ones are removed")).flag("image-gc-low-threshold"),
    Field::new("containerLogMaxSize", Quantity, ZeroMeans(Str("10Mi")), Works("the size from which on the log of a running container is rotated; a negative one never rotates")).flag("container-log-max-size"),
    Field::new("containerLogMaxFiles", Int32, NilMeans(Int(5)), Works("how many log files a container has at most; older ones are compressed")).flag("container-log-max-files"),
    Field::new("containerLogMaxWorkers", Int32, NilMeans(Int(1)), Works("how many logs are rotated at a time")),
    Field::new("containerLogMonitorInterval", Duration, NilMeans(Str("10s")), Works("how often the sizes of logs are looked at")),
    Field::new("crashLoopBackOff.maxContainerRestartPeriod", Duration, NilMeans(Str("5m0s")), Works("the longest wait before a crashing container starts again")),

    // The container runtime.
    Field::new("containerRuntimeEndpoint", Text, Zero, Works("the Unix socket of a container runtime (CRI v1), unix:///path; without it the node runs Wasm pods only")).flag("container-runtime-endpoint"),
    Field::new("imageServiceEndpoint", Text, Zero, Works("the Unix socket of its images, if that is another one")).flag("image-service-endpoint"),
    Field::new("runtimeRequestTimeout", Duration, ZeroMeans(Str("2m0s")), Works("how long a call of the container runtime may take that has no time of its own")).flag("runtime-request-timeout"),
    Field::new("hairpinMode", Text, ZeroMeans(Str("promiscuous-bridge")), NoEffect("pods have no bridge")).flag("hairpin-mode"),
    Field::new("seccompDefault", Bool, NilMeans(Truth(false)), Works("whether the container runtime's seccomp profile holds for containers that name none")),
    Field::new("userNamespaces.idsPerPod", Int64, Nil, NoEffect("a Wasm module has no users of the node")),

    // This program's own log.
    Field::new("logging.format", Text, ZeroMeans(Str("text")), Works("text or json")).flag("logging-format"),
    Field::new("logging.verbosity", Level, Zero, Works("how much is logged, from 0")).flag("v"),
    Field::new("logging.vmodule", VModule, Zero, NoEffect("the patterns name Go files")).flag("vmodule"),
    Field::new("logging.flushFrequency", DurationOrNanos, ZeroMeans(Str("5s")), NoEffect(OWN_LOGGING)).flag("log-flush-frequency"),
    Field::new("logging.options.text.splitStream", Bool, Zero, NoEffect(OWN_LOGGING)).flag("log-text-split-stream"),
    Field::new("logging.options.text.infoBufferSize", Quantity, ZeroMeans(Str("0")), NoEffect(OWN_LOGGING)).flag("log-text-info-buffer-size"),
    Field::new("logging.options.json.splitStream", Bool, Zero, NoEffect(OWN_LOGGING)).flag("log-json-split-stream"),
    Field::new("logging.options.json.infoBufferSize", Quantity, ZeroMeans(Str("0")), NoEffect(OWN_LOGGING)).flag("log-json-info-buffer-size"),
    Field::new("tracing.endpoint", Text, Nil, Refused(NO_TRACES)),
    Field::new("tracing.samplingRatePerMillion", Int32, Nil, Refused(NO_TRACES)),
    Field::new("featureGates", BoolMap, Zero, Works("names and locked values are checked as upstream does; a value other than the default warns")).flag("feature-gates"),

    // Eviction and node shutdown.
    Field::new("evictionHard", Thresholds, NilMeans(Pairs(&[("memory.available", "100Mi"), ("nodefs.available", "10%"), ("nodefs.inodesFree", "5%"), ("imagefs.available", "15%"), ("imagefs.inodesFree", "5%")])), Works("what may run out no further before pods are evicted at once, by signal: an amount, or a share of all")).flag("eviction-hard"),
    Field::new("evictionSoft", Thresholds, Zero, Works("what may run out no further for longer than evictionSoftGracePeriod")).flag("eviction-soft"),
    Field::new("evictionSoftGracePeriod", TextMap, Zero, Works("for how long, by signal; each one of evictionSoft has to have one")).flag("eviction-soft-grace-period"),
    Field::new("evictionPressureTransitionPeriod", Duration, ZeroMeans(Str("5m0s")), Works("how long the Node says that something runs out after it was seen last")).flag("eviction-pressure-transition-period"),
    Field::new("evictionMaxPodGracePeriod", Int32, Zero, Works("seconds that pods have to end at most for a soft threshold")).flag("eviction-max-pod-grace-period"),
    Field::new("evictionMinimumReclaim", TextMap, Zero, Works("how much more than a threshold there has to be again, by signal")).flag("eviction-minimum-reclaim"),
    Field::new("mergeDefaultEvictionSettings", Bool, NilMeans(Truth(false)), Works("whether the default thresholds hold for signals that evictionHard leaves out")),
    Field::new("localStorageCapacityIsolation", Bool, NilMeans(Truth(true)), Works("whether pods are held to their limits of ephemeral storage, and to sizes of emptyDirs")).flag("local-storage-capacity-isolation"),
    Field::new("volumeStatsAggPeriod", Duration, ZeroMeans(Str("1m0s")), Works("how long a measured volume is not measured again, when statistics are asked for; a negative one measures none")).flag("volume-stats-agg-period"),
    Field::new("shutdownGracePeriod", Duration, Zero, NoEffect(NO_SHUTDOWN)),
    Field::new("shutdownGracePeriodCriticalPods", Duration, Zero, NoEffect(NO_SHUTDOWN)),
    Field::new("shutdownGracePeriodByPodPriority", PriorityGracePeriods, Zero, NoEffect(NO_SHUTDOWN)),

    // The node's resources.
    Field::new("systemReserved", TextMap, Zero, Works("what is kept from pods for what is not Kubernetes: cpu, memory, ephemeral-storage, pid")).flag("system-reserved"),
    Field::new("kubeReserved", TextMap, Zero, Works("what is kept from pods for this program and the container runtime: cpu, memory, ephemeral-storage, pid")).flag("kube-reserved"),
    Field::new("reservedSystemCPUs", Text, Zero, NoEffect(NO_RESERVATION)).flag("reserved-cpus"),
    Field::new("reservedMemory", ReservedMemory, Zero, NoEffect(NO_RESERVATION)).flag("reserved-memory"),
    Field::new("systemReservedCgroup", Text, Zero, Works("the cgroup that systemReserved is enforced on; it has to be there")).flag("system-reserved-cgroup"),
    Field::new("kubeReservedCgroup", Text, Zero, Works("the cgroup that kubeReserved is enforced on; it has to be there")).flag("kube-reserved-cgroup"),
    Field::new("enforceNodeAllocatable", Texts, NilMeans(Strs(&["pods"])), Works("which reservations cgroups enforce on a node with a container runtime")).flag("enforce-node-allocatable"),
    Field::new("qosReserved", TextMap, Zero, NoEffect(NO_RESERVATION)).flag("qos-reserved"),
    Field::new("cgroupRoot", Text, Zero, Works("the cgroup that those of Linux pods are made in; it has to be there, and kubelets on one machine need one each")).flag("cgroup-root"),
    Field::new("cgroupDriver", Text, ZeroMeans(Str("cgroupfs")), Works("who makes cgroups, cgroupfs or systemd, if the container runtime does not say; the systemd driver needs busctl")).flag("cgroup-driver"),
    Field::new("cgroupsPerQOS", Bool, NilMeans(Truth(true)), Works("whether Linux pods have cgroups of their own")).flag("cgroups-per-qos"),
    Field::new("kubeletCgroups", Text, Zero, NoEffect(NO_DAEMON_CGROUPS)).flag("kubelet-cgroups"),
    Field::new("systemCgroups", Text, Zero, NoEffect(NO_DAEMON_CGROUPS)).flag("system-cgroups"),
    Field::new("failCgroupV1", Bool, NilMeans(Truth(true)), NoEffect("pods run under either cgroup version")).flag("fail-cgroupv1"),
    Field::new("cpuManagerPolicy", Text, ZeroMeans(Str("none")), NoEffect(NO_PINNING)).flag("cpu-manager-policy"),
    Field::new("cpuManagerPolicyOptions", TextMap, Zero, NoEffect(NO_PINNING)).flag("cpu-manager-policy-options"),
    Field::new("cpuManagerReconcilePeriod", Duration, ZeroMeans(Str("10s")), NoEffect(NO_PINNING)).flag("cpu-manager-reconcile-period"),
    Field::new("memoryManagerPolicy", Text, ZeroMeans(Str("None")), NoEffect(NO_PINNING)).flag("memory-manager-policy"),
    Field::new("topologyManagerPolicy", Text, ZeroMeans(Str("none")), NoEffect(NO_PINNING)).flag("topology-manager-policy"),
    Field::new("topologyManagerScope", Text, ZeroMeans(Str("container")), NoEffect(NO_PINNING)).flag("topology-manager-scope"),
    Field::new("topologyManagerPolicyOptions", TextMap, Zero, NoEffect(NO_PINNING)).flag("topology-manager-policy-options"),
    Field::new("cpuCFSQuota", Bool, NilMeans(Truth(true)), Works("whether CPU limits of Linux containers are enforced; those of Wasm pods are not")).flag("cpu-cfs-quota"),
    Field::new("cpuCFSQuotaPeriod", Duration, NilMeans(Str("100ms")), Works("the period in which a Linux container gets its share of CPU time")).flag("cpu-cfs-quota-period"),
    Field::new("memoryThrottlingFactor", Float, Nil, NoEffect("memory limits are hard")),
    Field::new("memoryReservationPolicy", Text, ZeroMeans(Str("None")), NoEffect("memory requests are not protected")),
    Field::new("memorySwap.swapBehavior", Text, Zero, NoEffect("swap is not managed")),
    Field::new("failSwapOn", Bool, NilMeans(Truth(true)), NoEffect("the node may have swap")).flag("fail-swap-on"),
    Field::new("singleProcessOOMKill", Bool, Nil, NoEffect("a container that exceeds its memory limit ends as a whole")),
    Field::new("kernelMemcgNotification", Bool, Zero, NoEffect("memory is looked at every 10 s")).flag("kernel-memcg-notification"),
    Field::new("oomScoreAdj", Int32, NilMeans(Int(-999)), NoEffect("this process keeps the score it was started with, because Wasm pods run in it")).flag("oom-score-adj"),
    Field::new("maxOpenFiles", Int64, ZeroMeans(Int(1_000_000)), NoEffect("this process keeps the limit it was started with")).flag("max-open-files"),
    Field::new("podPidsLimit", Int64, NilMeans(Int(-1)), Works("how many processes and threads a Linux pod may have; -1 is no limit")).flag("pod-max-pids"),
    Field::new("allowedUnsafeSysctls", Texts, Zero, NoEffect(NO_SYSCTLS)).flag("allowed-unsafe-sysctls"),
    Field::new("defaultPodSysctls", TextMap, Zero, NoEffect(NO_SYSCTLS)),
    Field::new("protectKernelDefaults", Bool, Zero, NoEffect("kernel settings are neither checked nor changed")).flag("protect-kernel-defaults"),
    Field::new("makeIPTablesUtilChains", Bool, NilMeans(Truth(true)), NoEffect(NO_IPTABLES)).flag("make-iptables-util-chains"),
    Field::new("iptablesMasqueradeBit", Int32, NilMeans(Int(14)), NoEffect(NO_IPTABLES)),
    Field::new("iptablesDropBit", Int32, NilMeans(Int(15)), NoEffect(NO_IPTABLES)),
    Field::new("enableControllerAttachDetach", Bool, NilMeans(Truth(true)), NoEffect("volumes are attached by the controller manager only")).flag("enable-controller-attach-detach"),
    Field::new("volumePluginDir", Path, ZeroMeans(Str("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")), NoEffect("FlexVolume drivers are not run")).flag("volume-plugin-dir"),
];

/// Looks a field up by its full path.
pub(super) fn field(path: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.path == path)
}

/// Whether a path leads to further fields: `authentication`, `authentication.webhook`.
pub(super) fn is_object(path: &str) -> bool {
    FIELDS.iter().any(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}
