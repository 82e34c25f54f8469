//! Upstream's tables (`kuberuntime_gc_test.go`).

use std::sync::Arc;

use coracle_provider::fake::{Call, FakeProvider};
use coracle_provider::{ContainerStatus, NetworkMode, PodNetwork, Revision, SandboxState, SandboxStatus};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::fakes::{container_status, pod_ref};
use crate::kuberuntime::RuntimePod;
use crate::providers::RegisteredProvider;

const P: &str = "p";
const HOUR: Duration = Duration::from_secs(3600);

/// A container of a pod: which pod, its name, its attempt, when it was made in seconds, and its state.
type Made = (&'static str, &'static str, u32, i64, ContainerState);

const NOW: i64 = 1_000_000;

fn exited(pod: &'static str, name: &'static str, attempt: u32) -> Made {
    (pod, name, attempt, attempt.into(), ContainerState::Exited)
}

fn pods_of(containers: &[Made]) -> Vec<RuntimePod> {
    let mut pods: Vec<RuntimePod> = Vec::new();
    for (uid, name, attempt, created, state) in containers {
        let status = ContainerStatus {
            state: *state,
            created_at: Timestamp::from_second(*created).unwrap(),
            ..container_status(uid, name, *attempt)
        };
        let container = RuntimeContainer { provider: P, status: Arc::new(status) };
        match pods.iter_mut().find(|pod| &*pod.uid == *uid) {
            Some(pod) => pod.containers.push(container),
            None => pods.push(RuntimePod { containers: vec![container], ..RuntimePod::empty((*uid).into()) }),
        }
    }
    pods.iter_mut().for_each(RuntimePod::sort);
    pods
}

fn policy(max_per_pod_container: Option<usize>, max_containers: Option<usize>) -> GcPolicy {
    GcPolicy { min_age: Duration::from_secs(60), max_per_pod_container, max_containers }
}

/// Which of the containers stay. Pods called `deleted` are not wanted any more.
fn remaining(containers: &[Made], policy: &GcPolicy) -> Vec<usize> {
    let now = Timestamp::from_second(NOW).unwrap();
    let pods = pods_of(containers);
    let removed: Vec<_> = evictable_containers(&pods, policy, now, |uid| uid == "deleted")
        .iter()
        .map(|c| c.id.clone())
        .collect();
    let id = |made: &Made| container_status(made.0, made.1, made.2).id;
    (0..containers.len()).filter(|i| !removed.contains(&id(&containers[*i]))).collect()
}

#[test]
fn dead_containers_are_removed_by_the_policy() {
    let default = || GcPolicy { min_age: HOUR, ..policy(Some(2), Some(6)) };
    let at = |attempt, created, state| ("foo", "bar", attempt, created, state);
    let cases: Vec<(&str, GcPolicy, Vec<Made>, Vec<usize>)> = vec![
        ("no containers may be kept", policy(Some(1), Some(0)), vec![exited("foo", "bar", 0)], vec![]),
        (
            "a limit for all, none for one",
            policy(None, Some(4)),
            (0..5).rev().map(|attempt| exited("foo", "bar", attempt)).collect(),
            vec![0, 1, 2, 3],
        ),
        (
            "no limits",
            policy(None, None),
            (0..3).rev().map(|attempt| exited("foo", "bar", attempt)).collect(),
            vec![0, 1, 2],
        ),
        (
            "young ones stay",
            default(),
            (0..3).rev().map(|attempt| at(attempt, NOW, ContainerState::Exited)).collect(),
            vec![0, 1, 2],
        ),
        (
            "the oldest of one container go",
            default(),
            (0..3).rev().map(|attempt| exited("foo", "bar", attempt)).collect(),
            vec![0, 1],
        ),
        (
            "those that run stay, and do not count",
            default(),
            vec![exited("foo", "bar", 2), exited("foo", "bar", 1), at(0, 0, ContainerState::Running)],
            vec![0, 1, 2],
        ),
        (
            "nothing is over a limit",
            default(),
            vec![exited("foo", "bar", 1), exited("foo", "bar", 0)],
            vec![0, 1],
        ),
        (
            "the limit is one for each container of each pod",
            default(),
            [("foo", "bar"), ("foo1", "baz"), ("foo2", "bar")]
                .into_iter()
                .flat_map(|(pod, name)| (0..3).rev().map(move |attempt| exited(pod, name, attempt)))
                .collect(),
            vec![0, 1, 3, 4, 6, 7],
        ),
        (
            "with a limit for all, every container keeps one",
            default(),
            [("foo", "bar"), ("foo1", "bar1"), ("foo2", "bar2"), ("foo3", "bar3"), ("foo4", "bar4")]
                .into_iter()
                .flat_map(|(pod, name)| (0..2).rev().map(move |attempt| exited(pod, name, attempt)))
                .collect(),
            vec![0, 2, 4, 6, 8],
        ),
        (
            "if that is too many still, the oldest of all go",
            default(),
            vec![
                exited("foo", "bar", 2),
                exited("foo", "bar", 1),
                exited("foo1", "bar1", 2),
                exited("foo1", "bar1", 1),
                exited("foo2", "bar2", 1),
                exited("foo3", "bar3", 0),
                exited("foo4", "bar4", 1),
                exited("foo5", "bar5", 0),
                exited("foo6", "bar6", 2),
                exited("foo7", "bar7", 1),
            ],
            vec![0, 2, 4, 6, 8, 9],
        ),
        (
            "all of a pod that is gone, unless they are young",
            default(),
            vec![
                exited("foo", "bar", 1),
                exited("foo", "bar", 0),
                ("deleted", "bar1", 2, NOW, ContainerState::Exited),
                exited("deleted", "bar1", 1),
                exited("deleted", "bar1", 0),
            ],
            vec![0, 1, 2],
        ),
        (
            "one dead instance beside the one that runs, without flags",
            GcPolicy::default(),
            vec![at(2, 2, ContainerState::Running), exited("foo", "bar", 1), exited("foo", "bar", 0)],
            vec![0, 1],
        ),
    ];
    for (name, policy, containers, expected) in cases {
        assert_eq!(remaining(&containers, &policy), expected, "{name}");
    }
}

