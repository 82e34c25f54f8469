use serde_json::{Value, json};

use super::*;
use crate::clock;

const ID: &str = "test://id";
const TYPES: [ProbeType; 3] = [ProbeType::Liveness, ProbeType::Readiness, ProbeType::Startup];

/// A worker, and the world that it looks at. The probe has an initial delay that has passed, so that everything counts.
struct Rig {
    worker: Worker,
    results: Results,
    status: PodStatus,
    agent_started_at: Timestamp,
    spread: f64,
}

fn probe_field(probe_type: ProbeType) -> &'static str {
    match probe_type {
        ProbeType::Liveness => "livenessProbe",
        ProbeType::Readiness => "readinessProbe",
        ProbeType::Startup => "startupProbe",
    }
}

fn pod(probe_type: ProbeType, probe: Value, restart_policy: &str) -> Pod {
    let mut container = json!({"name": "c", "image": "i"});
    container[probe_field(probe_type)] = probe;
    serde_json::from_value(json!({
        "metadata": {"uid": "u"}, "spec": {"containers": [container], "restartPolicy": restart_policy},
    }))
    .unwrap()
}

/// The status of a pod whose container is in this state.
fn status(probe_type: ProbeType, state: Value) -> PodStatus {
    let started = probe_type != ProbeType::Startup;
    serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{
        "name": "c", "containerID": ID, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "started": started, "state": state}]}))
    .unwrap()
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
}

fn terminated(exit_code: i32) -> Value {
    json!({"terminated": {"exitCode": exit_code}})
}

impl Rig {
    fn new(probe_type: ProbeType, probe: Value) -> Self {
        Self::of(probe_type, pod(probe_type, probe, "Always"))
    }

    fn of(probe_type: ProbeType, pod: Pod) -> Self {
        let all = pod.containers().iter().chain(pod.init_containers());
        let container = all.into_iter().find(|c| c.name == "c").unwrap().clone();
        let probe = probe_type.of(&container).unwrap();
        let key = ProbeKey { pod_uid: "u".into(), container: "c".into(), probe_type };
        Self {
            worker: Worker::new(key, Arc::new(pod.clone()), &container, probe),
            results: Results::default(),
            status: status(probe_type, running()),
            agent_started_at: clock::now(),
            spread: 0.5,
        }
    }

    fn container(&mut self) -> &mut ContainerStatus {
        &mut self.status.container_statuses.as_mut().unwrap()[0]
    }

    fn next(&mut self) -> Next {
        let seen = Seen {
            status: &self.status,
            started_at: None,
            agent_started_at: self.agent_started_at,
            wall: clock::now(),
            now: Instant::now(),
            spread: self.spread,
        };
        self.worker.next(&seen, &self.results)
    }

    /// Waits until the probe is due, and makes it.
    async fn probe(&mut self, outcome: ProbeOutcome) -> Option<Update> {
        let attempt = self.begin().await;
        self.worker.complete(&attempt, &outcome, Instant::now(), &self.results)
    }

    async fn begin(&mut self) -> Attempt {
        loop {
            match self.next() {
                Next::Probe(attempt) => {
                    self.worker.begin(&attempt, tokio::spawn(std::future::pending::<()>()).abort_handle());
                    return attempt;
                }
                Next::At(at) => tokio::time::sleep_until(at).await,
                other => panic!("no probe, but {other:?}"),
            }
        }
    }

    async fn succeed(&mut self) -> Option<ProbeResult> {
        self.probe(ProbeOutcome::Success(String::new())).await;
        self.result()
    }

    /// Fails once in a way that counts.
    async fn fail(&mut self) -> Option<ProbeResult> {
        loop {
            let attempt = self.begin().await;
            let outcome = ProbeOutcome::Failure(String::new());
            self.worker.complete(&attempt, &outcome, Instant::now(), &self.results);
            if attempt.counts {
                return self.result();
            }
        }
    }

    fn result(&self) -> Option<ProbeResult> {
        self.results.get(self.worker.container_id()?)
    }

