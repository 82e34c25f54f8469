use k8s_openapi::api::core::v1::ResourceRequirements;

use super::*;
use crate::allocation::{Amounts, PodResourceInfo};

/// Thousandths of a core and MiB: limits, then requests; zero is none.
type Numbers = (i64, i64, i64, i64);

const NONE: Numbers = (0, 0, 0, 0);

fn limits(cpu: i64, memory: i64) -> Numbers {
    (cpu, memory, 0, 0)
}

fn requirements((cpu, memory, cpu_request, memory_request): Numbers) -> ResourceRequirements {
    let list = |cpu: i64, memory: i64| {
        let named = [("cpu", cpu, "m"), ("memory", memory, "Mi")].into_iter().filter(|(_, n, _)| *n > 0);
        named
            .map(|(name, n, unit)| (name.to_owned(), json!(format!("{n}{unit}"))))
            .collect::<serde_json::Map<_, _>>()
    };
    let both = json!({"limits": list(cpu, memory), "requests": list(cpu_request, memory_request)});
    serde_json::from_value(both).unwrap()
}

fn numbers(amounts: Amounts) -> Numbers {
    let mib = |bytes: i64| bytes >> 20;
    (amounts.cpu_limit, mib(amounts.memory_limit), amounts.cpu_request, mib(amounts.memory_request))
}

/// The base pod, and what its runtime was told.
struct Resize {
    rig: Rig,
    actuated: PodResourceInfo,
}

impl Resize {
    fn new(rig: Rig) -> Self {
        Self { actuated: resource_info_for_pod(&rig.pod), rig }
    }

    /// What a main container is to have, and what it has.
    fn set(&mut self, index: usize, desired: Numbers, actuated: Numbers) {
        let container = &mut self.rig.spec().containers[index];
        container.resources = Some(requirements(desired));
        let name = container.name.clone();
        self.actuated.containers.insert(name, requirements(actuated));
    }

    fn policy(&mut self, index: usize, cpu: &str, memory: &str) {
        let policy =
            |resource: &str, policy: &str| json!({"resourceName": resource, "restartPolicy": policy});
        let both = json!([policy("cpu", cpu), policy("memory", memory)]);
        self.rig.spec().containers[index].resize_policy = Some(serde_json::from_value(both).unwrap());
    }

    fn pod_level(&mut self, desired: Numbers, actuated: Numbers) {
        self.rig.spec().resources = Some(requirements(desired));
        self.actuated.pod_level = Some(requirements(actuated));
    }

    fn compute(&self) -> PodActions {
        compute_pod_actions(&ComputeInput {
            pod: &self.rig.pod,
            runtime: &self.rig.runtime,
            probes: &self.rig.probes,
            actuated: &self.actuated,
            restart_all_containers: false,
        })
    }
}

