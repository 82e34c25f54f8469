//! Exit codes, and the one line that goes with a failure.

use std::process::ExitCode;

/// The command could not be carried out (BSD's `EX_SOFTWARE` has no better name for a daemon's own fault).
pub(crate) const FAILURE: u8 = 1;
/// Nothing could be started: what was asked for is not right, or not there. Container tools use 125 for it.
pub(crate) const NOT_STARTED: u8 = 125;
/// Ended at once by a second Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// Says on one line what went wrong.
pub(crate) fn report(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("coracle: {error:#}");
    ExitCode::from(code)
}