#[test]
fn when_a_container_ends_older_instances_go() {
    let running = |attempt| ("foo", "bar", attempt, 0, ContainerState::Running);
    let made = |attempt| ("foo", "bar", attempt, 0, ContainerState::Created);
    let cases: [(&str, Vec<Made>, usize, &[&str]); 6] = [
        ("one is kept", vec![exited("foo", "bar", 1), exited("foo", "bar", 0)], 1, &["foo-bar-0"]),
        ("two are kept", vec![exited("foo", "bar", 1), exited("foo", "bar", 0)], 2, &[]),
        ("each for itself", vec![exited("foo", "bar", 0), exited("foo", "baz", 0)], 1, &[]),
        ("beside one that runs", vec![running(1), exited("foo", "bar", 0)], 1, &[]),
        ("beside one that is about to run", vec![made(1), exited("foo", "bar", 0)], 1, &[]),
        ("one that never ran", vec![exited("foo", "bar", 2), made(1)], 1, &["foo-bar-1"]),
    ];
    for (name, containers, keep, expected) in cases {
        let pods = pods_of(&containers);
        let removed: Vec<_> = excess_containers(&pods[0], keep).iter().map(|c| c.id.clone()).collect();
        assert_eq!(removed, expected, "{name}");
        let kept =
            remaining(&containers, &GcPolicy { max_per_pod_container: Some(keep), ..policy(None, None) });
        assert_eq!(kept.len(), containers.len() - expected.len(), "{name}");
    }
}

/// A sandbox of a pod: its attempt, and whether it is ready and has a container.
type Sandboxes = &'static [(u32, bool, bool)];

fn pod_with(sandboxes: Sandboxes) -> RuntimePod {
    let mut pod = RuntimePod::empty("pod".into());
    for (attempt, ready, has_container) in sandboxes {
        let id = attempt.to_string();
        if *has_container {
            let status = ContainerStatus {
                sandbox_id: id.clone(),
                state: ContainerState::Exited,
                ..container_status("pod", "c", *attempt)
            };
            pod.containers.push(RuntimeContainer { provider: P, status: Arc::new(status) });
        }
        pod.sandboxes.push(RuntimeSandbox { provider: P, status: sandbox_status(id, *attempt, *ready) });
    }
    pod.sort();
    pod
}

fn sandbox_status(id: String, attempt: u32, ready: bool) -> Arc<SandboxStatus> {
    Arc::new(SandboxStatus {
        id,
        pod: pod_ref("pod"),
        attempt,
        state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
        created_at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(attempt.into()),
        network: PodNetwork { mode: NetworkMode::Pod, ips: Vec::new(), namespace: None },
        labels: Default::default(),
        annotations: Default::default(),
        runtime_handler: String::new(),
        revision: Revision::default(),
    })
}