type Update = (&'static str, Numbers, Numbers);

#[derive(Default)]
struct Changes {
    memory: Vec<Update>,
    cpu: Vec<Update>,
    restart: Option<(usize, &'static str)>,
    pod_level: bool,
}

impl Changes {
    /// Both resources of one container.
    fn both(name: &'static str, desired: Numbers, current: Numbers) -> Self {
        Self {
            memory: vec![(name, desired, current)],
            cpu: vec![(name, desired, current)],
            ..Self::default()
        }
    }

    fn restart(index: usize, name: &'static str) -> Self {
        Self { restart: Some((index, name)), ..Self::default() }
    }
}

fn verify_changes(name: &str, actions: &PodActions, expected: &Changes) {
    let of = |list: &[ContainerToUpdate]| -> Vec<(String, Numbers, Numbers)> {
        list.iter().map(|u| (u.container.name.clone(), numbers(u.desired), numbers(u.current))).collect()
    };
    let owned = |list: &[Update]| list.iter().map(|(n, d, c)| ((*n).to_owned(), *d, *c)).collect::<Vec<_>>();
    assert_eq!(of(&actions.memory_to_update), owned(&expected.memory), "memory: {name}");
    assert_eq!(of(&actions.cpu_to_update), owned(&expected.cpu), "cpu: {name}");
    assert_eq!(actions.update_pod_level_resources, expected.pod_level, "{name}");
    let (start, kill) = expected.restart.map_or((vec![], vec![]), |(i, c)| (vec![i], vec![c]));
    verify(name, actions, &Expected { main: start, kill, ..Expected::default() });
}

/// `TestComputePodActionsForPodResize`, as far as upstream's gates are as they are by default.
#[test]
fn resizes_are_upstreams() {
    const RESTART: &str = "RestartContainer";
    const LIVE: &str = "NotRequired";
    type Case = (&'static str, fn(&mut Resize), Changes);
    let request_only = (200, 200, 100, 100);
    let request_before = (200, 200, 100, 200);
    let cases: Vec<Case> = vec![
        (
            "Update pod-level CPU and memory resources",
            |r| {
                for i in 0..3 {
                    r.set(i, limits(100, 100), limits(100, 100));
                }
                r.pod_level(limits(200, 200), limits(100, 100));
            },
            Changes { pod_level: true, ..Changes::default() },
        ),
        (
            "Update pod-level resources and container CPU and memory resources",
            |r| {
                r.set(0, limits(100, 100), limits(100, 100));
                r.set(1, limits(200, 200), limits(100, 100));
                r.set(2, limits(100, 100), limits(100, 100));
                r.pod_level(limits(600, 600), limits(300, 300));
            },
            Changes { pod_level: true, ..Changes::both("foo2", limits(200, 200), limits(100, 100)) },
        ),
        (
            "Update pod-level limits and container updated by default",
            |r| {
                r.set(0, limits(100, 100), limits(100, 100));
                r.set(2, limits(100, 100), limits(100, 100));
                r.pod_level(limits(600, 600), limits(300, 300));
            },
            Changes { pod_level: true, ..Changes::both("foo2", limits(600, 600), limits(300, 300)) },
        ),
        (
            "Update pod-level limits and container to kill updated by default",
            |r| {
                r.set(0, limits(100, 100), limits(100, 100));
                r.set(2, limits(100, 100), limits(100, 100));
                r.policy(1, RESTART, LIVE);
                r.pod_level(limits(600, 600), limits(300, 300));
            },
            Changes { pod_level: true, ..Changes::restart(1, "foo2") },
        ),
        (
            "Update container CPU and memory resources",
            |r| r.set(1, limits(100, 100), limits(200, 200)),
            Changes::both("foo2", limits(100, 100), limits(200, 200)),
        ),
        (
            "Update container CPU resources",
            |r| r.set(1, limits(100, 100), limits(200, 100)),
            Changes { cpu: vec![("foo2", limits(100, 100), limits(200, 100))], ..Changes::default() },
        ),
        (
            "Update container memory resources",
            |r| r.set(2, limits(200, 200), limits(200, 100)),
            Changes { memory: vec![("foo3", limits(200, 200), limits(200, 100))], ..Changes::default() },
        ),
        (
            "Update pod-level limits does not mutate container resources",
            |r| {
                r.rig.spec().resources = Some(requirements(limits(100, 100)));
                r.actuated = PodResourceInfo::default();
                r.set(1, NONE, limits(100, 0));
            },
            Changes {
                memory: vec![
                    ("foo1", limits(100, 100), NONE),
                    ("foo2", limits(100, 100), limits(100, 0)),
                    ("foo3", limits(100, 100), NONE),
                ],
                cpu: vec![("foo1", limits(100, 100), NONE), ("foo3", limits(100, 100), NONE)],
                pod_level: true,
                ..Changes::default()
            },
        ),
        (
            "Nothing when spec.Resources and status.Resources are equal",
            |r| r.set(1, limits(200, 0), limits(200, 0)),
            Changes::default(),
        ),
        (
            "Nothing when spec.Resources and status.Resources are equal (besteffort)",
            |r| r.set(1, NONE, NONE),
            Changes::default(),
        ),
        (
            "Update container CPU and memory resources with Restart policy for CPU",
            |r| {
                r.policy(0, RESTART, LIVE);
                r.set(0, limits(200, 200), limits(100, 100));
            },
            Changes::restart(0, "foo1"),
        ),
        (
            "Update container CPU and memory resources with Restart policy for memory",
            |r| {
                r.policy(2, LIVE, RESTART);
                r.set(2, limits(200, 200), limits(100, 100));
            },
            Changes::restart(2, "foo3"),
        ),
        (
            "Update container memory resources with Restart policy for CPU",
            |r| {
                r.policy(1, RESTART, LIVE);
                r.set(1, limits(100, 200), limits(100, 100));
            },
            Changes { memory: vec![("foo2", limits(100, 200), limits(100, 100))], ..Changes::default() },
        ),
        (
            "Update container CPU resources with Restart policy for memory",
            |r| {
                r.policy(2, LIVE, RESTART);
                r.set(2, limits(200, 100), limits(100, 100));
            },
            Changes { cpu: vec![("foo3", limits(200, 100), limits(100, 100))], ..Changes::default() },
        ),
        (
            "Update container memory (requests only) with RestartContainer policy for memory",
            |r| {
                r.policy(2, LIVE, RESTART);
                r.set(2, (200, 200, 100, 100), (200, 200, 100, 200));
            },
            Changes::restart(2, "foo3"),
        ),
        (
            "Update container memory (requests only) with RestartNotRequired policy for memory",
            |r| {
                r.policy(2, LIVE, LIVE);
                r.set(2, (200, 200, 100, 100), (200, 200, 100, 200));
            },
            Changes { memory: vec![("foo3", request_only, request_before)], ..Changes::default() },
        ),
    ];
    for (name, change, expected) in cases {
        let mut resize = Resize::new(base());
        change(&mut resize);
        let before = resize.rig.pod.clone();
        let actions = resize.compute();
        assert_eq!(resize.rig.pod, before, "{name}");
        verify_changes(name, &actions, &expected);
    }
}

#[test]
fn what_is_given_back_comes_before_what_is_taken() {
    let mut resize = Resize::new(base());
    resize.set(0, limits(200, 50), limits(100, 100));
    resize.set(1, limits(50, 200), limits(100, 100));
    resize.set(2, limits(20, 20), limits(100, 100));
    let actions = resize.compute();
    let names =
        |list: &[ContainerToUpdate]| list.iter().map(|u| u.container.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&actions.memory_to_update), ["foo3", "foo1", "foo2"]);
    assert_eq!(names(&actions.cpu_to_update), ["foo3", "foo2", "foo1"]);
}

/// `TestComputePodActionsWithInitContainers`, "resize of a running non-sidecar init container".
#[test]
fn an_init_container_that_runs_is_resized() {
    let mut rig = with_init();
    let before = (0, 0, 400, 400);
    rig.spec().init_containers.as_mut().unwrap()[0].resources = Some(requirements(before));
    rig.remove(&["init2", "init3"]);
    rig.state("init1", ContainerState::Running);
    let mut resize = Resize::new(rig);
    let after = (0, 0, 800, 800);
    resize.rig.spec().init_containers.as_mut().unwrap()[0].resources = Some(requirements(after));
    verify_changes("init", &resize.compute(), &Changes::both("init1", after, before));
}

#[test]
fn a_sidecar_is_resized_or_restarted_by_its_policy() {
    for (policy, restarts) in [("NotRequired", false), ("RestartContainer", true)] {
        let mut rig = with_sidecars();
        rig.runtime = runtime_of(&rig.pod);
        let mut resize = Resize::new(rig);
        let sidecar = &mut resize.rig.spec().init_containers.as_mut().unwrap()[1];
        sidecar.resources = Some(requirements(limits(100, 100)));
        let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
        sidecar.resize_policy = Some(serde_json::from_value(policy).unwrap());
        let actions = resize.compute();
        if restarts {
            let expected = Expected { kill: vec!["side2"], ..Expected::start_init(&[1]) };
            verify("restart", &actions, &expected);
            assert!(actions.cpu_to_update.is_empty() && actions.memory_to_update.is_empty());
        } else {
            verify_changes("live", &actions, &Changes::both("side2", limits(100, 100), NONE));
        }
    }
}

/// `TestComputePodResizeActionForOOMKilled…Container`.
#[test]
fn what_does_not_run_is_not_updated_but_started() {
    let mut main = Resize::new(base());
    main.set(0, limits(100, 200), limits(100, 100));
    main.rig.exit("foo1", 137);
    let actions = main.compute();
    verify("main", &actions, &Expected::start(&[0]));
    assert!(actions.memory_to_update.is_empty());

    let mut sidecar = Resize::new(with_sidecars());
    sidecar.rig.runtime = runtime_of(&sidecar.rig.pod);
    sidecar.rig.exit("side2", 137);
    sidecar.rig.spec().init_containers.as_mut().unwrap()[1].resources = Some(requirements(limits(100, 200)));
    let actions = sidecar.compute();
    verify("sidecar", &actions, &Expected::start_init(&[1]));
    assert!(actions.memory_to_update.is_empty());
}

/// `TestIsPodResizeInProgress`: what is allocated, what was told, and whether anything lags.
#[test]
fn a_resize_is_in_progress_while_something_that_runs_lags() {
    let all = (100, 100, 100, 100);
    type Case = (&'static str, fn(&mut Resize), bool);
    let cases: &[Case] = &[
        ("all settled", |r| r.set(0, (100, 100, 100, 100), (100, 100, 100, 100)), false),
        ("cpu request lags", |r| r.set(0, (100, 100, 100, 100), (100, 100, 50, 100)), true),
        ("cpu limit lags", |r| r.set(0, (100, 100, 100, 100), (50, 100, 100, 100)), true),
        ("memory request lags", |r| r.set(0, (100, 100, 100, 100), (100, 100, 100, 50)), true),
        ("memory limit lags", |r| r.set(0, (100, 100, 100, 100), (100, 50, 100, 100)), true),
        (
            "what does not run lags",
            |r| {
                r.set(0, (100, 100, 100, 100), (50, 50, 50, 50));
                r.rig.exit("foo1", 1);
            },
            false,
        ),
        ("one of several lags", |r| r.set(2, limits(100, 100), limits(50, 100)), true),
        (
            "nothing is known of it, and it has nothing",
            |r| *r = Resize { actuated: PodResourceInfo::default(), rig: base() },
            false,
        ),
        (
            "the pod as a whole lags",
            |r| {
                for i in 0..3 {
                    r.set(i, limits(100, 100), limits(100, 100));
                }
                r.pod_level(limits(600, 600), limits(300, 600));
            },
            true,
        ),
        (
            "the pod as a whole is settled",
            |r| {
                for i in 0..3 {
                    r.set(i, limits(100, 0), limits(100, 600));
                }
                r.pod_level(limits(600, 600), limits(600, 600));
            },
            false,
        ),
    ];
    for (name, change, expected) in cases {
        let mut resize = Resize::new(base());
        resize.set(1, all, all);
        change(&mut resize);
        let Resize { rig, actuated } = &resize;
        assert_eq!(is_pod_resize_in_progress(&rig.pod, &rig.runtime, actuated), *expected, "{name}");
    }
}
