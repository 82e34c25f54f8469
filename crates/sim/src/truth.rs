//! What the API shows against what is.

mod resources;

use std::sync::Arc;
use std::time::Duration;

use coracle_core::clock;
use coracle_core::pod::{
    PodExt, container_status, ephemeral_containers, is_restartable_init_container, phase,
};
use coracle_provider::{ContainerState, ContainerStatus as Instance, SandboxState};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::api::subject;
use crate::pods::FLAW;
use crate::provider::SimProvider;
use crate::world::World;

/// Why a pod that is no worse than others may not be admitted.
const NO_ROOM: [&str; 4] = ["OutOfcpu", "OutOfmemory", "NodePorts", "UnexpectedAdmissionError"];
/// After its deadline and its grace period, a pod may still run for so long.
const OVERDUE: Duration = Duration::from_secs(30);

/// A pod, and what is wrong with it.
pub(crate) type Difference = (String, String);

/// Everything that is not as it should be once nothing changes any more.
pub(crate) fn differences(world: &World) -> Vec<Difference> {
    let mut all = Vec::new();
    let pods = wanted_pods(world, &mut all);
    for pod in &pods {
        let uid = pod.uid().to_string();
        all.extend(of_pod(world, pod).into_iter().map(|message| (uid.clone(), message)));
    }
    for provider in &world.providers {
        let known = |uid: &str| pods.iter().any(|pod| *pod.uid() == *uid);
        for container in provider.inner().containers() {
            if !known(&container.pod.uid) && container.state == ContainerState::Running {
                all.push((container.pod.uid.clone(), format!("{} runs and nobody wants it", container.id)));
            }
        }
    }
    all.extend(resources::overbooked(world, &pods));
    all
}

/// The pods that are to run, as the API shows them: static pods by their mirrors.
fn wanted_pods(world: &World, differences: &mut Vec<Difference>) -> Vec<Arc<Pod>> {
    let (mut mirrors, mut pods): (Vec<_>, Vec<_>) =
        world.api.pods().into_iter().partition(|pod| pod.is_mirror());
    for pod in world.manifests.pods() {
        let uid = pod.uid().to_string();
        let Some(found) = mirrors.iter().position(|mirror| subject(mirror) == uid) else {
            differences.push((uid, "it has no mirror".to_owned()));
            continue;
        };
        let mirror = mirrors.swap_remove(found);
        if mirror.is_deleting() {
            differences.push((uid, "its mirror is deleted".to_owned()));
        }
        pods.push(Arc::new(Pod { status: mirror.status.clone(), ..(*pod).clone() }));
    }
    let orphans = mirrors.iter().map(|mirror| (subject(mirror), format!("{} mirrors nothing", mirror.uid())));
    differences.extend(orphans);
    pods
}

/// Pods that run although their deadline has long come. It had to be seen to within `quiet`, when nothing failed.
pub(crate) fn overdue(world: &World, quiet: Duration) -> Option<Difference> {
    let is_overdue = |pod: &&Arc<Pod>| {
        let grace = pod.pod_spec().termination_grace_period_seconds.unwrap_or(30);
        let grace = OVERDUE + Duration::from_secs(u64::try_from(grace).unwrap_or_default());
        let late = after_deadline(pod).filter(|late| *late > grace);
        late.is_some() && quiet > grace
    };
    let pods = wanted_pods(world, &mut Vec::new());
    let runs = |pod: &Pod| alive(world, &pod.uid()).find(|what| what.ends_with(" runs"));
    let found = pods.iter().filter(is_overdue).find_map(|pod| Some((pod, runs(pod)?)));
    found.map(|(pod, what)| (pod.uid().to_string(), format!("{what} long after the deadline")))
}

/// How long ago the pod had to end.
fn after_deadline(pod: &Pod) -> Option<Duration> {
    let allowed = u64::try_from(pod.pod_spec().active_deadline_seconds?).ok()?;
    let started = pod.pod_status().start_time.as_ref()?.0;
    let active = Duration::try_from(clock::now().duration_since(started)).ok()?;
    active.checked_sub(Duration::from_secs(allowed))
}

