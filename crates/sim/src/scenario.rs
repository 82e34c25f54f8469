//! One run: a time in which everything happens and goes wrong, a quiet time in which all must come right, and the end
//! of every pod.

use std::cell::RefCell;
use std::time::Duration;

use coracle_core::clock;
use coracle_core::pod::PodExt;
use coracle_provider::{ContainerState, RuntimeService, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, sleep};

use crate::api::WATCH_LAG;
use crate::checker::Violation;
use crate::dice::Dice;
use crate::history::Fact;
use crate::pods::any_pod;
use crate::truth;
use crate::world::World;

/// Pods at a time; as many names.
const NAMES: u32 = 6;
/// The longest back-off, jitter, a list, and some more.
const SETTLED_WITHIN: Duration = Duration::from_secs(30 * 60);
/// Nothing more is written once this long all was as it should be.
const STABLE: Duration = Duration::from_secs(100);
/// Two rounds of the collector of garbage, and the time of a call.
const GONE_WITHIN: Duration = Duration::from_secs(200);

/// What came of a seed.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: String,
    pub(crate) facts: usize,
    pub(crate) digest: u64,
    pub(crate) simulated: Duration,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic in any task is a violation.
pub(crate) fn watch_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.set(Some(info.to_string()))));
}

/// Runs a seed on a runtime of its own. The same seed gives the same run.
pub(crate) fn run(seed: u64, whole_trace: bool) -> std::io::Result<Outcome> {
    fastrand::seed(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build()?;
    Ok(runtime.block_on(async {
        clock::simulated::start_at(Timestamp::constant(1_767_225_600, 0));
        let start = Instant::now();
        let mut scenario = Scenario { world: World::new(Dice::new(seed)), pods: 0 };
        scenario.run().await;
        let history = &scenario.world.history;
        let violation = history.violation();
        let uid = violation.as_ref().map(|v| v.uid.clone()).unwrap_or_default();
        Outcome {
            trace: if violation.is_some() || whole_trace {
                history.trace(&uid, whole_trace)
            } else {
                String::new()
            },
            violation,
            facts: history.facts(),
            digest: history.digest(),
            simulated: start.elapsed(),
        }
    }))
}

struct Scenario {
    world: World,
    pods: u32,
}

impl Scenario {
    async fn run(&mut self) {
        self.world.start_agent();
        for _ in 0..self.world.dice.number(10..45) {
            let dice = &self.world.dice;
            let gap = *dice.pick(&[3, 30, 30, 300, 1000, 8000]);
            sleep(dice.millis(0..gap)).await;
            self.act().await;
            if self.is_broken() {
                return;
            }
        }
        self.calm_down();
        if self.settle().await {
            self.end_all().await;
        }
        self.is_broken();
    }

    fn is_broken(&self) -> bool {
        if let Some(message) = PANIC.take() {
            self.fail("nothing panics", "", message);
        }
        self.world.history.violation().is_some()
    }

    fn fail(&self, rule: &'static str, uid: &str, message: String) {
        self.world.history.fail(Violation { rule, uid: uid.to_owned(), message });
    }

    async fn act(&mut self) {
        match self.world.dice.number(0..100) {
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
            _ => self.finalize(),
        }
    }

    fn any(&self, which: impl Fn(&Pod) -> bool) -> Option<std::sync::Arc<Pod>> {
        let pods: Vec<_> = self.world.api.pods().into_iter().filter(|pod| which(pod)).collect();
        (!pods.is_empty()).then(|| self.world.dice.pick(&pods).clone())
    }

    fn create(&mut self) {
        let world = &self.world;
        let name = format!("p{}", world.dice.number(0..NAMES));
        if world.api.get(&name).is_some() {
            return;
        }
        self.pods += 1;
        let uid = format!("u{}", self.pods);
        let new = any_pod(&world.dice, &uid, &name);
        for (container, life) in new.lives {
            world.lives.set(&uid, &container, life);
        }
        if world.dice.chance(150) {
            world.volumes.come_at(&uid, Instant::now() + world.dice.millis(0..20_000));
        }
        world.api.create(new.pod);
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
            let code = *self.world.dice.pick(&[0, 1, 42, 137]);
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
        let probe = self.world.dice.pick(&probes);
        self.world.history.note(&pod.uid(), format!("{probe} turns"));
        self.world.lives.turn(&pod.uid(), probe);
    }

    fn change_image(&self) {
        let Some(pod) = self.any(|pod| !pod.is_deleting()) else { return };
        let name = pod.containers().first().map(|c| c.name.clone()).unwrap_or_default();
        self.world.history.tell(&pod.uid(), Fact::ImageChanged { name });
        self.world.api.change(pod.name(), |pod| {
            pod.metadata.generation = pod.metadata.generation.map(|g| g + 1);
            if let Some(container) = pod.spec.as_mut().and_then(|spec| spec.containers.first_mut()) {
                container.image = container.image.as_ref().map(|image| format!("{image}2"));
            }
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

    /// No more faults.
    fn calm_down(&mut self) {
        self.world.history.note("", "quiet");
        self.world.faults.stop();
        self.world.lives.calm();
        for provider in &self.world.providers {
            if provider.is_down() {
                provider.set_down(false);
            }
        }
        for pod in self.world.api.pods() {
            self.world.api.change(pod.name(), |pod| pod.metadata.finalizers = None);
        }
        if self.world.kubelet().is_none() {
            self.world.start_agent();
        }
    }

    /// Waits until the API shows what is, and goes on doing so without another word. Says whether it came to that.
    async fn settle(&self) -> bool {
        sleep(WATCH_LAG).await;
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut good_since: Option<(Instant, usize)> = None;
        while !self.is_broken() {
            let differences = truth::differences(&self.world);
            let patches = self.world.api.patches();
            let Some((uid, message)) = differences.first() else {
                let (since, before) = *good_since.get_or_insert((Instant::now(), patches));
                if before != patches {
                    good_since = None;
                } else if since.elapsed() >= STABLE {
                    return true;
                }
                if Instant::now() > deadline {
                    self.fail("statuses settle", "", "statuses are written again and again".to_owned());
                }
                sleep(Duration::from_secs(5)).await;
                continue;
            };
            good_since = None;
            if Instant::now() > deadline {
                self.fail("the API shows what is", uid, message.clone());
            }
            sleep(Duration::from_secs(5)).await;
        }
        false
    }

    /// Every pod is deleted; then nothing is left of any.
    async fn end_all(&self) {
        for pod in self.world.api.pods() {
            self.world.api.delete(pod.name(), *self.world.dice.pick(&[30, 5, 1]));
        }
        let deadline = Instant::now() + GONE_WITHIN;
        while !self.is_broken() {
            let left = truth::left(&self.world);
            let Some((uid, message)) = left.first() else { return };
            if Instant::now() > deadline {
                self.fail("nothing is left of a pod that is gone", uid, message.clone());
            }
            sleep(Duration::from_secs(2)).await;
        }
    }
}
