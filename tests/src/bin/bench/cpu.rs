//! What processes cost.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// `USER_HZ`, the same on every Linux.
const TICKS_PER_SECOND: u32 = 100;

/// The CPU time that a process has used so far, all its threads together.
pub(crate) fn time(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    // The second field is a name in parentheses, in which anything may be. User and system time are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs(ticks) / TICKS_PER_SECOND)
}

/// The memory of a process that is resident, in KiB.
pub(crate) fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}
