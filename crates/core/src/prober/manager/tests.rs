use std::time::Duration;

use coracle_provider::fake::{Call, FakeExec, FakeProvider};
use coracle_provider::{ContainerConfig, Error, ExecSyncResponse, RuntimeService, SandboxConfig};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::fakes::{FakeSink, FakeTransport};
use crate::ports::ProbeOutcome;
use crate::prober::results::ProbeResult;
use crate::providers::{Providers, RegisteredProvider};
use crate::recorder::Recorder;

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    manager: Arc<Manager>,
    updates: mpsc::Receiver<Update>,
    status_manager: Arc<StatusManager>,
    results: Arc<ProbeResults>,
    transport: Arc<FakeTransport>,
    provider: Arc<FakeProvider>,
    sink: Arc<FakeSink>,
    _scheduler: JoinSet<()>,
}

impl Rig {
    fn new() -> Self {
        let sink = Arc::new(FakeSink::default());
        let transport = FakeTransport::new();
        let provider = FakeProvider::new("fake", clock::now);
        let providers = Providers::new(vec![RegisteredProvider {
            provider: provider.clone(),
            handlers: Vec::new(),
            relist_period: 10 * SECOND,
        }]);
        let results = Arc::new(ProbeResults::default());
        let status_manager = Arc::new(StatusManager::new(sink.clone(), Arc::default()));
        let prober = Prober::new(transport.clone(), providers, Recorder::new(sink.clone()));
        let (manager, updates) =
            Manager::new(results.clone(), status_manager.clone(), Arc::default(), prober);
        let manager = Arc::new(manager);
        let mut scheduler = JoinSet::new();
        scheduler.spawn(manager.clone().run());
        Self { manager, updates, status_manager, results, transport, provider, sink, _scheduler: scheduler }
    }

    /// Containers `c0`, `c1`, … run with these statuses; then the probes are told.
    fn run_containers(&self, pod: &Arc<Pod>) {
        let ids = (0..pod.containers().len()).map(|i| format!("fake://{}-{i}", pod.uid()));
        self.run_as(pod, &ids.collect::<Vec<_>>());
    }

