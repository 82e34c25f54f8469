use super::*;

/// `TestComputePodActionsWithRestartableInitContainers`.
#[test]
fn actions_for_sidecars_are_upstreams() {
    check(
        with_sidecars,
        &[
            ("initialization completed; start all containers", |_| {}, Expected::start(&[0, 1, 2])),
            (
                "no init containers have been started; start the first one",
                |rig| rig.runtime.containers.clear(),
                Expected::start_init(&[0]),
            ),
            (
                "an init container is stuck in the created state; restart it",
                |rig| rig.state("side3", ContainerState::Created),
                Expected::start_init(&[2]),
            ),
            (
                "restartable init container has started; start the next",
                |rig| rig.remove(&["side2", "side3"]),
                Expected::start_init(&[1]),
            ),
            (
                "livenessProbe has not been run; start the nothing",
                |rig| {
                    rig.probes.liveness.remove("p://side2");
                    rig.remove(&["side3"]);
                },
                Expected::start_init(&[2]),
            ),
            (
                "livenessProbe in progress; start the next",
                |rig| {
                    rig.probes.liveness.set("p://side2", ProbeResult::Unknown);
                    rig.remove(&["side3"]);
                },
                Expected::start_init(&[2]),
            ),
            (
                "livenessProbe has completed; start the next",
                |rig| rig.remove(&["side3"]),
                Expected::start_init(&[2]),
            ),
            (
                "kill and recreate the restartable init container if the liveness check has failed",
                |rig| {
                    rig.probes.liveness.set("p://side3", ProbeResult::Failure);
                },
                Expected { init: vec![2], kill: vec!["side3"], ..Expected::start(&[0, 1, 2]) },
            ),
            (
                "startupProbe has not been run; do nothing",
                |rig| {
                    rig.probes.startup.remove("p://side2");
                    rig.remove(&["side3"]);
                },
                Expected::default(),
            ),
            (
                "startupProbe in progress; do nothing",
                |rig| {
                    rig.probes.startup.set("p://side2", ProbeResult::Unknown);
                    rig.remove(&["side3"]);
                },
                Expected::default(),
            ),
            (
                "kill and recreate the restartable init container if the startup check has failed",
                |rig| {
                    rig.probes.startup.set("p://side3", ProbeResult::Failure);
                },
                Expected { kill: vec!["side3"], ..Expected::start_init(&[2]) },
            ),
            (
                "kill and recreate the restartable init container if the container definition changes",
                |rig| rig.spec().init_containers.as_mut().unwrap()[2].image = Some("foo-image".into()),
                Expected { init: vec![2], kill: vec!["side3"], ..Expected::start(&[0, 1, 2]) },
            ),
            (
                "restart terminated restartable init container and next init container",
                |rig| {
                    rig.exit("side1", 0);
                    rig.exit("side3", 0);
                },
                Expected::start_init(&[0, 2]),
            ),
            (
                "restart terminated restartable init container and regular containers",
                |rig| rig.exit("side1", 0),
                Expected { init: vec![0], ..Expected::start(&[0, 1, 2]) },
            ),
            (
                "Pod sandbox not ready, restartable init container failed, but RestartPolicy == Never; kill pod only",
                |rig| last_failed_with_dead_sandbox(rig, "Never"),
                // Upstream kills it, although a sidecar is restarted whatever the policy, and the pod has yet to run.
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Pod sandbox not ready, and RestartPolicy == Never, but no visible restartable init containers;  create a \
             new pod sandbox",
                |rig| {
                    last_failed_with_dead_sandbox(rig, "Never");
                    rig.runtime.containers.clear();
                },
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Pod sandbox not ready, restartable init container failed, and RestartPolicy == OnFailure; create a new \
             pod sandbox",
                |rig| last_failed_with_dead_sandbox(rig, "OnFailure"),
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Pod sandbox not ready, restartable init container failed, and RestartPolicy == Always; create a new pod \
             sandbox",
                |rig| last_failed_with_dead_sandbox(rig, "Always"),
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "initialization failed; restart the last restartable init container even if pod's RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.exit("side3", 137);
                },
                Expected::start_init(&[2]),
            ),
            (
                "restartable init container state unknown; kill and recreate the last restartable init container even if \
             pod's RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.state("side3", ContainerState::Unknown);
                },
                Expected { kill: vec!["side3"], ..Expected::start_init(&[2]) },
            ),
            (
                "restart restartable init container if regular containers are running even if pod's RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.runtime = runtime_of(&rig.pod);
                    rig.exit("side3", 137);
                },
                Expected::start_init(&[2]),
            ),
            (
                "kill the pod if all main containers succeeded if pod's RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.runtime = runtime_of(&rig.pod);
                    for name in ["foo1", "foo2", "foo3"] {
                        rig.exit(name, 0);
                    }
                },
                Expected::kill_pod(),
            ),
            (
                "some of the init container statuses are missing but the last init container is running, restart \
             restartable init and regular containers",
                |rig| rig.remove(&["side1", "side2"]),
                Expected { init: vec![0, 1], ..Expected::start(&[0, 1, 2]) },
            ),
            (
                "stale main container with mixed restartable and non-restartable init containers; start the first one",
                |rig| {
                    rig.spec().init_containers.as_mut().unwrap()[1].restart_policy = None;
                    rig.runtime = runtime_of(&rig.pod);
                    rig.remove(&["side1", "side2", "side3", "foo2", "foo3"]);
                    change(&mut rig.runtime, "foo1", |status| {
                        status.state = ContainerState::Created;
                        status.sandbox_id = "another".into();
                    });
                },
                Expected::start_init(&[0]),
            ),
        ],
    );
}

fn last_failed_with_dead_sandbox(rig: &mut Rig, policy: &str) {
    rig.policy(policy);
    rig.sandbox_dies();
    rig.exit("side3", 137);
}