    fn run_length(&self) -> u32 {
        self.worker.run.map_or(0, |(_, length)| length)
    }
}

/// A probe of which everything counts from the first try on.
fn counting(extra: Value) -> Value {
    let mut probe = json!({"exec": {"command": ["x"]}, "initialDelaySeconds": 1});
    for (key, value) in extra.as_object().unwrap() {
        probe[key] = value.clone();
    }
    probe
}

fn initial(probe_type: ProbeType) -> ProbeResult {
    match probe_type {
        ProbeType::Liveness => ProbeResult::Success,
        ProbeType::Readiness => ProbeResult::Failure,
        ProbeType::Startup => ProbeResult::Unknown,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_done_depends_on_the_state_of_pod_and_container() {
    for probe_type in TYPES {
        let rig = || Rig::new(probe_type, counting(json!({})));

        let mut failed = rig();
        failed.status.phase = Some("Failed".into());
        assert_eq!(failed.next(), Next::Stop, "{probe_type}: the pod has ended");
        assert_eq!(failed.result(), None);

        let mut other = rig();
        other.container().name = "other".into();
        assert_eq!(other.next(), Next::Wait, "{probe_type}: nothing is known of the container");
        assert_eq!(other.result(), None);
        let mut unmade = rig();
        unmade.container().container_id = None;
        assert_eq!(unmade.next(), Next::Wait, "{probe_type}: it is yet to be made");
        assert_eq!(unmade.result(), None);

        let mut waiting = rig();
        waiting.status = status(probe_type, json!({"waiting": {}}));
        assert_eq!(waiting.next(), Next::Wait, "{probe_type}: it waits");
        assert_eq!(waiting.result(), Some(initial(probe_type)));

        let mut ended = Rig::of(probe_type, pod(probe_type, counting(json!({})), "Never"));
        ended.status = status(probe_type, terminated(0));
        assert_eq!(ended.next(), Next::Stop, "{probe_type}: it has ended");

        let mut deleted = rig();
        let mut pod = (*deleted.worker.pod).clone();
        pod.metadata.deletion_timestamp = Some(clock::api_now());
        deleted.worker.pod = Arc::new(pod);
        if probe_type == ProbeType::Readiness {
            assert_eq!(deleted.succeed().await, Some(ProbeResult::Success));
        } else {
            assert_eq!(deleted.next(), Next::Stop, "{probe_type}: nobody restarts it");
        }

        assert_eq!(rig().succeed().await, Some(ProbeResult::Success), "{probe_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_ends_with_a_container_that_is_not_restarted() {
    let cases = [
        (Some("OnFailure"), None, 1, true),
        (Some("OnFailure"), None, 0, false),
        (Some("Always"), None, 1, true),
        (Some("Always"), None, 0, true),
        (Some("Never"), None, 1, false),
        (Some("Never"), None, 0, false),
        (Some("Never"), Some(1), 1, true),
        (Some("Never"), Some(99), 1, false),
        (None, None, 1, false),
    ];
    for probe_type in TYPES {
        for (policy, rule, exit_code, goes_on) in cases {
            let mut pod = pod(probe_type, counting(json!({})), "Never");
            let container = &mut pod.spec.as_mut().unwrap().containers[0];
            container.restart_policy = policy.map(str::to_owned);
            container.restart_policy_rules = rule.map(|code| {
                serde_json::from_value(json!([{"action": "Restart",
                    "exitCodes": {"operator": "In", "values": [code]}}]))
                .unwrap()
            });
            let mut rig = Rig::of(probe_type, pod);
            rig.status = status(probe_type, terminated(exit_code));
            let expected = if goes_on { Next::Wait } else { Next::Stop };
            assert_eq!(rig.next(), expected, "{probe_type} {policy:?} {rule:?} {exit_code}");
        }
    }
}

/// `TestDoProbeWithContainerRestartAllContainers`.
#[tokio::test(start_paused = true)]
async fn a_container_that_starts_anew_with_all_others_is_probed_again() {
    let rule = || {
        let codes = json!({"operator": "In", "values": [1]});
        serde_json::from_value(json!([{"action": "RestartAllContainers", "exitCodes": codes}])).unwrap()
    };
    for probe_type in TYPES {
        let mut own = pod(probe_type, counting(json!({})), "Never");
        let container = &mut own.spec.as_mut().unwrap().containers[0];
        container.restart_policy = Some("Never".into());
        container.restart_policy_rules = Some(rule());
        let mut rig = Rig::of(probe_type, own);
        rig.status = status(probe_type, terminated(1));
        assert_eq!(rig.next(), Next::Wait, "{probe_type}: it is the reason itself");

        let mut of_another = pod(probe_type, counting(json!({})), "Never");
        let trigger = Container {
            name: "trigger".into(),
            restart_policy: Some("Never".into()),
            restart_policy_rules: Some(rule()),
            ..Container::default()
        };
        of_another.spec.as_mut().unwrap().containers.push(trigger);
        let mut rig = Rig::of(probe_type, of_another);
        rig.status = status(probe_type, terminated(137));
        assert_eq!(rig.next(), Next::Stop, "{probe_type}: it ended by itself");
        let ended = |code| {
            let mut other = status(probe_type, terminated(code)).container_statuses.unwrap().remove(0);
            other.name = "trigger".into();
            other
        };
        for (code, expected) in [(1, Next::Wait), (2, Next::Stop)] {
            rig.status = status(probe_type, terminated(137));
            rig.status.container_statuses.as_mut().unwrap().push(ended(code));
            assert_eq!(rig.next(), expected, "{probe_type}: the other one ended with {code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_is_restarted_whatever_its_pod_says() {
    for probe_type in TYPES {
        let mut pod = pod(probe_type, counting(json!({})), "Never");
        let spec = pod.spec.as_mut().unwrap();
        let mut sidecar = spec.containers.remove(0);
        sidecar.restart_policy = Some("Always".into());
        spec.init_containers = Some(vec![sidecar]);
        let mut rig = Rig::of(probe_type, pod);
        rig.status = status(probe_type, terminated(0));
        rig.status.init_container_statuses = rig.status.container_statuses.take();
        assert_eq!(rig.next(), Next::Wait, "{probe_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_during_the_initial_delay() {
    for probe_type in TYPES {
        let mut rig = Rig::new(probe_type, json!({"initialDelaySeconds": 10}));
        rig.container().state.as_mut().unwrap().running.as_mut().unwrap().started_at = None;
        let start = Instant::now();
        assert_eq!(rig.next(), Next::At(start + Duration::from_secs(10)), "{probe_type}");
        assert_eq!(rig.result(), Some(initial(probe_type)));
        assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }
}

#[tokio::test(start_paused = true)]
async fn the_failure_threshold_counts_failures_in_a_row() {
    use ProbeResult::{Failure, Success};
    let probe = counting(json!({"successThreshold": 1, "failureThreshold": 3}));
    let mut rig = Rig::new(ProbeType::Readiness, probe);
    for round in 0..2 {
        for _ in 0..3 {
            assert_eq!(rig.succeed().await, Some(Success), "{round}");
        }
        for expected in [Success, Success, Failure, Failure, Failure] {
            assert_eq!(rig.fail().await, Some(expected), "{round}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_success_threshold_counts_successes_in_a_row() {
    use ProbeResult::{Failure, Success};
    let probe = counting(json!({"successThreshold": 3, "failureThreshold": 1}));
    let mut rig = Rig::new(ProbeType::Readiness, probe);
    for round in 0..2 {
        for expected in [Failure, Failure, Success, Success, Success] {
            assert_eq!(rig.succeed().await, Some(expected), "{round}");
        }
        assert_eq!(rig.fail().await, Some(Failure), "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_ends_with_the_first_success() {
    let mut rig = Rig::new(ProbeType::Startup, counting(json!({"failureThreshold": 3})));
    assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
    assert_eq!((rig.worker.on_hold, rig.run_length()), (true, 0));
    assert_eq!(rig.next(), Next::Wait);
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_ends_with_the_last_failure() {
    use ProbeResult::{Failure, Unknown};
    let mut rig = Rig::new(ProbeType::Startup, counting(json!({"failureThreshold": 3})));
    for (length, expected) in [(1, Unknown), (2, Unknown), (0, Failure)] {
        assert!(!rig.worker.on_hold);
        assert_eq!((rig.fail().await, rig.run_length()), (Some(expected), length));
    }
    assert!(rig.worker.on_hold);
    assert_eq!(rig.next(), Next::Wait);
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_a_container_that_is_to_be_restarted() {
    for probe_type in [ProbeType::Liveness, ProbeType::Startup] {
        let mut rig = Rig::new(probe_type, counting(json!({"failureThreshold": 1})));
        assert_eq!(rig.fail().await, Some(ProbeResult::Failure));
        assert_eq!(rig.next(), Next::Wait, "{probe_type}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((rig.next(), rig.result()), (Next::Wait, Some(ProbeResult::Failure)));

        rig.container().container_id = Some("test://new".into());
        assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
        assert_eq!(rig.results.get(ID), None, "the old one is forgotten");
        assert_eq!(rig.worker.on_hold, probe_type == ProbeType::Startup);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_container_has_all_its_tries() {
    use ProbeResult::{Failure, Success};
    let mut rig = Rig::new(ProbeType::Liveness, counting(json!({"failureThreshold": 3})));
    assert_eq!((rig.succeed().await, rig.run_length()), (Some(Success), 1));
    assert_eq!((rig.fail().await, rig.run_length()), (Some(Success), 1));
    assert_eq!((rig.fail().await, rig.run_length()), (Some(Success), 2));
    assert_eq!((rig.fail().await, rig.run_length()), (Some(Failure), 0));

    rig.container().container_id = Some("test://second".into());
    assert_eq!(rig.fail().await, Some(Success));
    assert_eq!(rig.fail().await, Some(Success));
    // It ended by itself this time.
    rig.container().container_id = Some("test://third".into());
    for expected in [Success, Success, Failure] {
        assert_eq!(rig.fail().await, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn the_startup_probe_comes_first_and_then_no_more() {
    for probe_type in [ProbeType::Liveness, ProbeType::Readiness] {
        let mut rig = Rig::new(probe_type, counting(json!({"failureThreshold": 1})));
        rig.container().started = Some(false);
        assert_eq!(rig.next(), Next::Wait, "{probe_type}");
        assert_eq!(rig.result(), Some(initial(probe_type)));
        rig.container().started = Some(true);
        assert_eq!(rig.fail().await, Some(ProbeResult::Failure));
    }
    let mut rig = Rig::new(ProbeType::Startup, counting(json!({"failureThreshold": 2})));
    assert_eq!(rig.fail().await, Some(ProbeResult::Unknown));
    assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
    rig.container().started = Some(true);
    assert_eq!(rig.next(), Next::Wait);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_counts_as_nothing() {
    for probe_type in TYPES {
        let mut rig = Rig::new(probe_type, counting(json!({"failureThreshold": 1})));
        for _ in 0..5 {
            let before = Instant::now();
            assert_eq!(rig.probe(ProbeOutcome::Unknown("no".into())).await, None);
            assert_eq!(rig.result(), Some(initial(probe_type)), "{probe_type}");
            assert!(before.elapsed() <= Duration::from_secs(10));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_once() {
    let mut rig = Rig::new(ProbeType::Readiness, counting(json!({"failureThreshold": 1})));
    let update = |result| {
        Some(Update {
            probe_type: ProbeType::Readiness,
            pod_uid: "u".into(),
            container_id: ID.into(),
            result,
        })
    };
    let (good, bad) = (ProbeOutcome::Warning("w".into()), ProbeOutcome::Failure("f".into()));
    assert_eq!(rig.probe(good.clone()).await, update(ProbeResult::Success));
    assert_eq!(rig.probe(good).await, None);
    assert_eq!(rig.probe(bad.clone()).await, update(ProbeResult::Failure));
    assert_eq!(rig.probe(bad).await, None);
}

/// What the API says of the container, and the result that its probe begins with.
#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_agent_a_container_is_what_it_was() {
    use ProbeResult::{Failure, Success, Unknown};
    let cases = [
        (ProbeType::Liveness, true, true, Success),
        (ProbeType::Liveness, false, false, Success),
        (ProbeType::Readiness, true, true, Success),
        (ProbeType::Readiness, true, false, Failure),
        (ProbeType::Startup, true, false, Success),
        (ProbeType::Startup, false, false, Unknown),
    ];
    for (probe_type, started, ready, expected) in cases {
        for is_sidecar in [false, true] {
            let mut rig = Rig::new(probe_type, counting(json!({})));
            rig.container().started = Some(started);
            rig.container().ready = ready;
            if is_sidecar {
                rig.status.init_container_statuses = rig.status.container_statuses.take();
            }
            rig.worker.follow_container(&rig.status, &rig.results);
            assert_eq!(rig.result(), Some(expected), "{probe_type} {started} {ready} {is_sidecar}");
        }
    }
    let mut rig = Rig::new(ProbeType::Readiness, counting(json!({})));
    rig.status = status(ProbeType::Readiness, json!({"waiting": {}}));
    rig.container().ready = true;
    rig.worker.follow_container(&rig.status, &rig.results);
    assert_eq!(rig.result(), Some(Failure), "what does not run is not ready");
}

#[tokio::test(start_paused = true)]
async fn probes_of_adopted_containers_are_spread_over_a_period() {
    for (probe_type, spread) in [(ProbeType::Liveness, 0.25), (ProbeType::Readiness, 0.75)] {
        let mut rig = Rig::new(probe_type, json!({"periodSeconds": 20}));
        rig.spread = spread;
        rig.agent_started_at = clock::now();
        let container_started_at = rig.agent_started_at - SignedDuration::from_mins(5);
        let start = Instant::now();
        let seen = Seen {
            status: &rig.status,
            started_at: Some(container_started_at),
            agent_started_at: rig.agent_started_at,
            wall: clock::now(),
            now: start,
            spread,
        };
        let due = start + Duration::from_secs(20).mul_f64(spread);
        assert_eq!(rig.worker.next(&seen, &rig.results), Next::At(due), "{probe_type}");
        for expected in [0, 20, 40] {
            let attempt = rig.begin().await;
            assert!(attempt.counts);
            rig.worker.complete(
                &attempt,
                &ProbeOutcome::Success(String::new()),
                Instant::now(),
                &rig.results,
            );
            assert_eq!((Instant::now() - due).as_secs(), expected);
        }
    }
}

/// When tries are made (in milliseconds after the start of the container), and which of them count, if all fail.
async fn tries(
    probe_type: ProbeType,
    probe: Value,
    has_startup_probe: bool,
    count: usize,
) -> Vec<(u128, bool)> {
    let mut pod = pod(probe_type, probe, "Always");
    if has_startup_probe && probe_type != ProbeType::Startup {
        pod.spec.as_mut().unwrap().containers[0].startup_probe = Some(Probe::default());
    }
    let mut rig = Rig::of(probe_type, pod);
    let start = Instant::now();
    let mut tries = Vec::new();
    for _ in 0..count {
        let attempt = rig.begin().await;
        tries.push((start.elapsed().as_millis(), attempt.counts));
        rig.worker.complete(&attempt, &ProbeOutcome::Failure(String::new()), Instant::now(), &rig.results);
    }
    tries
}

#[tokio::test(start_paused = true)]
async fn early_tries_count_only_if_they_succeed() {
    let early = |times: &[u128]| times.iter().map(|t| (*t, false)).collect::<Vec<_>>();
    let counted = |times: &[u128]| times.iter().map(|t| (*t, true)).collect::<Vec<_>>();
    let tcp = |delay: u32, period: u32| {
        json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": delay, "periodSeconds": period,
            "failureThreshold": 100})
    };
    for probe_type in [ProbeType::Readiness, ProbeType::Startup] {
        let actual = tries(probe_type, tcp(0, 10), false, 10).await;
        let expected = early(&[0, 100, 300, 700, 1500, 3100, 6300]);
        assert_eq!(actual, [expected, counted(&[10_000, 20_000, 30_000])].concat(), "{probe_type}");

        let actual = tries(probe_type, tcp(5, 2), false, 8).await;
        let expected = [counted(&[5000]), early(&[5100, 5300, 5700, 6500]), counted(&[7000, 9000, 11_000])];
        assert_eq!(actual, expected.concat(), "{probe_type}: with an initial delay the first one counts");

        let exec = json!({"exec": {"command": ["x"]}, "failureThreshold": 100});
        let actual = tries(probe_type, exec, false, 6).await;
        let expected = [early(&[0, 1000, 3000, 7000]), counted(&[10_000, 20_000])].concat();
        assert_eq!(actual, expected, "{probe_type}: a command is more work");
    }
    let actual = tries(ProbeType::Readiness, tcp(0, 1), true, 6).await;
    let expected = [counted(&[0]), early(&[100, 300, 700]), counted(&[1000, 2000])].concat();
    assert_eq!(actual, expected, "the startup probe has done the waiting");

    assert_eq!(tries(ProbeType::Liveness, tcp(0, 10), false, 3).await, counted(&[10_000, 20_000, 30_000]));
    assert_eq!(tries(ProbeType::Liveness, tcp(3, 10), false, 3).await, counted(&[3000, 13_000, 23_000]));
    assert_eq!(tries(ProbeType::Liveness, tcp(0, 10), true, 3).await, counted(&[0, 10_000, 20_000]));
}

#[tokio::test(start_paused = true)]
async fn an_early_success_begins_the_period_anew() {
    let mut rig = Rig::new(ProbeType::Readiness, json!({"tcpSocket": {"port": 1}, "failureThreshold": 1}));
    let start = Instant::now();
    for _ in 0..3 {
        rig.probe(ProbeOutcome::Failure(String::new())).await;
    }
    assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
    assert_eq!(start.elapsed().as_millis(), 700);
    assert_eq!(rig.fail().await, Some(ProbeResult::Failure), "from now on failures count");
    assert_eq!(start.elapsed().as_millis(), 10_700);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_takes_longer_than_its_period_is_followed_by_one_at_once() {
    let mut rig = Rig::new(ProbeType::Liveness, counting(json!({"periodSeconds": 1, "failureThreshold": 9})));
    let good = ProbeOutcome::Success(String::new());
    let attempt = rig.begin().await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert_eq!(rig.next(), Next::Wait, "one at a time");
    rig.worker.complete(&attempt, &good, Instant::now(), &rig.results);
    for expected in [5500, 6500, 7500] {
        let attempt = rig.begin().await;
        assert_eq!(began.elapsed().as_millis(), expected);
        rig.worker.complete(&attempt, &good, Instant::now(), &rig.results);
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_ends_with_its_container() {
    let mut rig = Rig::new(ProbeType::Liveness, counting(json!({})));
    let attempt = rig.begin().await;
    assert!(rig.worker.is_current(&attempt));
    rig.container().container_id = Some("test://new".into());
    rig.next();
    assert!(!rig.worker.is_current(&attempt), "another container");
    let attempt = rig.begin().await;
    rig.container().state = Some(serde_json::from_value(terminated(1)).unwrap());
    rig.next();
    assert!(!rig.worker.is_current(&attempt), "it does not run");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_comes_back_has_to_show_anew_that_it_is_ready() {
    let mut rig = Rig::new(ProbeType::Readiness, counting(json!({})));
    assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
    rig.container().state = Some(serde_json::from_value(json!({"waiting": {}})).unwrap());
    assert_eq!((rig.next(), rig.result()), (Next::Wait, Some(ProbeResult::Failure)));
    rig.container().state = Some(serde_json::from_value(running()).unwrap());
    assert_eq!(rig.succeed().await, Some(ProbeResult::Success));
}
