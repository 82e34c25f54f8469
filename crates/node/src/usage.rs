//! What this process itself uses.

use std::time::Duration;

use rustix::param;

use crate::error::NodeError;
use crate::files::Files;

const STAT: &str = "proc/self/stat";
const STATM: &str = "proc/self/statm";

/// What this process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Processor time since its start, of all its threads.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
}

/// Reads what this process has used.
pub fn process_usage() -> Result<ProcessUsage, NodeError> {
    read(&Files::system())
}

fn read(files: &Files) -> Result<ProcessUsage, NodeError> {
    let missing = |file, what| NodeError::Missing { path: files.path(file), what };
    let ticks = cpu_ticks(&files.read(STAT)?).ok_or_else(|| missing(STAT, "processor time"))?;
    let pages = resident_pages(&files.read(STATM)?).ok_or_else(|| missing(STATM, "resident memory"))?;
    Ok(ProcessUsage {
        cpu: Duration::from_secs(1).mul_f64(ticks as f64 / param::clock_ticks_per_second() as f64),
        resident_bytes: pages.saturating_mul(param::page_size() as u64),
    })
}

/// utime and stime, the 14th and 15th field; the second one is a name in brackets that may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user.saturating_add(system))
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let stat = "42 (a) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(resident_pages("5000 1234 500 10 0 2000 0"), Some(1234));
        assert_eq!((cpu_ticks("42 (name"), resident_pages("1")), (None, None));
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let before = process_usage().unwrap();
        assert!(before.resident_bytes > 100_000, "{before:?}");
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(start);
        }
        assert!(process_usage().unwrap().cpu > before.cpu);
    }
}
