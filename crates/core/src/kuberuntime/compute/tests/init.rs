use super::*;

/// `TestComputePodActionsWithInitContainers`; what is about resizes is with those.
#[test]
fn actions_for_init_containers_are_upstreams() {
    check(
        with_init,
        &[
            ("initialization completed; start all containers", |_| {}, Expected::start(&[0, 1, 2])),
            (
                "no init containers have been started; start the first one",
                |rig| rig.runtime.containers.clear(),
                Expected::start_init(&[0]),
            ),
            (
                "initialization in progress; do nothing",
                |rig| rig.state("init3", ContainerState::Running),
                Expected::default(),
            ),
            (
                "Kill pod and restart the first init container if the pod sandbox is dead",
                |rig| {
                    rig.policy("Always");
                    rig.sandbox_dies();
                },
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "initialization failed; restart the last init container if RestartPolicy == Always",
                |rig| {
                    rig.policy("Always");
                    rig.exit("init3", 137);
                },
                Expected::start_init(&[2]),
            ),
            (
                "initialization failed; restart the last init container if RestartPolicy == OnFailure",
                |rig| {
                    rig.policy("OnFailure");
                    rig.exit("init3", 137);
                },
                Expected::start_init(&[2]),
            ),
            (
                "initialization failed; kill pod if RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.exit("init3", 137);
                },
                Expected::kill_pod(),
            ),
            (
                "init container state unknown; kill and recreate the last init container if RestartPolicy == Always",
                |rig| {
                    rig.policy("Always");
                    rig.state("init3", ContainerState::Unknown);
                },
                Expected { kill: vec!["init3"], ..Expected::start_init(&[2]) },
            ),
            (
                "init container state unknown; kill and recreate the last init container if RestartPolicy == OnFailure",
                |rig| {
                    rig.policy("OnFailure");
                    rig.state("init3", ContainerState::Unknown);
                },
                Expected { kill: vec!["init3"], ..Expected::start_init(&[2]) },
            ),
            (
                "init container state unknown; kill pod if RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.state("init3", ContainerState::Unknown);
                },
                Expected::kill_pod(),
            ),
            (
                "Pod sandbox not ready, init container failed, but RestartPolicy == Never; kill pod only",
                |rig| {
                    rig.policy("Never");
                    rig.sandbox_dies();
                },
                // Upstream kills it, although its init containers have done well and it has yet to run.
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Pod sandbox not ready, and RestartPolicy == Never, but no visible init containers;  create a new pod \
             sandbox",
                |rig| {
                    rig.policy("Never");
                    rig.sandbox_dies();
                    rig.runtime.containers.clear();
                },
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Pod sandbox not ready, init container failed, and RestartPolicy == OnFailure; create a new pod sandbox",
                |rig| {
                    rig.policy("OnFailure");
                    rig.sandbox_dies();
                    rig.exit("init3", 137);
                },
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "some of the init container statuses are missing but the last init container is running, don't restart \
             preceding ones",
                |rig| {
                    rig.policy("Always");
                    rig.state("init3", ContainerState::Running);
                    rig.remove(&["init1", "init2"]);
                },
                Expected::default(),
            ),
            (
                "stale main container from a previous sandbox must not mark pod as initialized",
                |rig| {
                    rig.runtime = runtime_of(&rig.pod);
                    rig.remove(&["init1", "init2", "init3", "foo2", "foo3"]);
                    change(&mut rig.runtime, "foo1", |status| {
                        status.state = ContainerState::Created;
                        status.sandbox_id = "another".into();
                    });
                },
                Expected::start_init(&[0]),
            ),
            (
                "an init container is in the created state due to an unknown error when starting container; restart it",
                |rig| {
                    rig.policy("Always");
                    rig.state("init3", ContainerState::Created);
                },
                Expected::start_init(&[2]),
            ),
        ],
    );
}