    fn run_as(&self, pod: &Arc<Pod>, ids: &[String]) {
        let statuses: Vec<Value> = pod
            .containers()
            .iter()
            .zip(ids)
            .map(|(c, id)| {
                json!({"name": c.name, "containerID": id, "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "started": true, "state": {"running": {}}})
            })
            .collect();
        let status: PodStatus = serde_json::from_value(
            json!({"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": statuses}),
        )
        .unwrap();
        self.status_manager.set_pod_status(pod, status);
        self.manager.pod_status_set(&pod.uid());
    }

    /// A running container of the fake provider.
    async fn real_container(&self, pod: &Arc<Pod>) {
        let sandbox = SandboxConfig { pod: pod.pod_ref(), ..SandboxConfig::default() };
        let sandbox = self.provider.run_sandbox(sandbox).await.unwrap();
        let config = ContainerConfig { name: "c0".into(), ..ContainerConfig::default() };
        let container = self.provider.create_container(&sandbox.id, config).await.unwrap();
        self.provider.start_container(&container.id).await.unwrap();
        self.run_as(pod, &[format!("fake://{}", container.id)]);
    }

    /// Whether there is any result of any of these containers.
    fn has_results(&self, pods: &[&str]) -> bool {
        let ids = pods.iter().flat_map(|uid| (0..4).map(move |i| format!("fake://{uid}-{i}")));
        let types = [&self.results.liveness, &self.results.readiness, &self.results.startup];
        ids.into_iter().any(|id| types.iter().any(|results| results.get(&id).is_some()))
    }

    fn probes(&self) -> Vec<String> {
        let workers = self.manager.workers.lock();
        let mut probes: Vec<String> = workers
            .values()
            .flatten()
            .map(|w| format!("{} {} {}", w.key.pod_uid, w.key.container, w.key.probe_type))
            .collect();
        probes.sort();
        probes
    }
}

/// A pod whose containers have these probes.
fn pod(uid: &str, containers: &[(&str, Value)]) -> Arc<Pod> {
    let containers: Vec<Value> = containers
        .iter()
        .enumerate()
        .map(|(i, (kind, probe))| {
            let mut container = json!({"name": format!("c{i}"), "image": "i"});
            if !kind.is_empty() {
                container[*kind] = probe.clone();
            }
            container
        })
        .collect();
    Arc::new(
        serde_json::from_value(json!({"metadata": {"uid": uid, "namespace": "ns", "name": uid},
            "spec": {"containers": containers}}))
        .unwrap(),
    )
}

fn tcp(port: i32) -> Value {
    json!({"tcpSocket": {"port": port}, "initialDelaySeconds": 1})
}

fn all_kinds(uid: &str) -> Arc<Pod> {
    pod(
        uid,
        &[("", json!({})), ("readinessProbe", tcp(1)), ("livenessProbe", tcp(2)), ("startupProbe", tcp(3))],
    )
}

fn probes_of_all_kinds(uid: &str) -> Vec<String> {
    ["c1 Readiness", "c2 Liveness", "c3 Startup"].map(|probe| format!("{uid} {probe}")).to_vec()
}

#[tokio::test(start_paused = true)]
async fn pods_come_and_go() {
    let rig = Rig::new();
    let without = pod("none", &[("", json!({})), ("", json!({}))]);
    rig.manager.add_pod(&without);
    assert!(rig.probes().is_empty());
    rig.manager.add_pod(&all_kinds("a"));
    rig.manager.add_pod(&all_kinds("a"));
    assert_eq!(rig.probes(), probes_of_all_kinds("a"));
    rig.manager.remove_pod("none");
    assert_eq!(rig.probes().len(), 3);

    rig.manager.stop_liveness_and_startup("a");
    assert_eq!(rig.probes(), ["a c1 Readiness"]);
    rig.manager.add_pod(&all_kinds("a"));
    assert_eq!(rig.probes(), probes_of_all_kinds("a"), "those that are missing");
    rig.manager.remove_pod("a");
    rig.manager.remove_pod("a");
    assert!(rig.probes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn sidecars_are_probed_and_other_init_containers_are_not() {
    for (policy, expected) in [(None, 0), (Some("Always"), 3)] {
        let rig = Rig::new();
        let init = json!({"name": "init", "image": "i", "restartPolicy": policy,
            "livenessProbe": tcp(1), "readinessProbe": tcp(2), "startupProbe": tcp(3)});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "a"},
            "spec": {"initContainers": [{"name": "first", "image": "i"}, init],
                "containers": [{"name": "main", "image": "i"}]}}))
        .unwrap();
        rig.manager.add_pod(&Arc::new(pod));
        assert_eq!(rig.probes().len(), expected, "{policy:?}");
        rig.manager.stop_liveness_and_startup("a");
        assert_eq!(rig.probes().len(), expected / 3);
        rig.manager.remove_pod("a");
        assert!(rig.probes().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_run_are_cleaned_up() {
    let rig = Rig::new();
    for uid in ["gone", "keep"] {
        let pod = all_kinds(uid);
        rig.manager.add_pod(&pod);
        rig.run_containers(&pod);
    }
    sleep(2 * SECOND).await;
    assert!(rig.has_results(&["gone"]) && rig.has_results(&["keep"]));
    rig.manager.cleanup_pods(|uid| uid.as_str() == "keep");
    assert_eq!(rig.probes(), probes_of_all_kinds("keep"));
    assert!(!rig.has_results(&["gone"]) && rig.has_results(&["keep"]));
    for _ in 0..10 {
        rig.manager.cleanup_pods(|_| false);
    }
    assert!(rig.probes().is_empty() && !rig.has_results(&["a", "gone", "keep"]));
}

#[tokio::test(start_paused = true)]
async fn changes_of_readiness_are_told() {
    let mut rig = Rig::new();
    let pod = pod("a", &[("readinessProbe", json!({"tcpSocket": {"port": 1}, "failureThreshold": 1}))]);
    rig.manager.add_pod(&pod);
    sleep(100 * SECOND).await;
    assert_eq!(rig.transport.asked("1"), [], "there is no container yet");
    rig.run_containers(&pod);
    let started = Instant::now();
    let update = |result| Update {
        probe_type: ProbeType::Readiness,
        pod_uid: "a".into(),
        container_id: "fake://a-0".into(),
        result,
    };
    assert_eq!(rig.updates.recv().await, Some(update(ProbeResult::Success)));
    assert_eq!(started.elapsed(), Duration::ZERO, "the first one waits for nothing");
    rig.transport.set("1", Duration::ZERO, ProbeOutcome::Failure("down".into()));
    assert_eq!(rig.updates.recv().await, Some(update(ProbeResult::Failure)));
    assert_eq!(started.elapsed(), 10 * SECOND);
    assert_eq!(rig.sink.told(), ["Unhealthy: Readiness probe failed: down"]);
    let object = rig.sink.events.lock()[0].object.clone();
    assert_eq!(object.field_path.as_deref(), Some("spec.containers{c0}"));
    rig.transport.set("1", Duration::ZERO, ProbeOutcome::Warning("odd".into()));
    assert_eq!(rig.updates.recv().await, Some(update(ProbeResult::Success)));
    assert_eq!(rig.sink.told()[1..], ["ProbeWarning: Readiness probe warning: odd"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pod_ends_what_is_asked_about_it() {
    let rig = Rig::new();
    let pod = pod("a", &[("livenessProbe", tcp(1)), ("readinessProbe", tcp(2))]);
    for port in ["1", "2"] {
        rig.transport.set(port, 2 * SECOND, ProbeOutcome::Failure("too late".into()));
    }
    rig.manager.add_pod(&pod);
    rig.run_containers(&pod);
    sleep(2 * SECOND).await;
    assert_eq!((rig.transport.asked("1").len(), rig.transport.asked("2").len()), (1, 1));
    rig.manager.remove_pod("a");
    sleep(60 * SECOND).await;
    assert_eq!(rig.sink.told(), Vec::<String>::new());
    assert!(!rig.has_results(&["a"]));
    assert_eq!((rig.transport.asked("1").len(), rig.transport.asked("2").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_pod_has_no_probes() {
    let rig = Rig::new();
    let pod = all_kinds("a");
    rig.manager.add_pod(&pod);
    rig.run_containers(&pod);
    sleep(2 * SECOND).await;
    let ended = PodStatus { phase: Some("Failed".into()), ..PodStatus::default() };
    rig.status_manager.set_pod_status(&pod, ended);
    rig.manager.pod_status_set("a");
    sleep(Duration::from_millis(1)).await;
    assert!(rig.probes().is_empty() && !rig.has_results(&["a", "gone", "keep"]));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_probes_cost_no_tasks_and_those_that_hang_hold_up_nobody() {
    const PODS: usize = 2000;
    let rig = Rig::new();
    let hung = json!({"tcpSocket": {"port": 1}, "timeoutSeconds": 500, "initialDelaySeconds": 1});
    rig.transport.set("1", 400 * SECOND, ProbeOutcome::Failure("hung".into()));
    for i in 0..PODS {
        let probe = if i < PODS / 4 { hung.clone() } else { tcp(2) };
        let pod = pod(&format!("p{i}"), &[("livenessProbe", probe)]);
        rig.manager.add_pod(&pod);
        rig.run_containers(&pod);
    }
    let well = PODS - PODS / 4;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 1, "the scheduler");
    for period in 1..=20 {
        sleep(10 * SECOND).await;
        assert_eq!(rig.transport.asked("2").len(), period * well);
        assert_eq!(tasks(), 1 + PODS / 4, "and those that hang");
    }
    assert_eq!(rig.transport.asked("1").len(), PODS / 4);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_run_at_a_time_and_the_rest_follow_in_order() {
    let rig = Rig::new();
    let count = MAX_CONCURRENT_PROBES + 500;
    rig.transport.set("1", SECOND, ProbeOutcome::Success(String::new()));
    for i in 0..count {
        let pod = pod(&format!("p{i}"), &[("livenessProbe", tcp(1))]);
        rig.manager.add_pod(&pod);
        rig.run_containers(&pod);
    }
    let start = Instant::now();
    sleep(5 * SECOND).await;
    let asked = rig.transport.asked("1");
    assert_eq!(asked.len(), count);
    let rounds = asked.iter().filter(|at| (**at - start).as_millis() < 1500).count();
    assert_eq!(rounds, MAX_CONCURRENT_PROBES);
    assert!(asked.iter().all(|at| (*at - start).as_millis() < 2500));
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_does_not_keep_the_timeout_is_not_waited_for() {
    let rig = Rig::new();
    rig.transport.set("1", 1000 * SECOND, ProbeOutcome::Success(String::new()));
    let pod = pod("a", &[("livenessProbe", tcp(1))]);
    rig.manager.add_pod(&pod);
    rig.run_containers(&pod);
    sleep(5 * SECOND).await;
    let told = "Unhealthy: Liveness probe failed: timeout: the probe did not end within 1s";
    assert_eq!(rig.sink.told(), [told]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_made_is_tried_three_times() {
    let rig = Rig::new();
    rig.transport.set("1", Duration::ZERO, ProbeOutcome::Unknown("broken".into()));
    let pod = pod("a", &[("livenessProbe", tcp(1))]);
    rig.manager.add_pod(&pod);
    rig.run_containers(&pod);
    sleep(2 * SECOND).await;
    assert_eq!(rig.transport.asked("1").len(), 3);
    let told = "Unhealthy: Liveness probe errored and resulted in unknown state: broken";
    assert_eq!(rig.sink.told(), [told]);
}

/// What a command comes to, and what is told of it.
#[tokio::test(start_paused = true)]
async fn commands_are_run_by_whoever_runs_the_container() {
    let output =
        |exit_code| Ok(ExecSyncResponse { stdout: b"out ".to_vec(), stderr: b"err".to_vec(), exit_code });
    let cases = [
        (0, output(0), ProbeResult::Success, None),
        (0, output(1), ProbeResult::Failure, Some("Unhealthy: Readiness probe failed: out err")),
        (
            5,
            output(0),
            ProbeResult::Failure,
            Some("Unhealthy: Readiness probe failed: command timed out: \"ask me\" timed out after 2s"),
        ),
        (
            0,
            Err(Error::unimplemented("exec")),
            ProbeResult::Failure,
            Some(
                "Unhealthy: Readiness probe errored and resulted in unknown state: exec is not supported by \
                 this provider",
            ),
        ),
    ];
    for (delay, result, expected, told) in cases {
        let rig = Rig::new();
        rig.provider.set_exec("ask", FakeExec { delay: Duration::from_secs(delay), result });
        let probe =
            json!({"exec": {"command": ["ask", "me"]}, "timeoutSeconds": 2, "initialDelaySeconds": 1});
        let pod = pod("a", &[("readinessProbe", probe)]);
        rig.manager.add_pod(&pod);
        rig.real_container(&pod).await;
        sleep(Duration::from_millis(3900)).await;
        let id = "fake://a-sandbox-0-c0-0";
        assert_eq!(rig.results.readiness.get(id), Some(expected));
        assert_eq!(rig.sink.told().first().map(String::as_str), told);
        assert!(rig.provider.calls(Call::ExecSync) >= 1);
        assert!(rig.provider.executed().iter().all(|(_, command)| *command == ["ask", "me"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_of_an_unknown_runtime_cannot_be_asked() {
    let rig = Rig::new();
    let pod = pod("a", &[("livenessProbe", json!({"exec": {"command": ["x"]}, "initialDelaySeconds": 1}))]);
    rig.manager.add_pod(&pod);
    rig.run_as(&pod, &["other://1".to_owned()]);
    sleep(2 * SECOND).await;
    let error = "the runtime \"other\" is not configured";
    assert_eq!(
        rig.sink.told(),
        [format!("Unhealthy: Liveness probe errored and resulted in unknown state: {error}")]
    );
}