fn of_pod(world: &World, pod: &Pod) -> Vec<String> {
    if pod.is_deleting() {
        return vec!["it is deleted, and still there".to_owned()];
    }
    let (uid, status) = (pod.uid(), pod.pod_status());
    let instances = instances(world, &uid);
    let wanted = expected_phase(pod, &instances);
    let mut wrong = Vec::new();
    if wanted != Some(pod.phase()) {
        wrong.push(format!("its phase is {:?}, it should be {wanted:?}", pod.phase()));
    }
    wrong.extend(admission(pod));
    if phase::is_terminal(pod.phase()) {
        wrong.extend(alive(world, &uid).map(|what| format!("it has ended, and {what}")));
        return wrong;
    }
    if after_deadline(pod).is_some_and(|late| late > OVERDUE) {
        wrong.push("it goes on after its deadline".to_owned());
    }
    if pod.metadata.generation.is_some() && status.observed_generation != pod.metadata.generation {
        wrong.push(format!("generation {:?} was observed, not the last", status.observed_generation));
    }
    let mut all_ready = true;
    for container in pod.containers().iter().chain(sidecars(pod)) {
        let newest = newest(&instances, &container.name);
        let is_ready = is_ready(world, pod, container, newest);
        all_ready &= is_ready;
        let Some(shown) = shown(pod, &container.name) else {
            wrong.push(format!("{} has no status", container.name));
            continue;
        };
        wrong.extend(of_container(shown, newest));
        if shown.ready != is_ready {
            wrong.push(format!("{}: ready is {}", container.name, shown.ready));
        }
    }
    for container in ephemeral_containers(pod) {
        let newest = newest(&instances, &container.name);
        let agrees = shown(pod, &container.name).map(|shown| of_container(shown, newest));
        wrong.extend(agrees.unwrap_or_else(|| Some(format!("{} has no status", container.name))));
    }
    wrong.extend(conditions(pod, all_ready));
    wrong.extend(initialized_late(pod, &instances));
    // An instance that an earlier agent's call made has what it was to have then, and no agent can know of it.
    if !world.history.is_belated(&uid) {
        wrong.extend(resources::of_pod(pod, &instances));
    }
    wrong
}

/// What cannot be admitted is not, and says why; what can be is, if there is room.
fn admission(pod: &Pod) -> Option<String> {
    let status = pod.pod_status();
    let reason = status.reason.as_deref().unwrap_or_default();
    if let Some(flaw) = pod.annotation(FLAW) {
        let is_reason = reason == flaw || NO_ROOM.contains(&reason);
        return (!is_reason).then(|| format!("it was to be rejected for {flaw}, not {reason:?}"));
    }
    let rejected = status.message.as_deref().is_some_and(|message| message.starts_with("Pod was rejected"));
    (rejected && !NO_ROOM.contains(&reason)).then(|| format!("it was rejected for {reason}"))
}

fn conditions(pod: &Pod, containers_ready: bool) -> Vec<String> {
    let has = |kind: &str| {
        let found = pod.pod_status().conditions.iter().flatten().find(|c| c.type_ == kind);
        found.is_some_and(|c| c.status == "True")
    };
    let gates = pod.pod_spec().readiness_gates.iter().flatten();
    let gates_open = gates.into_iter().all(|gate| has(&gate.condition_type));
    let expected = [("Ready", containers_ready && gates_open), ("ContainersReady", containers_ready)];
    let wrong = expected.iter().filter(|(kind, expected)| has(kind) != *expected);
    wrong.map(|(kind, expected)| format!("condition {kind} is {}", !expected)).collect()
}

/// Whatever restarts everything begins with the init containers.
fn initialized_late(pod: &Pod, instances: &[(&'static str, Arc<Instance>)]) -> Option<String> {
    let init = pod.init_containers().iter().filter(|c| !is_restartable_init_container(c));
    let init = init.filter_map(|c| newest(instances, &c.name)?.1.finished_at).max()?;
    let main = pod.containers().iter().filter_map(|c| newest(instances, &c.name));
    let early = main.into_iter().find(|(_, c)| {
        c.state == ContainerState::Running && c.started_at.is_some_and(|started| started < init)
    })?;
    Some(format!("{} started before the last init container was done", early.1.id))
}

fn sidecars(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers().iter().filter(|c| is_restartable_init_container(c))
}

fn shown<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.pod_status();
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().find_map(|list| container_status(list, name))
}

/// All instances of a pod's containers with the provider's name: those that run, then the newest, first.
fn instances(world: &World, uid: &str) -> Vec<(&'static str, Arc<Instance>)> {
    let of = |provider: &Arc<SimProvider>| {
        let name = provider.name();
        provider.inner().containers().into_iter().map(move |c| (name, c))
    };
    let mut all: Vec<_> = world.providers.iter().flat_map(of).filter(|(_, c)| c.pod.uid == uid).collect();
    let runs = |c: &Instance| c.state == ContainerState::Running;
    all.sort_by_key(|(_, c)| std::cmp::Reverse((runs(c), c.attempt, c.created_at)));
    all
}

fn newest<'a>(
    instances: &'a [(&'static str, Arc<Instance>)],
    name: &str,
) -> Option<&'a (&'static str, Arc<Instance>)> {
    instances.iter().find(|(_, c)| c.name == name)
}

