//! What the API shows against what is.

use std::sync::Arc;

use coracle_core::pod::{PodExt, container_status, is_restartable_init_container, phase};
use coracle_provider::{ContainerState, ContainerStatus as Instance, SandboxState};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::provider::SimProvider;
use crate::world::World;

/// A pod, and what is wrong with it.
pub(crate) type Difference = (String, String);

/// Everything that is not as it should be once nothing changes any more.
pub(crate) fn differences(world: &World) -> Vec<Difference> {
    let pods = world.api.pods();
    let mut all = Vec::new();
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
    all
}

fn of_pod(world: &World, pod: &Pod) -> Vec<String> {
    if pod.is_deleting() {
        return vec!["it is deleted, and still there".to_owned()];
    }
    let uid = pod.uid();
    let instances = instances(world, &uid);
    let wanted = expected_phase(pod, &instances);
    let mut wrong = Vec::new();
    if wanted != Some(pod.phase()) {
        wrong.push(format!("its phase is {:?}, it should be {wanted:?}", pod.phase()));
    }
    if phase::is_terminal(pod.phase()) {
        wrong.extend(alive(world, &uid).map(|what| format!("it has ended, and {what}")));
        return wrong;
    }
    let mut all_ready = true;
    for container in pod.containers().iter().chain(sidecars(pod)) {
        let is_ready = is_ready(world, pod, container, newest(&instances, &container.name));
        all_ready &= is_ready;
        let shown = shown(pod, &container.name);
        let Some(shown) = shown else {
            wrong.push(format!("{} has no status", container.name));
            continue;
        };
        wrong.extend(of_container(shown, newest(&instances, &container.name)));
        if shown.ready != is_ready {
            wrong.push(format!("{}: ready is {}", container.name, shown.ready));
        }
    }
    for kind in ["Ready", "ContainersReady"] {
        let conditions = pod.pod_status().conditions.iter().flatten();
        let shown = conditions.into_iter().find(|c| c.type_ == kind).is_some_and(|c| c.status == "True");
        if shown != all_ready {
            wrong.push(format!("condition {kind} is {shown}"));
        }
    }
    wrong
}

fn sidecars(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers().iter().filter(|c| is_restartable_init_container(c))
}

fn shown<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.pod_status();
    let lists = [&status.container_statuses, &status.init_container_statuses];
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
