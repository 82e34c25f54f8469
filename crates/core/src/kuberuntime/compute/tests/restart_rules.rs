use super::*;

/// The policy of the pod, and those of its first two containers.
fn policies(rig: &mut Rig, pod: &str, first: Option<&str>, second: &str) {
    rig.policy(pod);
    rig.spec().containers[0].restart_policy = first.map(str::to_owned);
    rig.spec().containers[1].restart_policy = Some(second.to_owned());
}

/// `TestComputePodActionsWithContainerRestartRules`.
#[test]
fn containers_have_policies_of_their_own() {
    check(
        base,
        &[
            (
                "restart exited containers if RestartPolicy == Always",
                |rig| {
                    policies(rig, "Never", Some("Always"), "Always");
                    rig.exit("foo1", 0);
                    rig.exit("foo2", 111);
                },
                Expected::start(&[0, 1]),
            ),
            (
                "restart failed containers if RestartPolicy == OnFailure",
                |rig| {
                    policies(rig, "Never", Some("OnFailure"), "OnFailure");
                    rig.exit("foo1", 0);
                    rig.exit("foo2", 111);
                },
                Expected::start(&[1]),
            ),
            (
                "restart created but not started containers if RestartPolicy == OnFailure",
                |rig| {
                    policies(rig, "Never", Some("OnFailure"), "OnFailure");
                    rig.exit("foo1", 0);
                    rig.state("foo2", ContainerState::Created);
                },
                Expected::start(&[1]),
            ),
            (
                "don't restart containers if RestartPolicy == Never",
                |rig| {
                    policies(rig, "Always", Some("Never"), "Never");
                    rig.exit("foo1", 0);
                    rig.exit("foo2", 111);
                },
                Expected::default(),
            ),
            (
                "Kill pod and recreate all containers (except for the succeeded one) if the pod sandbox is dead",
                |rig| {
                    policies(rig, "Always", None, "OnFailure");
                    rig.sandbox_dies();
                    rig.exit("foo2", 0);
                },
                Expected { main: vec![0, 2], ..Expected::recreate(1) },
            ),
        ],
    );
}
