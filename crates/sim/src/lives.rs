//! What containers do: run for ever, end, fail some times first; and how well they are meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::dice::Dice;

/// What the instances of a container do, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// So many instances end with this code, after this long.
    pub(crate) fails: (u32, i32, Duration),
    /// What all later ones do: end with this code after this long, or run for ever.
    pub(crate) then: Option<(i32, Duration)>,
}

impl Life {
    pub(crate) const FOREVER: Self = Self { fails: (0, 0, Duration::ZERO), then: None };
}

/// The lives of all containers, by pod and name.
pub(crate) struct Lives {
    lives: Mutex<BTreeMap<(String, String), Life>>,
    sick: Mutex<BTreeMap<(String, String), bool>>,
    dice: Dice,
}

impl Lives {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { lives: Mutex::default(), sick: Mutex::default(), dice }
    }

    pub(crate) fn set(&self, uid: &str, name: &str, life: Life) {
        self.lives.lock().insert((uid.to_owned(), name.to_owned()), life);
    }

    /// A container starts: when and how it ends by itself, if it does.
    pub(crate) fn start(&self, uid: &str, name: &str) -> Option<(i32, Duration)> {
        let mut lives = self.lives.lock();
        let life = lives.get_mut(&(uid.to_owned(), name.to_owned()))?;
        if life.fails.0 == 0 {
            return life.then;
        }
        life.fails.0 -= 1;
        Some((life.fails.1, life.fails.2))
    }

    /// How long a container takes to end once it is asked.
    pub(crate) fn reaction(&self) -> Duration {
        if self.dice.chance(200) { Duration::from_secs(1000) } else { self.dice.millis(0..3000) }
    }

    /// A container gets sick, or well again: what its probe of this kind finds.
    pub(crate) fn turn(&self, uid: &str, probe: &str) {
        let mut sick = self.sick.lock();
        let is_sick = sick.entry((uid.to_owned(), probe.to_owned())).or_default();
        *is_sick = !*is_sick;
    }

    pub(crate) fn is_well(&self, uid: &str, probe: &str) -> bool {
        !self.sick.lock().get(&(uid.to_owned(), probe.to_owned())).copied().unwrap_or_default()
    }

    /// All are alive and have started; some are not ready, and stay so.
    pub(crate) fn calm(&self) {
        self.sick.lock().retain(|(_, probe), _| probe.ends_with("readiness"));
    }
}
