//! What the machine and this process use (upstream: cAdvisor's root container).

mod network;
mod process;

use std::path::{Path, PathBuf};

use coracle_core::machine::{FileSystem, NodeMemory, NodeUsage};
use coracle_core::ports::NodeUsageSource;
use jiff::Timestamp;
use rustix::{fs, param, system};

use crate::error::NodeError;
use crate::files::Files;

const MEMINFO: &str = "proc/meminfo";
const STAT: &str = "proc/stat";
const VMSTAT: &str = "proc/vmstat";
const PID_MAX: &str = "proc/sys/kernel/pid_max";
const THREADS_MAX: &str = "proc/sys/kernel/threads-max";

const NANOSECONDS: u64 = 1_000_000_000;

/// Reads what this machine uses.
pub struct NodeUsageReader {
    files: Files,
    root_dir: PathBuf,
}

impl NodeUsageReader {
    /// A reader; `root_dir` is the kubelet's root folder, whose file system is the node's ephemeral storage.
    pub fn new(root_dir: impl Into<PathBuf>) -> Self {
        Self { files: Files::system(), root_dir: root_dir.into() }
    }

    fn read(&self) -> Result<NodeUsage, NodeError> {
        let files = &self.files;
        let stat = files.read(STAT)?;
        let missing = |file, what| NodeError::Missing { path: files.path(file), what };
        let boot_time = field(&stat, "btime ").ok_or_else(|| missing(STAT, "time of boot"))?;
        let boot_time = Timestamp::from_second(i64::try_from(boot_time).unwrap_or_default());
        let boot_time = boot_time.map_err(|_| missing(STAT, "time of boot"))?;
        let (memory, swap) = memory(files)?;
        Ok(NodeUsage {
            timestamp: Timestamp::now(),
            boot_time,
            cpu_usage_core_nanos: cpu_nanos(&stat).ok_or_else(|| missing(STAT, "processor time"))?,
            memory,
            swap,
            root_fs: file_system(&self.root_dir)?,
            interfaces: network::interfaces(files)?,
            max_pids: max_pids(files)?,
            pids: system::sysinfo().procs.into(),
            kubelet: process::process_usage(files, boot_time)?,
        })
    }
}

impl NodeUsageSource for NodeUsageReader {
    fn node_usage(&self) -> Result<NodeUsage, String> {
        self.read().map_err(|error| error.to_string())
    }

    fn file_system(&self, folder: &Path) -> Result<FileSystem, String> {
        file_system(folder).map_err(|error| error.to_string())
    }
}

