//! Configuration files: strictness, defaults, drop-ins.

use std::path::Path;
use std::time::Duration;

use super::{Files, resolve};
use coracle::config::{KubeletAuthorizationMode, LogFormat};

const HEADER: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn with_file(body: &str) -> Result<coracle::config::Resolved, String> {
    let files = Files::new();
    let path = files.write("config.yaml", &format!("{HEADER}{body}"));
    resolve(&["--kubeconfig=/k", "--config", &path])
        .map_err(|error| error.to_string().replace(files.directory(), ""))
}

#[test]
fn a_file_as_kubeadm_writes_it_is_taken() {
    let resolved = with_file(
        "\
address: 0.0.0.0
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization:
  mode: Webhook
  webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
logging:
  flushFrequency: 0
  options:
    json: {infoBufferSize: \"0\"}
    text: {infoBufferSize: \"0\"}
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
rotateCertificates: true
shutdownGracePeriod: 0s
staticPodPath: /etc/kubernetes/manifests
syncFrequency: 0s
",
    )
    .unwrap();
    assert_eq!(
        resolved.warnings,
        [
            "KubeletConfiguration.rotateCertificates (--rotate-certificates) has no effect in this version: the client \
             certificate is not renewed; renew the one in the kubeconfig",
        ]
    );
    let config = resolved.config;
    assert_eq!(config.sync_frequency, Duration::from_secs(60));
    assert_eq!(config.authentication.webhook.cache_ttl, Duration::from_secs(120));
    assert_eq!(
        config.authentication.x509.client_ca_file.as_deref(),
        Some(Path::new("/etc/kubernetes/pki/ca.crt"))
    );
    assert_eq!(config.cluster_dns, ["10.96.0.10".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(config.container_log_max_size, 10 << 20);
    assert_eq!(resolved.effective["cgroupDriver"], "systemd");
}

#[test]
fn json_is_taken_too_also_with_tabs() {
    let files = Files::new();
    let path = files.write(
        "config.json",
        "{\n\t\"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n\t\"kind\": \"KubeletConfiguration\",\n\t\"maxPods\": 7\n}\n",
    );
    assert_eq!(resolve(&["--config", &path]).unwrap().config.max_pods, 7);
}

#[test]
fn what_is_wrong_with_a_document_is_named_with_its_line() {
    for (body, message) in [
        ("maxPods: 1\nfooBar: 1\n", "/config.yaml:4: unknown field \"fooBar\""),
        (
            "authentication:\n  webhook:\n    cacheTtl: 1s\n",
            "/config.yaml:5: unknown field \"authentication.webhook.cacheTtl\"",
        ),
        (
            "registerWithTaints:\n- key: a\n  colour: b\n",
            "/config.yaml:5: unknown field \"registerWithTaints[0].colour\"",
        ),
        ("port: 1\nmaxPods: 1\nport: 2\n", "/config.yaml:5: key \"port\" already set in map"),
        ("authentication:\n  x509: {}\n  x509: {}\n", "/config.yaml:5: key \"x509\" already set in map"),
        (
            "maxPods: many\n",
            "/config.yaml:3: invalid type: string \"many\", expected a whole number that fits into 32 bits for \"maxPods\"",
        ),
        (
            "maxPods: 1.5\n",
            "/config.yaml:3: invalid type: floating point `1.5`, expected a whole number that fits into 32 bits for \"maxPods\"",
        ),
        (
            "maxPods: 3000000000\n",
            "/config.yaml:3: invalid type: integer `3000000000`, expected a whole number that fits into 32 bits for \"maxPods\"",
        ),
        (
            "enableServer: 1\n",
            "/config.yaml:3: invalid type: integer `1`, expected true or false for \"enableServer\"",
        ),
        ("address: 1\n", "/config.yaml:3: invalid type: integer `1`, expected an IP address for \"address\""),
        (
            "address: host\n",
            "/config.yaml:3: invalid value: string \"host\", expected an IP address for \"address\"",
        ),
        (
            "\nsyncFrequency: 10\n",
            "/config.yaml:4: invalid type: integer `10`, expected a duration such as \"10s\" or \"2m3s\" for \"syncFrequency\"",
        ),
        (
            "syncFrequency: 1d\n",
            "/config.yaml:3: invalid value: string \"1d\", expected a duration such as \"10s\" or \"2m3s\" for \"syncFrequency\"",
        ),
        (
            "clusterDNS: 10.0.0.1\n",
            "/config.yaml:3: invalid type: string \"10.0.0.1\", expected a list of IP addresses for \"clusterDNS\"",
        ),
        (
            "authentication: true\n",
            "/config.yaml:3: invalid type: boolean `true`, expected an object for \"authentication\"",
        ),
        (
            "systemReserved: {cpu: 1}\n",
            "/config.yaml:3: invalid type: integer `1`, expected a string for \"systemReserved[cpu]\"",
        ),
        ("maxPods: 1: 2\n", "/config.yaml:3: mapping values are not allowed in this context"),
    ] {
        assert_eq!(with_file(body).unwrap_err(), message);
    }
}

#[test]
fn only_a_kubelet_configuration_is_taken() {
    let files = Files::new();
    for (text, message) in [
        ("", "the file is empty"),
        ("maxPods: 1\n", "Object 'apiVersion' is missing; want kubelet.config.k8s.io/v1beta1"),
        ("apiVersion: v1\n", "Object 'Kind' is missing; want KubeletConfiguration"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
            "no kind \"Pod\" is registered for version \"v1\"; want KubeletConfiguration of kubelet.config.k8s.io/v1beta1",
        ),
    ] {
        let path = files.write("config.yaml", text);
        assert_eq!(resolve(&["--config", &path]).unwrap_err().to_string(), format!("{path}: {message}"));
    }
    let missing = format!("{}/missing.yaml", files.directory());
    let error = resolve(&["--config", &missing]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("failed to read the kubelet configuration {missing}: ")), "{error}");
}

#[test]
fn values_that_upstream_refuses_are_refused_in_its_words() {
    for (body, message) in [
        ("nodeLeaseDurationSeconds: -1\n", "nodeLeaseDurationSeconds must be greater than 0"),
        ("maxPods: -1\n", "maxPods (--max-pods) -1 must not be a negative number"),
        ("port: 65536\n", "port (--port) 65536 must be between 1 and 65535, inclusive"),
        ("healthzPort: -1\n", "healthzPort (--healthz-port) -1 must be between 1 and 65535, inclusive"),
        ("maxParallelImagePulls: 0\n", "maxParallelImagePulls 0 must be a positive number"),
        (
            "maxParallelImagePulls: 2\nserializeImagePulls: true\n",
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false",
        ),
        (
            "imagePullCredentialsVerificationPolicy: Sometimes\n",
            "\"Sometimes\" is not an image pull credentials verification policy",
        ),
        (
            "preloadedImagesVerificationAllowlist: [a]\n",
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \"NeverVerifyAllowlistedImages\"",
        ),
        ("registryPullQPS: -1\n", "registryPullQPS (--registry-qps) -1 must not be a negative number"),
        ("containerLogMaxFiles: 1\n", "containerLogMaxFiles must be greater than 1"),
        ("containerLogMaxWorkers: 0\n", "containerLogMaxWorkers must be greater than or equal to 1"),
        (
            "containerLogMonitorInterval: 2s\n",
            "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s",
        ),
        (
            "imageGCHighThresholdPercent: 101\n",
            "imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and 100, inclusive",
        ),
        (
            "imageGCLowThresholdPercent: 85\n",
            "imageGCLowThresholdPercent (--image-gc-low-threshold) 85 must be less than imageGCHighThresholdPercent \
             (--image-gc-high-threshold) 85",
        ),
        ("imageMaximumGCAge: 1m\n", "imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s"),
        (
            "nodeStatusMaxImages: -2\n",
            "nodeStatusMaxImages (--node-status-max-images) -2 must be -1 or greater",
        ),
        ("podLogsDir: /var//log\n", "pod logs path \"/var//log\" must be normalized"),
        (
            "crashLoopBackOff: {maxContainerRestartPeriod: 301s}\n",
            "CrashLoopBackOff.MaxContainerRestartPeriod (got: 5m1s) must be set between 1s and 300s",
        ),
        ("logging: {format: xml}\n", "logging.format: Invalid value: \"xml\": Unsupported log format"),
        ("authorization: {mode: RBAC}\n", "unknown authorization mode RBAC"),
        ("tlsMinVersion: TLS13\n", "unknown tls version \"TLS13\""),
        ("tlsCertFile: /c\n", "tlsCertFile and tlsPrivateKeyFile must be set together"),
        ("syncFrequency: -1s\n", "syncFrequency -1s must not be negative"),
        (
            "kubeReserved: {gpu: '1'}\n",
            "kubeReserved (--kube-reserved) value failed to parse: cannot reserve \"gpu\" resource",
        ),
        (
            "systemReserved: {memory: -1Gi}\n",
            "systemReserved (--system-reserved) value failed to parse: resource quantity for \"memory\" cannot be \
             negative: -1Gi",
        ),
        ("cgroupDriver: docker\n", "cgroupDriver (--cgroup-driver) \"docker\" must be cgroupfs or systemd"),
        (
            "cgroupRoot: /a/../b\n",
            "cgroupRoot (--cgroup-root) \"/a/../b\" must be a path without \"_\" and \"..\"",
        ),
        (
            "cgroupsPerQOS: false\n",
            "cgroupsPerQOS (--cgroups-per-qos) must be set to true when \"pods\" contained in enforceNodeAllocatable \
             (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [pods, kube-reserved]\n",
            "kubeReservedCgroup (--kube-reserved-cgroup) must be specified when \"kube-reserved\" or \
             \"kube-reserved-compressible\" included in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [pods, none]\n",
            "enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when \"none\" is \
             specified",
        ),
        ("evictionHard: {mem.available: 1Gi}\n", "unsupported eviction signal mem.available"),
        (
            "evictionSoft: {memory.available: 1Gi}\n",
            "grace period must be specified for the soft eviction threshold memory.available",
        ),
        (
            "evictionSoftGracePeriod: {memory.available: -1s}\n",
            "invalid eviction grace period specified: -1s, must be a positive value",
        ),
        (
            "evictionMaxPodGracePeriod: -1\n",
            "evictionMaxPodGracePeriod (--eviction-max-pod-grace-period) -1 must not be a negative number",
        ),
    ] {
        assert_eq!(with_file(body).unwrap_err(), format!("invalid configuration: {message}"));
    }
    let all = with_file("maxPods: -1\nport: 70000\nfeatureGates: {Nope: true}\n").unwrap_err();
    assert_eq!(all.split("; ").count(), 3, "{all}");
}

#[test]
fn what_would_mislead_is_refused_by_name() {
    let message = with_file("runOnce: true\n").unwrap_err();
    assert!(message.starts_with("KubeletConfiguration.runOnce (--runonce) is refused: "), "{message}");
}

#[test]
fn the_values_of_flags_are_those_that_hold() {
    let files = Files::new();
    let path = files.write("config.yaml", &format!("{HEADER}maxPods: 7\nclusterDNS: [10.0.0.1]\n"));
    let resolved =
        resolve(&["--kubeconfig=/k", "--config", &path, "--port=10251", "--node-labels=a=b"]).unwrap();
    let values = &resolved.flag_values;
    assert_eq!(values["max-pods"], "7");
    assert_eq!(values["port"], "10251");
    assert_eq!(values["cluster-dns"], r#"["10.0.0.1"]"#);
    assert_eq!(values["node-labels"], "a=b");
    assert_eq!(values["config"], path);
    assert_eq!(values["authorization-mode"], "Webhook");
    assert_eq!(values["cloud-provider"], "");
}

#[test]
fn headers_of_static_pods_are_kept_and_not_shown() {
    let body = "staticPodURL: http://example.com/pods\nstaticPodURLHeader: {Authorization: [hunter2]}\n";
    let files = Files::new();
    let path = files.write("config.yaml", &format!("{HEADER}{body}"));
    let resolved = resolve(&["--config", &path, "--manifest-url-header=X-Other:hunter3"]).unwrap();
    let headers = &resolved.config.static_pod_url_header.0;
    assert_eq!(headers["X-Other"], ["hunter3"]);
    assert_eq!(resolved.config.static_pod_url, "http://example.com/pods");
    let shown = format!("{resolved:?}");
    assert!(shown.contains("X-Other") && !shown.contains("hunter"), "{shown}");
}

#[test]
fn relative_paths_start_at_the_file_and_null_is_unset() {
    let files = Files::new();
    let path = files.write(
        "sub/config.yaml",
        &format!(
            "{HEADER}staticPodPath: manifests\nresolvConf: \"\"\nmaxPods:\nclusterDNS: ~\nauthentication:\n"
        ),
    );
    let config = resolve(&["--config", &path]).unwrap().config;
    assert_eq!(config.static_pod_path.unwrap(), Path::new(files.directory()).join("sub/manifests"));
    assert_eq!(config.resolv_conf, None);
    assert_eq!(config.max_pods, 110);
    assert!(config.cluster_dns.is_empty());
}

#[test]
fn drop_ins_are_laid_over_the_file_by_name_and_under_the_flags() {
    let files = Files::new();
    let config = files.write(
        "config.yaml",
        &format!("{HEADER}maxPods: 1\nport: 1001\nlogging: {{format: json, verbosity: 1}}\nclusterDNS: [10.0.0.1, 10.0.0.2]\n"),
    );
    files.write(
        "d/10-a.conf",
        &format!("{HEADER}maxPods: 2\nport: 1002\nhealthzPort: 1002\nlogging: {{verbosity: 2}}\n"),
    );
    files.write("d/20-sub/a.conf", &format!("{HEADER}maxPods: 3\nport: 1003\n"));
    files.write("d/30-b.conf", &format!("{HEADER}maxPods: 4\nclusterDNS: [10.0.0.3]\nhealthzPort: null\n"));
    files.write("d/40-c.yaml", "not a configuration");
    let directory = format!("{}/d", files.directory());

    let resolved = resolve(&["--config", &config, "--config-dir", &directory, "--max-pods=5"]).unwrap();
    let config = resolved.config;
    assert_eq!((config.max_pods, config.port, config.healthz_port), (5, 1003, 10248));
    assert_eq!((config.logging.format, config.logging.verbosity), (LogFormat::Json, 2));
    assert_eq!(config.cluster_dns.len(), 1);

    files.write("d/50.conf", "maxPods: 1\n");
    let error = resolve(&["--config-dir", &directory]).unwrap_err().to_string();
    assert!(
        error.ends_with("50.conf: Object 'apiVersion' is missing; want kubelet.config.k8s.io/v1beta1"),
        "{error}"
    );
    assert!(resolve(&["--config-dir", "/missing"]).is_err());
}

#[test]
fn a_node_without_an_apiserver_asks_nobody() {
    let files = Files::new();
    let quiet = files.write("quiet.yaml", HEADER);
    let config = resolve(&["--config", &quiet]).unwrap().config;
    assert!(!config.authentication.webhook.enabled && !config.authentication.anonymous.enabled);
    assert_eq!(config.authorization.mode, KubeletAuthorizationMode::AlwaysAllow);

    let asking = files.write("asking.yaml", &format!("{HEADER}authorization: {{mode: Webhook}}\n"));
    let error = resolve(&["--config", &asking]).unwrap_err().to_string();
    assert!(error.contains("no client provided, cannot use webhook authorization"), "{error}");

    let config = resolve(&["--config", &asking, "--kubeconfig=/k"]).unwrap().config;
    assert!(config.authentication.webhook.enabled);
}
