//! What users, controllers, programs and machines do meanwhile.

use std::sync::Arc;
use std::time::Duration;

use coracle_core::pod::{PodExt, phase};
use coracle_provider::{ContainerState, RuntimeService, SandboxState};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodCondition};
use tokio::time::{Instant, sleep};

use super::{NAMES, Scenario};
use crate::api::subject;
use crate::checker::EPHEMERAL;
use crate::history::Fact;
use crate::lives::Life;
use crate::pods::{FLAW, NewPod, READINESS_GATE, any_pod, resources, static_pod};

/// Files with manifests at a time.
const FILES: u32 = 2;

impl Scenario {
    pub(super) async fn act(&mut self) {
        match self.world.dice.number(0..124) {
            0..32 => self.create(),
            32..44 => self.delete(),
            44..52 => self.shorten(),
            52..55 => self.force_delete(),
            55..63 => self.restart_agent().await,
            63..72 => self.end_container(),
            72..75 => self.end_sandbox().await,
            75..81 => self.toggle_provider(),
            81..85 => self.world.api.drop_watches(),
            85..92 => self.turn_sick(),
            92..95 => self.change_image(),
            95..97 => self.label(),
            97..100 => self.finalize(),
            100..110 => self.write_manifest(),
            110..117 => self.resize(),
            117..120 => self.set_gate(),
            120..123 => self.debug(),
            _ => self.set_deadline(),
        }
    }

    /// Any object of the apiserver, mirrors of static pods included.
    fn any(&self, which: impl Fn(&Pod) -> bool) -> Option<Arc<Pod>> {
        let pods: Vec<_> = self.world.api.pods().into_iter().filter(|pod| which(pod)).collect();
        (!pods.is_empty()).then(|| self.world.dice.pick(&pods).clone())
    }

    /// Any pod that is the apiserver's own and goes on.
    fn any_active(&self, which: impl Fn(&Pod) -> bool) -> Option<Arc<Pod>> {
        self.any(|pod| {
            !pod.is_mirror() && !pod.is_deleting() && !phase::is_terminal(pod.phase()) && which(pod)
        })
    }

    fn begin_lives(&self, new: NewPod) -> Pod {
        for (container, life) in new.lives {
            self.world.lives.set(&new.pod.uid(), &container, life);
        }
        new.pod
    }

    fn create(&mut self) {
        let name = format!("p{}", self.world.dice.number(0..NAMES));
        if self.world.api.get(&name).is_some() {
            return;
        }
        self.pods += 1;
        let uid = format!("u{}", self.pods);
        let pod = self.begin_lives(any_pod(&self.world.dice, &uid, &name));
        if self.world.dice.chance(150) {
            self.world.volumes.come_at(&uid, Instant::now() + self.world.dice.millis(0..20_000));
        }
        self.world.api.create(pod);
    }

    /// A manifest comes, goes, changes, or comes back as it was: then it is a pod with the same UID.
    fn write_manifest(&mut self) {
        let file = format!("static{}", self.world.dice.number(0..FILES));
        let old = self.world.manifests.get(&file);
        if old.is_some() && self.world.dice.chance(500) {
            self.world.manifests.remove(&file);
            return;
        }
        let known: Vec<_> = self.manifests.iter().filter(|(of, _)| *of == file).cloned().collect();
        if old.is_none() && !known.is_empty() && self.world.dice.chance(600) {
            let (_, pod) = self.world.dice.pick(&known);
            self.world.manifests.put(&file, pod.clone());
            return;
        }
        self.pods += 1;
        let new = static_pod(&self.world.dice, &format!("s{}", self.pods), &file);
        let pod = Arc::new(self.begin_lives(new));
        self.manifests.push((file.clone(), pod.clone()));
        self.world.manifests.put(&file, pod);
    }

    fn delete(&self) {
        if let Some(pod) = self.any(|pod| !pod.is_deleting()) {
            let own = pod.pod_spec().termination_grace_period_seconds.unwrap_or(30);
            let grace = *self.world.dice.pick(&[own, own, 30, 5, 1]);
            self.world.api.delete(pod.name(), grace);
        }
    }

    fn shorten(&self) {
        if let Some(pod) = self.any(Pod::is_deleting) {
            self.world.api.delete(pod.name(), *self.world.dice.pick(&[20, 5, 1]));
        }
    }

    fn force_delete(&self) {
        if let Some(pod) = self.any(|_| true) {
            self.world.api.delete(pod.name(), 0);
        }
    }

    async fn restart_agent(&mut self) {
        self.world.kill_agent().await;
        let gap = *self.world.dice.pick(&[2, 500, 20_000]);
        sleep(self.world.dice.millis(0..gap)).await;
        if !self.is_broken() {
            self.world.start_agent();
        }
    }

    fn end_container(&self) {
        let provider = self.world.dice.pick(&self.world.providers);
        let mut running = provider.inner().containers();
        running.retain(|c| c.state == ContainerState::Running);
        if !running.is_empty() {
            let code = *self.world.dice.pick(&[0, 1, 42, 43, 137]);
            provider.inner().end_container(&self.world.dice.pick(&running).id, code);
        }
    }

    async fn end_sandbox(&self) {
        let provider = self.world.dice.pick(&self.world.providers);
        let mut ready = provider.inner().sandboxes();
        ready.retain(|s| s.state == SandboxState::Ready);
        if !ready.is_empty() {
            // It is there, and the fake does not fail.
            let _ = provider.inner().stop_sandbox(&self.world.dice.pick(&ready).id).await;
        }
    }