/// How full the file system of a folder is.
fn file_system(folder: &Path) -> Result<FileSystem, NodeError> {
    let failed = |error: rustix::io::Errno| NodeError::Read { path: folder.to_owned(), error: error.into() };
    let (stat, device) = (fs::statvfs(folder).map_err(failed)?, fs::stat(folder).map_err(failed)?.st_dev);
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(FileSystem {
        device,
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// The number behind the name that a line begins with.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// user, nice, system, irq, softirq and steal of all processors. Time of virtual machines is in `user` already.
fn cpu_nanos(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else { return None };
    ticks_to_nanos(user + nice + system + irq + softirq + steal)
}

fn ticks_to_nanos(ticks: u64) -> Option<u64> {
    NANOSECONDS.checked_div(param::clock_ticks_per_second())?.checked_mul(ticks)
}

/// The memory as the root control group has it (runc's `rootStatsFromMeminfo`), and swap.
fn memory(files: &Files) -> Result<(NodeMemory, Option<(u64, u64)>), NodeError> {
    let (meminfo, vmstat) = (files.read(MEMINFO)?, files.read(VMSTAT)?);
    let bytes = |name: &'static str| {
        let kibibytes = field(&meminfo, &format!("{name}:"));
        let missing = || NodeError::Missing { path: files.path(MEMINFO), what: name };
        kibibytes.map(|kibibytes| kibibytes.saturating_mul(1024)).ok_or_else(missing)
    };
    let total = bytes("MemTotal")?;
    let usage_bytes = total.saturating_sub(bytes("MemFree")?);
    let working_set_bytes = usage_bytes.saturating_sub(bytes("Inactive(file)")?);
    let memory = NodeMemory {
        available_bytes: total.saturating_sub(working_set_bytes),
        usage_bytes,
        working_set_bytes,
        rss_bytes: bytes("AnonPages")?,
        page_faults: field(&vmstat, "pgfault ").unwrap_or_default(),
        major_page_faults: field(&vmstat, "pgmajfault ").unwrap_or_default(),
    };
    let (swap, free) = (bytes("SwapTotal")?, bytes("SwapFree")?);
    Ok((memory, (swap > 0).then(|| (free, swap.saturating_sub(free)))))
}

/// The smaller of two limits of the kernel (`rlimitstats.Stats`).
fn max_pids(files: &Files) -> Result<u64, NodeError> {
    let limit = |file: &'static str| {
        let missing = || NodeError::Missing { path: files.path(file), what: "number" };
        files.read(file)?.trim().parse::<u64>().map_err(|_| missing())
    };
    Ok(limit(PID_MAX)?.min(limit(THREADS_MAX)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 9] = [
        (STAT, "cpu  100 10 40 5000 7 3 2 5 50 0\ncpu0 1 2 3\nbtime 1700000000\nprocesses 5\n"),
        (
            MEMINFO,
            "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive: 900 kB\nInactive(file): 200 kB\nAnonPages: 400 kB\n\
             SwapTotal: 50 kB\nSwapFree: 20 kB\n",
        ),
        (VMSTAT, "pgfault 77\npgmajfault 7\n"),
        (PID_MAX, "4194304\n"),
        (THREADS_MAX, "1000\n"),
        (
            network::DEV,
            "a\nb\n  lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth1: 5 1 2 0 0 0 0 0 6 1 3 0 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\nveth12: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n",
        ),
        (network::ROUTE, "Iface\tDestination\tGateway\neth1\t000200C0\t0\neth0\t00000000\t010200C0\n"),
        (process::STAT, "42 (a) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 500 1000 200"),
        (
            process::LIMITS,
            "Limit  Soft Limit  Hard Limit\nMax open files            1024                 4096                 files\n",
        ),
    ];

    fn reader(root: &Path, files: &[(&str, &str)]) -> NodeUsageReader {
        for (file, text) in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::create_dir_all(root.join(process::FDS)).unwrap();
        NodeUsageReader { files: Files::below(root), root_dir: root.to_owned() }
    }

    #[test]
    fn a_machine_is_read_from_the_kernels_files() {
        let root = tempfile::tempdir().unwrap();
        let usage = reader(root.path(), &FILES).node_usage().unwrap();
        assert_eq!(usage.boot_time.as_second(), 1_700_000_000);
        assert_eq!(usage.cpu_usage_core_nanos, 160 * NANOSECONDS / param::clock_ticks_per_second());
        let memory = NodeMemory {
            available_bytes: 500 * 1024,
            usage_bytes: 700 * 1024,
            working_set_bytes: 500 * 1024,
            rss_bytes: 400 * 1024,
            page_faults: 77,
            major_page_faults: 7,
        };
        assert_eq!(usage.memory, memory);
        assert_eq!(usage.swap, Some((20 * 1024, 30 * 1024)));
        assert_eq!(usage.max_pids, 1000);
        let interfaces: Vec<_> =
            usage.interfaces.iter().map(|i| (i.name.as_str(), i.rx_bytes, i.tx_bytes, i.rx_errors)).collect();
        assert_eq!(interfaces, [("eth0", 10, 20, 0), ("eth1", 5, 6, 2)]);
        assert_eq!(usage.kubelet.max_fds, 1024);
        assert!(usage.root_fs.capacity_bytes >= usage.root_fs.used_bytes);
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        let reader = reader(root.path(), &FILES);
        std::fs::write(root.path().join(MEMINFO), "MemTotal: 1 kB\n").unwrap();
        let error = reader.node_usage().unwrap_err();
        assert!(error.ends_with("there is no MemFree in it"), "{error}");
        std::fs::remove_file(root.path().join(STAT)).unwrap();
        assert!(reader.node_usage().unwrap_err().contains("proc/stat"));
    }

    #[test]
    fn this_machine_can_be_read() {
        let usage = NodeUsageReader::new("/").node_usage().unwrap();
        assert!(usage.memory.working_set_bytes > 0 && usage.cpu_usage_core_nanos > 0, "{usage:?}");
        assert!(usage.boot_time < usage.kubelet.started_at, "{usage:?}");
        assert!(usage.kubelet.started_at <= usage.timestamp, "{usage:?}");
        assert!(usage.kubelet.open_fds > 0 && usage.kubelet.max_fds >= usage.kubelet.open_fds, "{usage:?}");
        assert!(usage.pids > 0 && usage.max_pids > 0, "{usage:?}");
    }
}
