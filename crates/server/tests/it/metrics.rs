//! What Prometheus and metrics-server read.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use coracle_core::machine::{FileSystem, MachineInfo, NodeMemory, NodeUsage, ProcessUsage};
use coracle_core::ports::{NodeUsageSource, VolumeUsage};
use coracle_core::stats::{ContainerUsage, PodUsage, PodsUsage};
use coracle_provider::{
    ContainerState, ContainerStats, ContainerStatus, DiskStats, ImageSpec, InterfaceStats, MemoryStats,
    NetworkStats, PodRef, Resources, Revision,
};
use coracle_server::About;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::fakes::FakeHost;
use crate::server::{Http1, Setup, TestServer};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) struct FakeNode;

impl NodeUsageSource for FakeNode {
    fn file_system(&self, _folder: &Path) -> Result<FileSystem, String> {
        Err("the API shows no other disk".to_owned())
    }

    fn node_usage(&self) -> Result<NodeUsage, String> {
        let interface = InterfaceStats { name: "eth0".into(), rx_bytes: 1000, ..InterfaceStats::default() };
        Ok(NodeUsage {
            timestamp: at(2000),
            boot_time: at(1000),
            cpu_usage_core_nanos: 12_500_000_000,
            memory: NodeMemory {
                available_bytes: 70,
                usage_bytes: 40,
                working_set_bytes: 30,
                ..NodeMemory::default()
            },
            swap: Some((6, 4)),
            root_fs: FileSystem {
                device: 1,
                capacity_bytes: 100,
                available_bytes: 60,
                used_bytes: 40,
                inodes: 10,
                inodes_free: 7,
            },
            interfaces: vec![interface],
            max_pids: 1000,
            pids: 50,
            kubelet: ProcessUsage {
                started_at: at(1500),
                cpu_nanos: 2_000_000_000,
                resident_bytes: 20,
                ..ProcessUsage::default()
            },
        })
    }
}

/// A pod `ns/web` whose containers `a` and `b` have used 1.5 and 2.25 seconds.
pub(crate) fn usage() -> PodsUsage {
    let pod = PodRef { uid: "uid-web".into(), namespace: "ns".into(), name: "web".into() };
    let container = |name: &str, cpu_usage_core_nanos: u64, bytes: u64| {
        let resources = Resources {
            cpu_limit_millis: Some(500),
            cpu_request_millis: Some(250),
            memory_limit_bytes: Some(4096),
            memory_request_bytes: None,
        };
        let status = ContainerStatus {
            id: format!("id-{name}"),
            sandbox_id: "sandbox".into(),
            pod: pod.clone(),
            name: name.into(),
            attempt: 0,
            state: ContainerState::Running,
            created_at: at(1800),
            started_at: Some(at(1801)),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: ImageSpec::default(),
            image_id: "registry.example.com/web@sha256:1".into(),
            labels: [].into(),
            annotations: [].into(),
            log_path: PathBuf::new(),
            mounts: Vec::new(),
            resources,
            revision: Revision::default(),
        };
        ContainerUsage {
            status: Arc::new(status),
            stats: ContainerStats {
                id: format!("id-{name}"),
                pod: pod.clone(),
                name: name.into(),
                timestamp: at(2000),
                cpu_usage_core_nanos,
                memory: MemoryStats { working_set_bytes: bytes, usage_bytes: bytes, rss_bytes: bytes },
                ..ContainerStats::default()
            },
            cpu_usage_nano_cores: Some(7),
            logs: Some(DiskStats { used_bytes: 8192, inodes_used: 2 }),
        }
    };
    let containers = vec![container("a", 1_500_000_000, 1000), container("b", 2_250_000_000, 24)];
    let interface =
        InterfaceStats { name: "eth0".into(), rx_bytes: 11, tx_bytes: 12, rx_errors: 0, tx_errors: 1 };
    let network =
        NetworkStats { sandbox_id: "sandbox".into(), timestamp: at(2000), interfaces: vec![interface] };
    let pod = PodUsage {
        pod,
        sandbox_id: "sandbox".into(),
        started_at: at(1799),
        containers,
        network: Some(network),
        volumes: vec![volume("data", true), volume("kube-api-access", false)],
    };
    PodsUsage { pods: vec![pod], failed: vec![] }
}

