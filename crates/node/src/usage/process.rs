//! What this process itself uses.

use coracle_core::machine::ProcessUsage;
use jiff::{SignedDuration, Timestamp};
use rustix::param;

use super::ticks_to_nanos;
use crate::error::NodeError;
use crate::files::Files;

pub(super) const STAT: &str = "proc/self/stat";
pub(super) const LIMITS: &str = "proc/self/limits";
pub(super) const FDS: &str = "proc/self/fd";

pub(super) fn process_usage(files: &Files, boot_time: Timestamp) -> Result<ProcessUsage, NodeError> {
    let stat = files.read(STAT)?;
    let usage = parse(&stat, boot_time);
    let mut usage = usage.ok_or_else(|| NodeError::Missing { path: files.path(STAT), what: "usage" })?;
    let path = files.path(FDS);
    let fds = std::fs::read_dir(&path).map_err(|error| NodeError::Read { path, error })?;
    usage.open_fds = fds.count() as u64;
    usage.max_fds = max_fds(&files.read(LIMITS)?).unwrap_or(u64::MAX);
    Ok(usage)
}

/// Field 2 is a name in brackets that may hold anything. Of the others: 14 and 15 are user and system time, 22 the start
/// since boot, all in ticks; 23 the size in bytes, 24 resident pages.
fn parse(stat: &str, boot_time: Timestamp) -> Option<ProcessUsage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let since_boot = SignedDuration::from_nanos(ticks_to_nanos(field(22)?)?.try_into().ok()?);
    Some(ProcessUsage {
        started_at: boot_time.checked_add(since_boot).ok()?,
        cpu_nanos: ticks_to_nanos(field(14)?.checked_add(field(15)?)?)?,
        resident_bytes: field(24)?.saturating_mul(param::page_size() as u64),
        virtual_bytes: field(23)?,
        open_fds: 0,
        max_fds: 0,
    })
}

/// The soft limit; none if there is none.
fn max_fds(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let stat = "42 (a) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 500 4096000 200";
        let usage = parse(stat, Timestamp::from_second(1000).unwrap()).unwrap();
        let tick = 1_000_000_000 / param::clock_ticks_per_second();
        assert_eq!(usage.cpu_nanos, 300 * tick);
        assert_eq!(usage.started_at.as_nanosecond(), 1000 * 1_000_000_000 + i128::from(500 * tick));
        assert_eq!(usage.virtual_bytes, 4_096_000);
        assert_eq!(usage.resident_bytes, 200 * param::page_size() as u64);
        assert_eq!(parse("42 (name", Timestamp::UNIX_EPOCH), None);
        assert_eq!(parse("42 (name) S 1", Timestamp::UNIX_EPOCH), None);
        assert_eq!(max_fds("Max open files   unlimited  unlimited files"), None);
    }
}
