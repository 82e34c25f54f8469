//! One run: a time in which everything happens and goes wrong, a quiet time in which all must come right, and the end
//! of every pod.

mod acts;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::clock;
use coracle_core::pod::PodExt;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, sleep};

use crate::api::WATCH_LAG;
use crate::checker::Violation;
use crate::dice::Dice;
use crate::history::BEGINNING;
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
        clock::simulated::start_at(BEGINNING);
        let start = Instant::now();
        let mut scenario = Scenario { world: World::new(Dice::new(seed)), pods: 0, manifests: Vec::new() };
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
    /// How many were made.
    pods: u32,
    /// Everything that was ever in a file.
    manifests: Vec<(String, Arc<Pod>)>,
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
        let quiet = Instant::now();
        sleep(WATCH_LAG).await;
        let deadline = quiet + SETTLED_WITHIN;
        let mut good_since: Option<(Instant, usize)> = None;
        while !self.is_broken() {
            if let Some((uid, message)) = truth::overdue(&self.world, quiet.elapsed()) {
                self.fail("deadlines are kept", &uid, message);
            }
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

    /// Every pod is deleted, and every manifest removed; then nothing is left of any.
    async fn end_all(&self) {
        self.world.manifests.clear();
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