fn volume(name: &str, is_ephemeral: bool) -> VolumeUsage {
    let file_system = FileSystem {
        capacity_bytes: 1000,
        available_bytes: 600,
        inodes: 9,
        inodes_free: 5,
        ..FileSystem::default()
    };
    VolumeUsage {
        volume: name.into(),
        at: at(2000),
        used_bytes: 300,
        inodes_used: 3,
        file_system,
        is_ephemeral,
    }
}

pub(crate) async fn server(usage: PodsUsage) -> TestServer {
    let host = Arc::new(FakeHost::default());
    *host.usage.lock() = usage;
    let mut setup = Setup { host, ..Setup::default() };
    setup.options.about = About {
        node_name: "node-1".into(),
        version: "v1.37.2+coracle.9.9.9".into(),
        machine: MachineInfo { cpus: 2, memory_bytes: 100, boot_id: "boot".into(), ..MachineInfo::default() },
        node_usage: Arc::new(FakeNode),
        ..About::default()
    };
    TestServer::start(setup).await
}

async fn lines(client: &mut Http1, path: &str) -> String {
    let answer = client.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    answer.body
}

fn assert_lines(body: &str, expected: &[&str]) {
    for line in expected {
        assert!(body.lines().any(|other| other == *line), "there is no {line} in\n{body}");
    }
}

#[tokio::test]
async fn metrics_server_finds_processors_and_memory_with_their_times() {
    let server = server(usage()).await;
    let body = lines(&mut server.admin().await, "/metrics/resource").await;
    assert_lines(
        &body,
        &[
            "# TYPE container_cpu_usage_seconds_total counter",
            r#"container_cpu_usage_seconds_total{container="a",namespace="ns",pod="web"} 1.5 2000000"#,
            r#"container_cpu_usage_seconds_total{container="b",namespace="ns",pod="web"} 2.25 2000000"#,
            "# TYPE container_memory_working_set_bytes gauge",
            r#"container_memory_working_set_bytes{container="a",namespace="ns",pod="web"} 1000 2000000"#,
            r#"container_start_time_seconds{container="a",namespace="ns",pod="web"} 1801"#,
            "node_cpu_usage_seconds_total 12.5 2000000",
            "node_memory_working_set_bytes 30 2000000",
            "node_swap_usage_bytes 4 2000000",
            r#"pod_cpu_usage_seconds_total{namespace="ns",pod="web"} 3.75 2000000"#,
            r#"pod_memory_working_set_bytes{namespace="ns",pod="web"} 1024 2000000"#,
            "resource_scrape_error 0",
            "scrape_error 0",
        ],
    );
}

#[tokio::test]
async fn a_provider_that_cannot_say_is_a_scrape_error_and_hides_nothing_else() {
    let usage = PodsUsage { failed: vec![("broken", "down".into())], ..usage() };
    let body = lines(&mut server(usage).await.admin().await, "/metrics/resource").await;
    let pod = r#"pod_memory_working_set_bytes{namespace="ns",pod="web"} 1024 2000000"#;
    assert_lines(&body, &["resource_scrape_error 1", pod]);
}

