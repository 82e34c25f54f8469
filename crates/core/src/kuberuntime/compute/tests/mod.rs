//! Upstream's tables of `kuberuntime_manager_test.go`, under the names of its cases.

mod basic;
mod ephemeral;
mod init;
mod probes;
mod resize;
mod restart_all;
mod restart_rules;
mod sidecars;

use serde_json::{Value, json};

use super::*;
use crate::allocation::resource_info_for_pod;
use crate::kuberuntime::test_support::{PROVIDER, change, exit, remove, runtime_of};

/// Everything that a case can change.
struct Rig {
    pod: Pod,
    runtime: RuntimePod,
    probes: ProbeResults,
}

impl Rig {
    fn new(pod: Pod) -> Self {
        let runtime = runtime_of(&pod);
        Self { pod, runtime, probes: ProbeResults::default() }
    }

    fn policy(&mut self, policy: &str) {
        self.spec().restart_policy = Some(policy.into());
    }

    fn spec(&mut self) -> &mut k8s_openapi::api::core::v1::PodSpec {
        self.pod.spec.get_or_insert_default()
    }

    fn exit(&mut self, name: &str, code: i32) {
        exit(&mut self.runtime, name, code);
    }

    fn state(&mut self, name: &str, state: ContainerState) {
        change(&mut self.runtime, name, |status| status.state = state);
    }

    fn remove(&mut self, names: &[&str]) {
        remove(&mut self.runtime, names);
    }

    fn sandbox(&mut self, change: impl FnOnce(&mut coracle_provider::SandboxStatus)) {
        change(std::sync::Arc::make_mut(&mut self.runtime.sandboxes[0].status));
    }

    fn sandbox_dies(&mut self) {
        self.sandbox(|s| s.state = SandboxState::NotReady);
    }

    /// Nothing was ever told to change.
    fn compute(&self) -> PodActions {
        let actuated = resource_info_for_pod(&self.pod);
        compute_pod_actions(&ComputeInput {
            pod: &self.pod,
            runtime: &self.runtime,
            probes: &self.probes,
            actuated: &actuated,
            restart_all_containers: false,
        })
    }
}

/// What a case comes to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    kill_pod: bool,
    create_sandbox: bool,
    attempt: u32,
    init: Vec<usize>,
    main: Vec<usize>,
    ephemeral: Vec<usize>,
    kill: Vec<&'static str>,
}

impl Expected {
    fn start(main: &[usize]) -> Self {
        Self { main: main.to_vec(), ..Self::default() }
    }

    fn start_init(init: &[usize]) -> Self {
        Self { init: init.to_vec(), ..Self::default() }
    }

    fn kill_pod() -> Self {
        Self { kill_pod: true, ..Self::default() }
    }

    fn recreate(attempt: u32) -> Self {
        Self { kill_pod: true, create_sandbox: true, attempt, ..Self::default() }
    }
}

type Case = (&'static str, fn(&mut Rig), Expected);

fn check(base: fn() -> Rig, cases: &[Case]) {
    for (name, change, expected) in cases {
        let mut rig = base();
        change(&mut rig);
        verify(name, &rig.compute(), expected);
    }
}

fn verify(name: &str, actions: &PodActions, expected: &Expected) {
    let killed = actions.containers_to_kill.iter().map(|k| k.container.name.as_str());
    assert!(killed.eq(expected.kill.iter().copied()), "{name}: {:?}", actions.containers_to_kill);
    let actual = Expected {
        kill_pod: actions.kill_pod,
        create_sandbox: actions.create_sandbox,
        attempt: actions.attempt,
        init: actions.init_containers_to_start.clone(),
        main: actions.containers_to_start.clone(),
        ephemeral: actions.ephemeral_containers_to_start.clone(),
        kill: expected.kill.clone(),
    };
    assert_eq!(actual, *expected, "{name}");
}

fn pod(spec: Value) -> Pod {
    let metadata = json!({"uid": "12345678", "name": "foo", "namespace": "foo-ns"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn container(name: &str) -> Value {
    json!({"name": name, "image": "i"})
}

fn main_containers() -> Value {
    json!([container("foo1"), container("foo2"), container("foo3")])
}

fn sidecar(name: &str, startup_probe: bool) -> Value {
    let mut sidecar = container(name);
    sidecar["restartPolicy"] = json!("Always");
    if startup_probe {
        sidecar["startupProbe"] = json!({"tcpSocket": {"port": 1}});
    }
    sidecar
}

/// `makeBasePodAndStatus`: three containers that run.
fn base() -> Rig {
    Rig::new(pod(json!({"containers": main_containers()})))
}

/// `makeBasePodAndStatusWithInitContainers`: three init containers that are done, and nothing else.
fn with_init() -> Rig {
    let init = json!([container("init1"), container("init2"), container("init3")]);
    let mut rig = Rig::new(pod(json!({"containers": main_containers(), "initContainers": init})));
    rig.remove(&["foo1", "foo2", "foo3"]);
    for name in ["init1", "init2", "init3"] {
        rig.exit(name, 0);
    }
    rig
}

/// `makeBasePodAndStatusWithRestartableInitContainers`: three sidecars that run and are well, and nothing else.
fn with_sidecars() -> Rig {
    let probed = |name: &str| {
        let mut sidecar = sidecar(name, true);
        sidecar["livenessProbe"] = json!({"tcpSocket": {"port": 1}});
        sidecar
    };
    let init = json!([sidecar("side1", false), probed("side2"), probed("side3")]);
    let mut rig = Rig::new(pod(json!({"containers": main_containers(), "initContainers": init})));
    rig.remove(&["foo1", "foo2", "foo3"]);
    for id in ["p://side2", "p://side3"] {
        rig.probes.liveness.set(id, ProbeResult::Success);
        rig.probes.startup.set(id, ProbeResult::Success);
    }
    rig
}