/// Once nothing fails any more, whatever is to run does.
fn expected_phase(pod: &Pod, instances: &[(&'static str, Arc<Instance>)]) -> Option<&'static str> {
    let main: Vec<_> = pod.containers().iter().map(|c| newest(instances, &c.name).map(|(_, c)| c)).collect();
    if main.iter().flatten().any(|c| c.state == ContainerState::Running) {
        return Some(phase::RUNNING);
    }
    if phase::is_terminal(pod.phase()) && pod.pod_status().reason.is_some() {
        // The agent has ended it, or not let it begin.
        return Some(phase::FAILED);
    }
    if phase::is_terminal(pod.phase()) {
        // Its containers may have been collected: what was said of them holds.
        let exit_code =
            |c: &Container| Some(shown(pod, &c.name)?.state.as_ref()?.terminated.as_ref()?.exit_code);
        let codes: Vec<_> = pod.containers().iter().map(exit_code).collect();
        let succeeded = codes.iter().all(|code| *code == Some(0));
        return Some(if succeeded { phase::SUCCEEDED } else { phase::FAILED });
    }
    None
}

fn of_container(shown: &ContainerStatus, newest: Option<&(&'static str, Arc<Instance>)>) -> Option<String> {
    let name = &shown.name;
    let Some((provider, instance)) = newest else {
        return Some(format!("{name} was never made"));
    };
    let id = format!("{provider}://{}", instance.id);
    if shown.container_id.as_deref() != Some(&*id) {
        return Some(format!("{name} is shown as {:?}, and is {id}", shown.container_id));
    }
    let attempt = i32::try_from(instance.attempt).unwrap_or(i32::MAX);
    if shown.restart_count < attempt {
        return Some(format!("{name} was restarted {attempt} times, {} are shown", shown.restart_count));
    }
    let state = shown.state.clone().unwrap_or_default();
    let agrees = match instance.state {
        ContainerState::Running => state.running.is_some(),
        ContainerState::Exited => {
            state.terminated.as_ref().is_some_and(|t| t.exit_code == instance.exit_code)
        }
        ContainerState::Created | ContainerState::Unknown => false,
    };
    (!agrees).then(|| format!("{name} is {:?}, and is shown as {state:?}", instance.state))
}

fn is_ready(
    world: &World,
    pod: &Pod,
    container: &Container,
    newest: Option<&(&'static str, Arc<Instance>)>,
) -> bool {
    let runs = newest.is_some_and(|(_, c)| c.state == ContainerState::Running);
    let probe = format!("{}-readiness", container.name);
    runs && (container.readiness_probe.is_none() || world.lives.is_well(&pod.uid(), &probe))
}

/// What of a pod takes up room that it must not any more.
fn alive(world: &World, uid: &str) -> impl Iterator<Item = String> {
    let mut alive = Vec::new();
    for provider in &world.providers {
        let containers = provider.inner().containers().into_iter();
        let running = containers.filter(|c| c.pod.uid == uid && c.state == ContainerState::Running);
        alive.extend(running.map(|c| format!("{} runs", c.id)));
        let sandboxes = provider.inner().sandboxes().into_iter();
        let ready = sandboxes.filter(|s| s.pod.uid == uid && s.state == SandboxState::Ready);
        alive.extend(ready.map(|s| format!("{} is ready", s.id)));
    }
    if world.volumes.mounted().contains(uid) {
        alive.push("its volumes are mounted".to_owned());
    }
    alive.into_iter()
}

/// What is left once every pod was deleted.
pub(crate) fn left(world: &World) -> Vec<Difference> {
    let mut left = Vec::new();
    for pod in world.api.pods() {
        left.push((pod.uid().to_string(), "its object is still there".to_owned()));
    }
    for provider in &world.providers {
        for c in provider.inner().containers() {
            left.push((c.pod.uid.clone(), format!("container {}", c.id)));
        }
        for s in provider.inner().sandboxes() {
            left.push((s.pod.uid.clone(), format!("sandbox {}", s.id)));
        }
    }
    left.extend(world.volumes.mounted().into_iter().map(|uid| (uid, "volumes".to_owned())));
    for (part, keys) in world.kubelet().into_iter().flat_map(|kubelet| kubelet.kept()) {
        left.extend(keys.into_iter().map(|key| (uid_in(&key), format!("{part}: {key}"))));
    }
    left
}

/// The UID that a key begins with: `u12_main0_…`, or `fast://u12-sandbox-0-main0-0`.
fn uid_in(key: &str) -> String {
    let id = key.split_once("://").map_or(key, |(_, id)| id);
    id.split(['_', '-']).next().unwrap_or_default().to_owned()
}