#[test]
fn sandboxes_that_nobody_needs_are_removed() {
    let cases: [(&str, bool, Sandboxes, &[&str]); 8] = [
        ("not ready, of a pod that is gone", true, &[(0, false, false)], &["0"]),
        ("ready, of a pod that is gone", true, &[(0, true, false)], &[]),
        ("ready", false, &[(0, true, false)], &[]),
        ("the newest stays", false, &[(0, false, false)], &[]),
        ("older ones go", false, &[(1, false, false), (0, false, false)], &["0"]),
        ("those with containers stay", false, &[(1, false, false), (0, false, true)], &[]),
        ("with containers, of a pod that is gone", true, &[(0, false, true)], &[]),
        ("beside a ready one", false, &[(2, true, true), (1, false, false), (0, false, false)], &["0", "1"]),
    ];
    for (name, gone, sandboxes, expected) in cases {
        let pod = pod_with(sandboxes);
        let removed: Vec<_> = evictable_sandboxes(&pod, gone).iter().map(|s| s.id.clone()).collect();
        assert_eq!(removed, expected, "{name}");
    }
}

/// A collector over the fake provider, with folders of its own.
struct World {
    folder: tempfile::TempDir,
    provider: Arc<FakeProvider>,
    gc: ContainerGc,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = FakeProvider::new(P, clock::now);
        for made in ["pods", "links"] {
            std::fs::create_dir(folder.path().join(made)).unwrap();
        }
        let registered = RegisteredProvider {
            provider: provider.clone(),
            handlers: Vec::new(),
            relist_period: Duration::from_secs(60),
        };
        let gc = ContainerGc {
            providers: Providers::new(vec![registered]),
            cache: Arc::default(),
            policy: GcPolicy::default(),
            pod_logs_dir: folder.path().join("pods"),
            container_logs_dir: Some(folder.path().join("links")),
        };
        Self { folder, provider, gc }
    }

    fn touch(&self, file: &str) -> std::path::PathBuf {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    fn link(&self, name: &str, target: &str) {
        let at = |name: &str| self.folder.path().join(name);
        std::os::unix::fs::symlink(at(target), at("links").join(name)).unwrap();
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn add(&self, status: ContainerStatus) {
        self.gc.cache.set_container(P, Arc::new(status));
    }
}

#[tokio::test]
async fn logs_of_pods_that_are_gone_and_dead_links_go() {
    let world = World::new();
    let folders = ["ns_a_123", "ns_b_456", "ns_c_654", "other"];
    for folder in folders {
        world.touch(&format!("pods/{folder}/c/0.log"));
    }
    world.link("b_ns_c-456.log", "pods/ns_b_456/c/0.log");
    world.link("c_ns_c-654.log", "pods/ns_c_654/c/0.log");
    world.link("b_ns_d-rotating.log", "pods/ns_b_456/d/0.log");
    world.link("b_ns_d-ended.log", "pods/ns_b_456/d/1.log");
    let container =
        |id: &str, state| ContainerStatus { id: id.into(), state, ..container_status("456", "d", 0) };
    world.add(container("rotating", ContainerState::Running));
    world.add(container("ended", ContainerState::Exited));

    world.gc.garbage_collect(|uid| uid == "654").await;
    world.gc.clean_up_logs(|uid| uid == "654").await;
    assert_eq!(world.list("pods"), ["ns_a_123", "ns_b_456", "other"]);
    assert_eq!(world.list("links"), ["b_ns_c-456.log", "b_ns_d-rotating.log"]);
}

#[tokio::test]
async fn the_logs_of_a_removed_container_go_with_it() {
    let world = World::new();
    let log = world.touch("pods/ns_name_pod/c/0.log");
    for other in ["0.log.20260101-000000", "0.log.20251231-000000.gz", "1.log"] {
        world.touch(&format!("pods/ns_name_pod/c/{other}"));
    }
    let status =
        |attempt| ContainerStatus { state: ContainerState::Exited, ..container_status("pod", "c", attempt) };
    let old = ContainerStatus { log_path: log, ..status(0) };
    world.link(&format!("name_ns_c-{}.log", old.id), "pods/ns_name_pod/c/0.log");
    world.add(old);
    world.add(status(1));
    world.gc.garbage_collect(|_| false).await;
    assert_eq!(world.list("pods/ns_name_pod/c"), ["1.log"]);
    assert!(world.list("links").is_empty());
    assert_eq!(world.gc.cache.get("pod").containers.len(), 1);
}

#[tokio::test]
async fn a_container_of_unknown_state_is_stopped_before_it_is_removed() {
    let world = World::new();
    let status = ContainerStatus { state: ContainerState::Unknown, ..container_status("pod", "c", 0) };
    world.add(status);
    world.gc.garbage_collect(|_| true).await;
    // The fake does not know it, and so cannot stop it: then it is not removed either.
    assert_eq!(world.provider.calls(Call::StopContainer), 1);
    assert_eq!(world.provider.calls(Call::RemoveContainer), 0);
}
