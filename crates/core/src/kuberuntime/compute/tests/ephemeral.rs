use super::*;

/// `makeBasePodAndStatusWithInitAndEphemeralContainers`: an init container that is done, all others run.
fn with_ephemeral() -> Rig {
    let mut rig = Rig::new(pod(json!({
        "containers": main_containers(),
        "initContainers": [container("init1")],
        "ephemeralContainers": [container("debug")],
    })));
    rig.exit("init1", 0);
    rig
}

/// `TestComputePodActionsWithInitAndEphemeralContainers`.
#[test]
fn actions_for_ephemeral_containers_are_upstreams() {
    check(
        with_ephemeral,
        &[
            ("steady state; do nothing; ignore ephemeral container", |_| {}, Expected::default()),
            (
                "No ephemeral containers running; start one",
                |rig| rig.remove(&["debug"]),
                Expected { ephemeral: vec![0], ..Expected::default() },
            ),
            (
                "Start second ephemeral container",
                |rig| {
                    let second = serde_json::from_value(container("debug2")).unwrap();
                    rig.spec().ephemeral_containers.as_mut().unwrap().push(second);
                },
                Expected { ephemeral: vec![1], ..Expected::default() },
            ),
            ("Ephemeral container exited; do not restart", |rig| rig.exit("debug", 0), Expected::default()),
            (
                "Ephemeral container was made and did not start; start it",
                |rig| rig.state("debug", ContainerState::Created),
                Expected { ephemeral: vec![0], ..Expected::default() },
            ),
            (
                "initialization in progress; start ephemeral container",
                |rig| {
                    rig.state("init1", ContainerState::Running);
                    rig.remove(&["debug", "foo1", "foo2", "foo3"]);
                },
                Expected { ephemeral: vec![0], ..Expected::default() },
            ),
            (
                "Create a new pod sandbox if the pod sandbox is dead, init container failed and RestartPolicy == OnFailure",
                |rig| {
                    rig.policy("OnFailure");
                    rig.sandbox_dies();
                    rig.remove(&["foo1", "foo2", "foo3"]);
                    rig.exit("init1", 137);
                },
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Kill pod and do not restart ephemeral container if the pod sandbox is dead",
                Rig::sandbox_dies,
                Expected { init: vec![0], ..Expected::recreate(1) },
            ),
            (
                "Kill pod if all containers exited except ephemeral container",
                |rig| {
                    rig.policy("Never");
                    for name in ["foo1", "foo2", "foo3"] {
                        rig.exit(name, 0);
                    }
                },
                Expected::kill_pod(),
            ),
            (
                "Ephemeral container is in unknown state; leave it alone",
                |rig| {
                    rig.policy("Never");
                    rig.state("debug", ContainerState::Unknown);
                },
                Expected::default(),
            ),
        ],
    );
}