#[tokio::test]
async fn dashboards_find_containers_pods_and_the_machine() {
    let server = server(usage()).await;
    let body = lines(&mut server.admin().await, "/metrics/cadvisor").await;
    let container = r#"id="/kubepods/poduid-web/id-a",image="registry.example.com/web@sha256:1",name="id-a",namespace="ns",pod="web""#;
    let pod = r#"id="/kubepods/poduid-web",image="""#;
    for line in [
        format!(r#"container_memory_working_set_bytes{{container="a",{container}}} 1000 2000000"#),
        format!(r#"container_memory_working_set_bytes{{container="",{pod},name="",namespace="ns",pod="web"}} 1024 2000000"#),
        r#"container_memory_working_set_bytes{container="",id="/",image="",name="",namespace="",pod=""} 30 2000000"#.into(),
        format!(r#"container_cpu_usage_seconds_total{{container="a",cpu="total",{container}}} 1.5 2000000"#),
        format!(r#"container_spec_cpu_quota{{container="a",{container}}} 50000"#),
        format!(r#"container_spec_cpu_shares{{container="a",{container}}} 256"#),
        format!(r#"container_spec_memory_limit_bytes{{container="a",{container}}} 4096"#),
        format!(r#"container_network_receive_bytes_total{{container="",{pod},interface="eth0",name="sandbox",namespace="ns",pod="web"}} 11 2000000"#),
        r#"machine_cpu_cores{boot_id="boot",machine_id="",system_uuid=""} 2"#.into(),
        "container_scrape_error 0".into(),
    ] {
        assert_lines(&body, &[&line]);
    }
}

#[tokio::test]
async fn the_kubelet_tells_of_itself() {
    let server = server(usage()).await;
    let mut admin = server.admin().await;
    admin.get("/healthz").await;
    let body = lines(&mut admin, "/metrics").await;
    assert_lines(
        &body,
        &[
            r#"kubelet_node_name{node="node-1"} 1"#,
            "kubelet_running_pods 2",
            r#"kubelet_running_containers{container_state="running"} 3"#,
            r#"kubelet_desired_pods{static=""} 4"#,
            r#"kubelet_active_pods{static="true"} 1"#,
            "kubelet_mirror_pods 1",
            "process_cpu_seconds_total 2",
            "process_start_time_seconds 1500",
        ],
    );
    assert!(
        body.contains(r#"kubernetes_build_info{git_version="v1.37.2+coracle.9.9.9",major="1",minor="37","#),
        "{body}"
    );
    let requests = r#"kubelet_http_requests_total{long_running="false",method="GET",path="healthz",server_type="readwrite"}"#;
    assert!(body.contains(requests), "{body}");
    let slis = lines(&mut admin, "/metrics/slis").await;
    assert_lines(
        &slis,
        &[r#"kubernetes_healthcheck{name="ping",type="healthz"} 1"#, "process_start_time_seconds 1500"],
    );
}

/// What upstream's own names do against the style that `promtool` knows.
const UPSTREAMS_STYLE: [&str; 2] = ["container_memory_rss", "cadvisor_version_info"];

#[tokio::test]
async fn promtool_accepts_all_of_it() {
    let server = server(usage()).await;
    let mut admin = server.admin().await;
    admin.get("/healthz").await;
    coracle_core::metrics::register();
    coracle_core::metrics::PROBER_RESULTS
        .with_label_values(&["c", "ns", "pod", "uid", "Readiness", "successful"])
        .inc();
    for path in ["/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/metrics/slis"] {
        let body = lines(&mut admin, path).await;
        let complaints = promtool(&body).await;
        let unknown: Vec<_> = complaints
            .lines()
            .filter(|line| !UPSTREAMS_STYLE.iter().any(|name| line.starts_with(name)))
            .collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}\n{body}");
    }
    let broken = promtool("a{b=c} 1\n").await;
    assert!(broken.contains("error while linting"), "{broken}");
}

/// What `promtool check metrics` has to say.
async fn promtool(metrics: &str) -> String {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).unwrap();
    let bed = set("CORACLE_BED").unwrap_or_else(|| cache().join("coracle/bed/current"));
    let program = bed.join("promtool");
    assert!(program.exists(), "{} is missing: run `cargo xtask setup`", program.display());
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Where metrics get their names.
const SOURCES: [&str; 7] = [
    include_str!("../../../core/src/metrics.rs"),
    include_str!("../../src/metrics/cadvisor.rs"),
    include_str!("../../src/metrics/http.rs"),
    include_str!("../../src/metrics/kubelet.rs"),
    include_str!("../../src/metrics/resource.rs"),
    include_str!("../../src/metrics/slis.rs"),
    include_str!("../../../../providers/wasm/src/metrics.rs"),
];

#[test]
fn the_dashboard_and_the_rules_ask_for_metrics_that_there_are() {
    let dashboard = include_str!("../../../../deploy/monitoring/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let rules = include_str!("../../../../deploy/monitoring/alerts.yaml");
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap()).chain([rules]);
    let mut asked = 0;
    for query in queries {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let prefixes = ["kubelet_", "container_", "coracle_wasm_", "prober_", "process_", "resource_"];
        for word in words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))) {
            // A label, and a sentence about a metric.
            if word == "container_state" {
                continue;
            }
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            let quoted = format!("\"{name}\"");
            assert!(SOURCES.iter().any(|source| source.contains(&quoted)), "nobody counts {name}");
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
}
