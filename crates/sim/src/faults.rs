//! What goes wrong, and how often. Each run has its own measure of everything; in the end all is well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_core::ports::ApiError;
use coracle_provider::{Error, ErrorKind};

use crate::dice::Dice;

/// In how many of a thousand calls something happens.
const MEASURES: [u32; 4] = [0, 10, 60, 300];

/// The faults of a run.
pub(crate) struct Faults {
    calm: AtomicBool,
    api_refuses: u32,
    api_loses: u32,
    api_lags: u32,
    api_has_not_heard: u32,
    watch_lags: u32,
    watch_doubles: u32,
    volumes_fail: u32,
    pulls_fail: u32,
    hooks_fail: u32,
}

/// The faults of one provider.
pub(crate) struct ProviderFaults {
    /// How many times slower than the other one.
    slowness: u32,
    refuses: u32,
    loses: u32,
    lags: u32,
    loses_events: u32,
    doubles_events: u32,
    delays_events: u32,
    stalls_events: u32,
}

/// What becomes of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventFate {
    Told,
    Lost,
    /// It comes, and once more later.
    Doubled,
    /// It is late, and others overtake it.
    Late,
    /// It is late, and so is whatever comes after it.
    Stalled,
}

impl Faults {
    pub(crate) fn new(dice: &Dice) -> Self {
        let measure = || *dice.pick(&MEASURES);
        Self {
            calm: AtomicBool::new(false),
            api_refuses: measure(),
            api_loses: measure() / 2,
            api_lags: measure(),
            api_has_not_heard: measure(),
            watch_lags: measure(),
            watch_doubles: measure(),
            volumes_fail: measure(),
            pulls_fail: measure(),
            hooks_fail: measure(),
        }
    }

    /// From now on everything works.
    pub(crate) fn stop(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn happens(&self, dice: &Dice, per_mille: u32) -> bool {
        !self.is_calm() && dice.chance(per_mille)
    }

    pub(crate) fn api_delay(&self, dice: &Dice) -> Duration {
        if self.happens(dice, self.api_lags) { dice.millis(20..3000) } else { dice.millis(0..8) }
    }

    pub(crate) fn api_refusal(&self, dice: &Dice) -> Option<ApiError> {
        self.happens(dice, self.api_refuses).then(|| match dice.number(0..4) {
            0 => ApiError::TooManyRequests {
                message: "too many requests".to_owned(),
                retry_after: dice.chance(500).then_some(Duration::from_secs(1)),
            },
            1 => ApiError::Conflict("the object has been modified".to_owned()),
            2 => ApiError::Unavailable("connection refused".to_owned()),
            _ => ApiError::Unavailable("500 internal error".to_owned()),
        })
    }

    /// The apiserver's plug-ins do not know a pod that is there.
    pub(crate) fn api_has_not_heard(&self, dice: &Dice) -> bool {
        self.happens(dice, self.api_has_not_heard)
    }

    pub(crate) fn api_loses_answer(&self, dice: &Dice) -> bool {
        self.happens(dice, self.api_loses)
    }

    pub(crate) fn watch_delay(&self, dice: &Dice) -> Duration {
        if self.happens(dice, self.watch_lags) { dice.millis(20..3000) } else { dice.millis(0..6) }
    }

    pub(crate) fn watch_doubles(&self, dice: &Dice) -> bool {
        self.happens(dice, self.watch_doubles)
    }

    pub(crate) fn volumes_fail(&self, dice: &Dice) -> bool {
        self.happens(dice, self.volumes_fail)
    }

    pub(crate) fn hook_fails(&self, dice: &Dice) -> bool {
        self.happens(dice, self.hooks_fail)
    }

    /// A probe neither succeeds nor fails.
    pub(crate) fn probe_breaks(&self, dice: &Dice) -> bool {
        self.happens(dice, self.hooks_fail / 4)
    }

    pub(crate) fn pull_error(&self, dice: &Dice) -> Option<Error> {
        let kinds = [ErrorKind::RegistryUnavailable, ErrorKind::Internal, ErrorKind::Unauthorized];
        self.happens(dice, self.pulls_fail).then(|| Error::new(*dice.pick(&kinds), "the pull failed"))
    }
}

impl ProviderFaults {
    /// `measure`: the most of a thousand calls that fail.
    pub(crate) fn new(dice: &Dice, slowness: u32, fails: bool) -> Self {
        let measure = || if fails { *dice.pick(&MEASURES) } else { 0 };
        Self {
            slowness,
            refuses: measure(),
            loses: measure() / 2,
            lags: *dice.pick(&MEASURES),
            loses_events: measure(),
            doubles_events: measure(),
            delays_events: measure(),
            stalls_events: measure() / 6,
        }
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.slowness == 1
    }

    pub(crate) fn delay(&self, faults: &Faults, dice: &Dice) -> Duration {
        if faults.happens(dice, self.lags) {
            return dice.millis(100..5000);
        }
        dice.millis(0..4) * self.slowness
    }

    pub(crate) fn refusal(&self, faults: &Faults, dice: &Dice) -> Option<Error> {
        let kinds = [ErrorKind::Unavailable, ErrorKind::Internal, ErrorKind::ResourceExhausted];
        faults.happens(dice, self.refuses).then(|| Error::new(*dice.pick(&kinds), "the call was refused"))
    }

    pub(crate) fn loses_answer(&self, faults: &Faults, dice: &Dice) -> bool {
        faults.happens(dice, self.loses)
    }

    pub(crate) fn event(&self, faults: &Faults, dice: &Dice) -> EventFate {
        if faults.happens(dice, self.loses_events) {
            EventFate::Lost
        } else if faults.happens(dice, self.doubles_events) {
            EventFate::Doubled
        } else if faults.happens(dice, self.delays_events) {
            EventFate::Late
        } else if faults.happens(dice, self.stalls_events) {
            EventFate::Stalled
        } else {
            EventFate::Told
        }
    }
}
