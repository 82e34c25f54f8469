//! The command line: pflag's spellings, precedence, and the three answers.

use std::path::Path;
use std::time::Duration;

use super::{Files, args, resolve};
use coracle::config::{LogFormat, TlsMinVersion, flags};
use coracle_wasm::network::{Network, NetworkConfig};

const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nport: 1001\nmaxPods: 1\n\
    registerNode: false\nclusterDNS: [10.0.0.1]\nfeatureGates: {EventedPLEG: true, AllBeta: true}\n";

#[test]
fn flags_win_over_the_file() {
    let files = Files::new();
    let config = files.write("config.yaml", CONFIG);
    let resolved = resolve(&[
        "--config",
        &config,
        "--port=1002",
        "--max-pods",
        "2",
        "--register-node",
        "--cluster-dns=10.0.0.2",
        "--cluster-dns",
        "10.0.0.3,fd00::1",
        "--feature-gates=AllBeta=false",
        "--address=::",
        "--register-with-taints=a=b:NoSchedule",
        "--pod-cidr=10.1.0.0/24",
        "--tls-min-version=VersionTLS13",
        "--logging-format=json",
        "--sync-frequency=90s",
    ])
    .unwrap();
    let config = resolved.config;
    assert_eq!((config.port, config.max_pods, config.register_node), (1002, 2, true));
    assert_eq!(config.cluster_dns.len(), 3);
    assert_eq!(config.address.to_string(), "::");
    assert_eq!(config.register_with_taints[0].effect, "NoSchedule");
    assert_eq!(config.pod_cidr, "10.1.0.0/24");
    assert_eq!((config.tls_min_version, config.logging.format), (TlsMinVersion::Tls13, LogFormat::Json));
    assert_eq!(
        resolved.effective["featureGates"],
        serde_json::json!({"AllBeta": false, "EventedPLEG": true})
    );
    assert_eq!(resolved.effective["syncFrequency"], "1m30s");
    assert_eq!(
        resolved.warnings,
        [
            "feature gate EventedPLEG=true has no effect in this version",
            "deprecated flags: --address, --cluster-dns, --feature-gates, --logging-format, --max-pods, --pod-cidr, --port, \
             --register-node, --register-with-taints, --sync-frequency, --tls-min-version; set their fields in the file \
             given by --config",
        ]
    );
}

#[test]
fn dead_containers_are_kept_as_flags_say() {
    let gc = |given: &[&str]| resolve(given).unwrap().flags.container_gc;
    let default = gc(&[]);
    assert_eq!((default.max_per_pod_container, default.max_containers), (Some(1), None));
    let given = gc(&[
        "--maximum-dead-containers=100",
        "--maximum-dead-containers-per-container=-1",
        "--minimum-container-ttl-duration=90s",
    ]);
    assert_eq!((given.max_per_pod_container, given.max_containers), (None, Some(100)));
    assert_eq!(given.min_age, Duration::from_secs(90));
    assert!(resolve(&["--maximum-dead-containers=many"]).is_err());
    let error = resolve(&["--minimum-container-ttl-duration=-1s"]).unwrap_err().to_string();
    assert!(error.contains("invalid minimum garbage collection age: -1s"), "{error}");
}

#[test]
fn booleans_take_a_value_only_after_an_equals_sign() {
    let enabled = |given: &[&str]| resolve(given).unwrap().config.enable_server;
    assert!(enabled(&["--enable-server"]));
    assert!(enabled(&["--enable-server=false", "--enable-server=T"]));
    assert!(!enabled(&["--enable-server=false"]));
    assert!(!enabled(&["--enable_server=0"]));
    assert!(args(&["--enable-server", "false"]).is_err());
    assert!(resolve(&["--enable-server=no"]).is_err());
}

#[test]
fn the_log_level_has_all_of_pflags_forms() {
    for form in [&["-v", "4"][..], &["-v4"], &["-v=4"], &["--v", "4"], &["--v=4"], &["-v=1", "--v=4"]] {
        let resolved = resolve(form).unwrap();
        assert_eq!(resolved.config.logging.verbosity, 4, "{form:?}");
        assert!(resolved.warnings.is_empty());
    }
    assert!(resolve(&["-v=-1"]).is_err());
    assert!(resolve(&["-v=x"]).is_err());
    let warnings = resolve(&["--vmodule=kubelet*=5"]).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "KubeletConfiguration.logging.vmodule (--vmodule) has no effect in this version: the patterns name Go files"
        ]
    );
}

