use super::*;

/// `TestComputePodActions`.
#[test]
fn actions_are_upstreams() {
    check(
        base,
        &[
            ("everything is good; do nothing", |_| {}, Expected::default()),
            (
                "start pod sandbox and all containers for a new pod",
                |rig| rig.runtime = RuntimePod::empty("12345678".into()),
                Expected { main: vec![0, 1, 2], ..Expected::recreate(0) },
            ),
            (
                "restart exited containers if RestartPolicy == Always",
                |rig| {
                    rig.policy("Always");
                    rig.exit("foo1", 0);
                    rig.exit("foo2", 111);
                },
                Expected::start(&[0, 1]),
            ),
            (
                "restart failed containers if RestartPolicy == OnFailure",
                |rig| {
                    rig.policy("OnFailure");
                    rig.exit("foo1", 0);
                    rig.exit("foo2", 111);
                },
                Expected::start(&[1]),
            ),
            (
                "restart created but not started containers if RestartPolicy == OnFailure",
                |rig| {
                    rig.policy("OnFailure");
                    rig.exit("foo1", 0);
                    rig.state("foo2", ContainerState::Created);
                },
                Expected::start(&[1]),
            ),
            (
                "don't restart containers if RestartPolicy == Never",
                |rig| {
                    rig.policy("Never");
                    rig.exit("foo1", 0);
                    rig.exit("foo2", 111);
                },
                Expected::default(),
            ),
            (
                "Kill pod and recreate everything if the pod sandbox is dead, and RestartPolicy == Always",
                |rig| {
                    rig.policy("Always");
                    rig.sandbox_dies();
                },
                Expected { main: vec![0, 1, 2], ..Expected::recreate(1) },
            ),
            (
                "Kill pod and recreate all containers (except for the succeeded one) if the pod sandbox is dead, and \
             RestartPolicy == OnFailure",
                |rig| {
                    rig.policy("OnFailure");
                    rig.sandbox_dies();
                    rig.exit("foo2", 0);
                },
                Expected { main: vec![0, 2], ..Expected::recreate(1) },
            ),
            (
                "Kill pod and recreate all containers if the PodSandbox does not have an IP",
                |rig| rig.sandbox(|s| s.network.ips.clear()),
                Expected { main: vec![0, 1, 2], ..Expected::recreate(1) },
            ),
            (
                "Kill and recreate the container if the container's spec changed",
                |rig| {
                    rig.policy("Always");
                    change(&mut rig.runtime, "foo2", |status| status.annotations.clear());
                },
                Expected { kill: vec!["foo2"], ..Expected::start(&[1]) },
            ),
            (
                "Kill and recreate the container if the liveness check has failed",
                |rig| {
                    rig.probes.liveness.set("p://foo2", ProbeResult::Failure);
                },
                Expected { kill: vec!["foo2"], ..Expected::start(&[1]) },
            ),
            (
                "Kill and recreate the container if the startup check has failed",
                |rig| {
                    rig.probes.startup.set("p://foo2", ProbeResult::Failure);
                },
                Expected { kill: vec!["foo2"], ..Expected::start(&[1]) },
            ),
            (
                "Verify we do not create a pod sandbox if no ready sandbox for pod with RestartPolicy=Never and all \
             containers exited",
                |rig| ended_with_dead_sandbox(rig, "Never"),
                Expected { attempt: 2, ..Expected::kill_pod() },
            ),
            (
                "Verify we do not create a pod sandbox if no ready sandbox for pod with RestartPolicy=OnFailure and all \
             containers succeeded",
                |rig| ended_with_dead_sandbox(rig, "OnFailure"),
                Expected { attempt: 2, ..Expected::kill_pod() },
            ),
            (
                "Verify we create a pod sandbox if no ready sandbox for pod with RestartPolicy=Never and no containers \
             have ever been created",
                |rig| {
                    rig.policy("Never");
                    rig.sandbox_dies();
                    rig.sandbox(|s| s.attempt = 2);
                    rig.runtime.containers.clear();
                },
                Expected { main: vec![0, 1, 2], ..Expected::recreate(3) },
            ),
            (
                "Kill and recreate the container if the container is in unknown state",
                |rig| {
                    rig.policy("Never");
                    rig.state("foo2", ContainerState::Unknown);
                },
                Expected { kill: vec!["foo2"], ..Expected::start(&[1]) },
            ),
            (
                "Restart the container if the container is in created state",
                |rig| {
                    rig.policy("Never");
                    rig.state("foo2", ContainerState::Created);
                },
                Expected::start(&[1]),
            ),
        ],
    );
}

fn ended_with_dead_sandbox(rig: &mut Rig, policy: &str) {
    rig.policy(policy);
    rig.sandbox_dies();
    rig.sandbox(|s| s.attempt = 1);
    for name in ["foo1", "foo2", "foo3"] {
        rig.exit(name, 0);
    }
}