    fn toggle_provider(&self) {
        let provider = self.world.dice.pick(&self.world.providers);
        provider.set_down(!provider.is_down());
    }

    fn turn_sick(&self) {
        let Some(pod) = self.any(|_| true) else { return };
        let mut probes = Vec::new();
        for container in pod.containers().iter().chain(pod.init_containers()) {
            for kind in ["startup", "readiness", "liveness"] {
                probes.push(format!("{}-{kind}", container.name));
            }
        }
        let (uid, probe) = (subject(&pod), self.world.dice.pick(&probes));
        self.world.history.note(&uid, format!("{probe} turns"));
        self.world.lives.turn(&uid, probe);
    }

    fn change_image(&self) {
        let Some(pod) = self.any(|pod| !pod.is_deleting() && !pod.is_mirror()) else { return };
        let name = pod.containers().first().map(|c| c.name.clone()).unwrap_or_default();
        self.world.history.tell(&pod.uid(), Fact::ContainerChanged { name });
        self.world.api.change_spec(pod.name(), |pod| {
            if let Some(container) = first_container(pod) {
                container.image = container.image.as_ref().map(|image| format!("{image}2"));
            }
        });
    }

    /// Asks for more, or less, for the first container; sometimes for more than there can be.
    fn resize(&self) {
        // One that is to be rejected for its size must keep it.
        let can_change = |pod: &Pod| {
            pod.annotation(FLAW).is_none() && pod.containers().iter().any(|c| c.resize_policy.is_some())
        };
        let Some(pod) = self.any_active(can_change) else { return };
        let (cpu, memory) = (
            *self.world.dice.pick(&["100m", "300m", "1", "2", "64"]),
            *self.world.dice.pick(&["64Mi", "128Mi"]),
        );
        self.world.history.note(&pod.uid(), format!("a user resizes it to {cpu} and {memory}"));
        // Which may take a restart, also of one that is just ending by itself.
        let resized = pod.containers().iter().find(|c| c.resize_policy.is_some());
        if let Some(name) = resized.map(|container| container.name.clone()) {
            self.world.history.tell(&pod.uid(), Fact::ContainerChanged { name });
        }
        self.world.api.change_spec(pod.name(), |pod| {
            let containers = pod.spec.iter_mut().flat_map(|spec| &mut spec.containers);
            let Some(container) = containers.into_iter().find(|c| c.resize_policy.is_some()) else { return };
            let limited = container.resources.as_ref().is_some_and(|r| r.limits.is_some());
            container.resources = serde_json::from_value(resources(cpu, memory, limited)).ok();
        });
    }

    /// Somebody's condition, which the pod's readiness depends on, changes.
    fn set_gate(&self) {
        let Some(pod) = self.any_active(|pod| pod.pod_spec().readiness_gates.is_some()) else { return };
        let status = *self.world.dice.pick(&["True", "True", "False"]);
        self.world.history.note(&pod.uid(), format!("its readiness gate is {status}"));
        self.world.api.change(pod.name(), |pod| {
            let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.retain(|c| c.type_ != READINESS_GATE);
            conditions.push(PodCondition {
                type_: READINESS_GATE.to_owned(),
                status: status.to_owned(),
                ..PodCondition::default()
            });
        });
    }

    /// Somebody adds a container to look at the others.
    fn debug(&self) {
        let Some(pod) = self.any_active(|_| true) else { return };
        let count = pod.pod_spec().ephemeral_containers.as_ref().map_or(0, Vec::len);
        let name = format!("{EPHEMERAL}{count}");
        let end = self.world.dice.chance(500).then(|| (0, self.world.dice.millis(0..12_000)));
        self.world.lives.set(&pod.uid(), &name, Life { fails: (0, 0, Duration::ZERO), then: end });
        self.world.history.note(&pod.uid(), format!("a user adds {name}"));
        self.world.api.change_spec(pod.name(), |pod| {
            let container = EphemeralContainer {
                name,
                image: Some("tool".to_owned()),
                image_pull_policy: Some("IfNotPresent".to_owned()),
                ..EphemeralContainer::default()
            };
            pod.spec.get_or_insert_default().ephemeral_containers.get_or_insert_default().push(container);
        });
    }

    fn set_deadline(&self) {
        let Some(pod) = self.any_active(|pod| pod.pod_spec().active_deadline_seconds.is_none()) else {
            return;
        };
        let seconds = i64::from(self.world.dice.number(1..40));
        self.world.history.note(&pod.uid(), format!("a user lets it be active for {seconds} s"));
        self.world.api.change_spec(pod.name(), |pod| {
            pod.spec.get_or_insert_default().active_deadline_seconds = Some(seconds);
        });
    }

    fn label(&self) {
        let Some(pod) = self.any(|_| true) else { return };
        let value = self.world.dice.number(0..1000).to_string();
        self.world.api.change(pod.name(), |pod| {
            pod.metadata.labels.get_or_insert_default().insert("label".to_owned(), value);
        });
    }

    fn finalize(&self) {
        let finalized = |pod: &Pod| pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
        if let Some(pod) = self.any(finalized) {
            self.world.api.change(pod.name(), |pod| pod.metadata.finalizers = None);
        }
    }
}

fn first_container(pod: &mut Pod) -> Option<&mut Container> {
    pod.spec.as_mut()?.containers.first_mut()
}