#[test]
fn a_value_may_look_like_a_flag_and_underscores_are_dashes() {
    let resolved =
        resolve(&["--oom-score-adj", "-5", "--hostname_override", "Node-1", "--node_labels=a_b=c"]).unwrap();
    assert_eq!(resolved.effective["oomScoreAdj"], -5);
    assert_eq!(resolved.flags.node_name, "node-1");
    assert_eq!(resolved.flags.node_labels["a_b"], "c");
}

#[test]
fn flags_of_the_node_are_checked() {
    let resolved = resolve(&[
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        "--root-dir=/srv/kubelet",
        "--cert-dir=pki",
        "--node-ip=10.0.0.1,fd00::1",
        "--node-labels=a=1,node.kubernetes.io/pool=x",
        "--node-labels=a=2",
    ])
    .unwrap();
    let flags = resolved.flags;
    assert_eq!(flags.kubeconfig.as_deref(), Some(Path::new("/etc/kubernetes/kubelet.conf")));
    assert_eq!(flags.root_dir, Path::new("/srv/kubelet"));
    assert_eq!(flags.cert_dir, std::env::current_dir().unwrap().join("pki"));
    assert_eq!(flags.node_ips.len(), 2);
    assert_eq!(flags.node_labels["a"], "2");
    assert!(resolved.warnings.is_empty());

    let error = resolve(&["--node-labels=kubernetes.io/role=x"]).unwrap_err().to_string();
    assert!(error.starts_with(
        "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [kubernetes.io/role]"
    ));
    let error = resolve(&["--node-ip=here"]).unwrap_err().to_string();
    assert_eq!(error, "invalid argument \"here\" for \"--node-ip\" flag: \"here\" is not an IP address");
}

#[test]
fn a_bad_value_names_its_flag() {
    for (given, message) in [
        (
            "--port=x",
            "invalid argument \"x\" for \"--port\" flag: expected a whole number that fits into 64 bits",
        ),
        (
            "--sync-frequency=1d",
            "invalid argument \"1d\" for \"--sync-frequency\" flag: time: unknown unit \"d\" in duration \"1d\"",
        ),
        (
            "--register-with-taints=a",
            "invalid argument \"a\" for \"--register-with-taints\" flag: invalid taint spec: a",
        ),
        (
            "--feature-gates=A",
            "invalid argument \"A\" for \"--feature-gates\" flag: malformed pair \"A\", expect name=value",
        ),
        (
            "--maximum-dead-containers=x",
            "invalid argument \"x\" for \"--maximum-dead-containers\" flag: expected a whole number that fits into 64 bits",
        ),
        ("--max-pods=-1", "invalid configuration: maxPods (--max-pods) -1 must not be a negative number"),
        ("--feature-gates=Nope=true", "unrecognized feature gate: Nope"),
    ] {
        assert_eq!(resolve(&[given]).unwrap_err().to_string(), message);
    }
    assert!(args(&["--no-such-flag"]).is_err());
    assert!(args(&["stray"]).is_err());
    assert!(args(&["--port"]).is_err());
}

#[test]
fn flags_without_effect_warn_once_they_change_something() {
    let warnings = |given: &[&str]| resolve(given).unwrap().warnings;
    assert_eq!(
        warnings(&["--runtime-cgroups=/x", "--housekeeping-interval=1s", "--seccomp-default=false"]),
        ["--runtime-cgroups has no effect in this version: there is no container runtime to place"]
    );
    assert_eq!(
        warnings(&["--cpu-manager-policy=static"]),
        [
            "KubeletConfiguration.cpuManagerPolicy (--cpu-manager-policy) has no effect in this version: CPUs, memory and \
             devices are not aligned or pinned",
            "deprecated flags: --cpu-manager-policy; set their fields in the file given by --config",
        ]
    );
}

