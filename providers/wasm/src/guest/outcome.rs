//! How a guest ended, in the terms of a container's status.

use wasmtime_wasi::I32Exit;

use super::memory::MemoryExceeded;
use crate::compile::one_line;

/// The code of a container that was ended by force, as after SIGKILL.
pub(crate) const KILLED: i32 = 137;
/// The code of a container that was asked to end, as after SIGTERM.
pub(crate) const TERMINATED: i32 = 143;
/// The code of a program that was interrupted at its terminal, as after SIGINT.
const INTERRUPTED: i32 = 130;
/// The code of a guest that trapped. There was no signal, so it is an ordinary failure.
const TRAPPED: i32 = 1;

/// The end of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) exit_code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Outcome {
    /// It ended by itself.
    pub(crate) fn exited(exit_code: i32) -> Self {
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        Self { exit_code, reason, message: String::new() }
    }

    /// It was asked to end, and did.
    pub(crate) fn terminated() -> Self {
        Self::exited(TERMINATED)
    }

    /// Somebody pressed Ctrl-C at its terminal.
    pub(crate) fn interrupted() -> Self {
        Self::exited(INTERRUPTED)
    }

    /// It was ended.
    pub(crate) fn killed(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::exited(KILLED) }
    }

    /// It could not go on.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::exited(TRAPPED) }
    }

    fn out_of_memory(exceeded: MemoryExceeded) -> Self {
        Self { exit_code: KILLED, reason: "OOMKilled", message: exceeded.to_string() }
    }
}

/// What is to be made of an error that ended a guest.
pub(crate) struct Failure {
    /// For the container's status.
    pub(crate) outcome: Outcome,
    /// For its log: where in the guest it happened. None if the guest ended itself.
    pub(crate) trace: Option<String>,
}

impl Failure {
    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Self { outcome: Outcome::exited(*code), trace: None };
        }
        let outcome = match error.downcast_ref::<MemoryExceeded>() {
            Some(exceeded) => Outcome::out_of_memory(*exceeded),
            None => match error.downcast_ref::<wasmtime::Trap>() {
                Some(trap) => Outcome::failed(trap.to_string()),
                None => Outcome::failed(one_line(error)),
            },
        };
        Self { outcome, trace: Some(format!("{error:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_not_a_failure_of_the_guest() {
        let failure = Failure::of(&wasmtime::Error::from(I32Exit(7)));
        assert_eq!(failure.outcome, Outcome::exited(7));
        assert_eq!((failure.outcome.reason, failure.trace), ("Error", None));
        assert_eq!(Outcome::exited(0).reason, "Completed");
    }

    #[test]
    fn causes_are_found_under_their_context() {
        let exceeded = MemoryExceeded { limit_bytes: 1, wanted_bytes: 2 };
        let error = wasmtime::Error::from(exceeded).context("while running");
        let failure = Failure::of(&error);
        assert_eq!((failure.outcome.exit_code, failure.outcome.reason), (137, "OOMKilled"));
        let trap = wasmtime::Error::from(wasmtime::Trap::UnreachableCodeReached).context("in main");
        let failure = Failure::of(&trap);
        assert_eq!(failure.outcome.exit_code, 1);
        assert!(failure.outcome.message.contains("unreachable"), "{}", failure.outcome.message);
        assert!(failure.trace.unwrap().contains("in main"));
    }
}
