use k8s_openapi::api::core::v1::Container;

use super::*;
use crate::kuberuntime::test_support::running;

/// Restarts everything when this container ends with 1.
fn make_source(container: &mut Container, policy: &str) {
    container.restart_policy = Some(policy.into());
    let rule = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}]);
    container.restart_policy_rules = Some(serde_json::from_value(rule).unwrap());
}

fn init(rig: &mut Rig) -> &mut Vec<Container> {
    rig.spec().init_containers.get_or_insert_default()
}

/// An older instance of a container that has ended.
fn add_past(rig: &mut Rig, index: usize) {
    let mut past = running(&rig.pod, &rig.pod.containers()[index]);
    let status = std::sync::Arc::make_mut(&mut past.status);
    status.id.push_str("-past");
    status.state = ContainerState::Exited;
    status.exit_code = 99;
    rig.runtime.containers.push(past);
}

/// `TestComputePodActionsForRestartAllContainers`: the containers to remove, in order, and whether they are killed first.
#[test]
fn everything_is_removed_and_the_reason_last() {
    type Reset = (&'static str, fn() -> Rig, fn(&mut Rig), &'static [(&'static str, bool)]);
    let cases: &[Reset] = &[
        (
            "pod marked for RestartAllContainers",
            base,
            |_| {},
            &[("foo1", true), ("foo2", true), ("foo3", true)],
        ),
        (
            "pod marked for RestartAllContainers with init containers",
            with_init,
            |_| {},
            &[("init1", false), ("init2", false), ("init3", false)],
        ),
        (
            "pod marked for RestartAllContainers with restartable init containers",
            with_sidecars,
            |_| {},
            &[("side1", true), ("side2", true), ("side3", true)],
        ),
        (
            "init container exit triggers RestartAllContainers",
            with_init,
            |rig| {
                init(rig)[1].restart_policy = Some("Always".into());
                make_source(&mut init(rig)[2], "Never");
                rig.state("init2", ContainerState::Running);
                rig.exit("init3", 1);
            },
            &[("init1", false), ("init2", true), ("init3", false)],
        ),
        (
            "sidecar container exit triggers RestartAllContainres",
            with_sidecars,
            |rig| {
                make_source(&mut init(rig)[2], "Always");
                rig.runtime = runtime_of(&rig.pod);
                rig.remove(&["foo2", "foo3"]);
                rig.exit("side3", 1);
            },
            &[("foo1", true), ("side1", true), ("side2", true), ("side3", false)],
        ),
        (
            "regular container exit triggers RestartAllContainers",
            with_sidecars,
            |rig| {
                make_source(&mut rig.spec().containers[2], "Never");
                rig.runtime = runtime_of(&rig.pod);
                rig.exit("foo3", 1);
            },
            &[
                ("foo1", true),
                ("foo2", true),
                ("side1", true),
                ("side2", true),
                ("side3", true),
                ("foo3", false),
            ],
        ),
        (
            "removes past terminated statuses",
            base,
            |rig| {
                make_source(&mut rig.spec().containers[2], "Always");
                rig.exit("foo3", 1);
                for index in 0..3 {
                    add_past(rig, index);
                }
            },
            &[
                ("foo1", true),
                ("foo1-past", false),
                ("foo2", true),
                ("foo2-past", false),
                ("foo3-past", false),
                ("foo3", false),
            ],
        ),
    ];
    for (name, base, change, expected) in cases {
        let mut rig = base();
        change(&mut rig);
        let actuated = resource_info_for_pod(&rig.pod);
        let actions = compute_pod_actions(&ComputeInput {
            pod: &rig.pod,
            runtime: &rig.runtime,
            probes: &rig.probes,
            actuated: &actuated,
            restart_all_containers: true,
        });
        let reset: Vec<_> = actions
            .containers_to_reset
            .iter()
            .map(|reset| (reset.container.id.as_str(), reset.kill))
            .collect();
        assert_eq!(reset, *expected, "{name}");
        verify(name, &actions, &Expected::default());
    }
}

#[test]
fn pods_that_are_not_marked_go_on_and_what_was_removed_starts() {
    check(
        base,
        &[
            ("pod not marked for RestartAllContainers", |_| {}, Expected::default()),
            (
                "all containers removed, start regular container",
                |rig| rig.runtime.containers.clear(),
                Expected::start(&[0, 1, 2]),
            ),
        ],
    );
    check(
        with_init,
        &[(
            "all containers removed, start init container",
            |rig| rig.runtime.containers.clear(),
            Expected::start_init(&[0]),
        )],
    );
}