#[test]
fn refused_flags_say_what_to_do() {
    for (given, message) in [
        (
            "--cloud-provider=external",
            "--cloud-provider is refused: the node cannot be handed to a cloud controller; set --node-ip, --node-labels and \
             --register-with-taints",
        ),
        (
            "--lock-file=/run/kubelet.lock",
            "--lock-file is refused: there is no lock file; let the service manager see to it that one kubelet runs",
        ),
    ] {
        assert_eq!(resolve(&[given]).unwrap_err().to_string(), message);
    }
    let resolved = resolve(&["--container-runtime-endpoint=unix:///run/containerd/containerd.sock"]).unwrap();
    assert_eq!(resolved.config.container_runtime_endpoint, "unix:///run/containerd/containerd.sock");
    assert!(resolve(&["--cloud-provider="]).is_ok());
}

#[test]
fn a_bootstrap_kubeconfig_needs_the_kubeconfig_to_exist() {
    let files = Files::new();
    let bootstrap = "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf";
    let missing = format!("--kubeconfig={}/kubelet.conf", files.directory());
    let error = resolve(&[bootstrap, &missing]).unwrap_err().to_string();
    assert!(error.contains("requesting a client certificate is not built in yet"), "{error}");
    files.write("kubelet.conf", "");
    let warnings = resolve(&[bootstrap, &missing]).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn version_is_a_question_of_its_own() {
    for (given, asks) in
        [("--version", true), ("--version=raw", true), ("--version=false", false), ("-v=2", false)]
    {
        assert_eq!(args(&[given]).unwrap().version().unwrap(), asks, "{given}");
    }
    assert!(resolve(&["--version=v1.2.3"]).is_err());
}

#[test]
fn help_shows_what_works_and_long_help_all() {
    let short = args(&["-h"]).unwrap_err().to_string();
    assert!(short.contains("--kubeconfig") && short.contains("--max-pods"), "{short}");
    assert!(!short.contains("--cpu-manager-policy"), "{short}");
    let long = args(&["--help"]).unwrap_err().to_string();
    assert!(long.contains("--cpu-manager-policy") && long.contains("--lock-file"), "{long}");
}

#[tokio::test]
async fn limits_of_wasm_are_what_flags_say_and_else_the_runtime_s_own() {
    let options = async |given: &[&str]| {
        let node_addresses = vec![[127, 0, 0, 1].into()];
        let network = NetworkConfig { node_addresses, ..NetworkConfig::default() };
        let network = Network::detect(network).await.unwrap();
        let runtime = tokio::runtime::Handle::current();
        let mut options = coracle_wasm::Options::new("/nowhere", runtime.clone(), runtime, network);
        let defaults = format!("{:?} {:?} {:?}", options.guests, options.compile, options.images);
        resolve(given).unwrap().flags.wasm.apply(&mut options);
        (format!("{:?} {:?} {:?}", options.guests, options.compile, options.images), defaults)
    };
    // What the documentation says is what holds.
    let own: Vec<_> = flags().into_iter().filter(|flag| !flag.is_upstreams()).collect();
    let written = own.iter().filter_map(|flag| {
        let value = flag.unset.default_value()?.to_string();
        Some(format!("--{}={}", flag.name, value.trim_matches('"')))
    });
    let written: Vec<String> = written.collect();
    assert!(written.len() >= 8, "all but the number of processors");
    let (set, defaults) = options(&written.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(set, defaults);
    let (set, _) = options(&[
        "--wasm-default-memory-limit=64Mi",
        "--wasm-max-instances=7",
        "--wasm-guest-threads=3",
        "--wasm-file-threads=5",
        "--wasm-compile-memory-limit=2Gi",
        "--wasm-compile-time-limit=90s",
        "--wasm-compile-output-limit=10Mi",
        "--wasm-max-layer-size=1Mi",
        "--wasm-max-image-size=2Mi",
    ])
    .await;
    for part in [
        "threads: 3, file_threads: 5, instances: 7",
        "default_memory_bytes: 67108864",
        "memory_bytes: 2147483648, cpu: 90s, wall: 90s, output_bytes: 10485760",
        "max_layer_bytes: 1048576, max_image_bytes: 2097152",
    ] {
        assert!(set.contains(part), "{part} in {set}");
    }
    for wrong in ["--wasm-max-instances=-1", "--wasm-max-layer-size=1x", "--wasm-compile-time-limit=1d"] {
        assert!(resolve(&[wrong]).is_err(), "{wrong}");
    }
}
