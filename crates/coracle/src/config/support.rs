//! What this program does with a flag or a configuration field that upstream knows.

/// One answer per flag or field; the warnings, the refusals and `docs/flags.md` all come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what upstream does. The text says what that is.
    Works(&'static str),
    /// It is read and checked, and a value other than the default gives a warning. The text says why nothing changes.
    NoEffect(&'static str),
    /// A value other than the default stops the start, because ignoring it would mislead. The text says what to do.
    Refused(&'static str),
}

impl Support {
    /// The short text that goes with the answer.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Works(text) | Self::NoEffect(text) | Self::Refused(text) => text,
        }
    }

    /// The word for the answer in help texts and in the documentation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Works(_) => "works",
            Self::NoEffect(_) => "no effect",
            Self::Refused(_) => "refused",
        }
    }

    /// Reports a value other than the default: a warning, a refusal, or nothing where it works.
    ///
    /// `name` is how the user knows the setting: `KubeletConfiguration.maxPods` or `--lock-file`.
    pub fn report(self, name: &str, warnings: &mut Vec<String>, refusals: &mut Vec<String>) {
        match self {
            Self::Works(_) => {}
            Self::NoEffect(why) => warnings.push(format!("{name} has no effect in this version: {why}")),
            Self::Refused(why) => refusals.push(format!("{name} is refused: {why}")),
        }
    }
}
