//! The machine (upstream: cAdvisor's `machine` and `utils/sysfs`).

use std::path::Path;

use coracle_core::machine::MachineInfo;
use rustix::{fs, system};

use crate::error::NodeError;
use crate::files::Files;

const MEMINFO: &str = "proc/meminfo";
const CPUS: &str = "sys/devices/system/cpu/online";

/// Reads what there is to know about this machine; `root_dir` is the kubelet's root folder, whose file system is the
/// node's ephemeral storage.
pub fn machine_info(root_dir: &Path) -> Result<MachineInfo, NodeError> {
    read(&Files::system(), root_dir)
}

/// The name of this host: `override_`, else what the kernel says, trimmed and in lower case (`GetHostname`).
pub fn hostname(override_: Option<&str>) -> Result<String, NodeError> {
    let uname = system::uname();
    let name = override_.map_or_else(|| uname.nodename().to_string_lossy(), Into::into);
    match name.trim() {
        "" => Err(NodeError::NoHostname),
        name => Ok(name.to_lowercase()),
    }
}

fn read(files: &Files, root_dir: &Path) -> Result<MachineInfo, NodeError> {
    let memory = files.read(MEMINFO)?;
    let bytes = |what| {
        kibibytes(&memory, what)
            .map(|kibibytes| kibibytes * 1024)
            .ok_or_else(|| NodeError::Missing { path: files.path(MEMINFO), what })
    };
    Ok(MachineInfo {
        hostname: hostname(None)?,
        cpus: cpus(files)?,
        memory_bytes: bytes("MemTotal")?,
        swap_bytes: bytes("SwapTotal")?,
        root_fs_bytes: file_system_size(root_dir)?,
        machine_id: files.first_of(&["etc/machine-id", "var/lib/dbus/machine-id"]),
        system_uuid: files.first_of(&[
            "sys/class/dmi/id/product_uuid",
            "proc/device-tree/system-id",
            "proc/device-tree/vm,uuid",
            "etc/machine-id",
        ]),
        boot_id: files.first_of(&["proc/sys/kernel/random/boot_id"]),
        kernel_version: system::uname().release().to_string_lossy().into_owned(),
        os_image: os_image(files),
        architecture: go_architecture(std::env::consts::ARCH).to_owned(),
    })
}

/// A line of meminfo: `MemTotal:       16384000 kB`.
fn kibibytes(meminfo: &str, what: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn cpus(files: &Files) -> Result<u32, NodeError> {
    let missing = || NodeError::Missing { path: files.path(CPUS), what: "list of processors" };
    count_cpus(files.read(CPUS)?.trim()).filter(|cpus| *cpus > 0).ok_or_else(missing)
}

/// How many there are in a list of ranges: `0-3,8`.
fn count_cpus(list: &str) -> Option<u32> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            (last.checked_sub(first)?).checked_add(1)
        })
        .sum()
}

fn file_system_size(folder: &Path) -> Result<u64, NodeError> {
    let stat = fs::statvfs(folder)
        .map_err(|error| NodeError::Read { path: folder.to_owned(), error: error.into() })?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

fn os_image(files: &Files) -> String {
    let release = files.first_of(&["etc/os-release", "usr/lib/os-release"]);
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}

/// Go's name for an architecture of Rust's, as images and node labels have it.
fn go_architecture(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Whether the kernel enforces AppArmor profiles (`apparmor.IsEnabled` in `github.com/opencontainers/runc`).
pub fn has_apparmor() -> bool {
    enforces_apparmor(&Files::system())
}

fn enforces_apparmor(files: &Files) -> bool {
    files.path("sys/kernel/security/apparmor").exists()
        && files.read("sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Result<MachineInfo, NodeError> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        read(&Files::below(root.path()), root.path())
    }

    const MEMORY: (&str, &str) =
        (MEMINFO, "MemTotal:       16384000 kB\nMemFree:  1 kB\nSwapTotal:          2048 kB\n");

    #[test]
    fn a_machine_is_read_from_its_files() {
        let machine = machine(&[
            MEMORY,
            (CPUS, "0-3,8\n"),
            ("etc/machine-id", "0123\n"),
            ("proc/device-tree/vm,uuid", "abcd\0"),
            ("proc/sys/kernel/random/boot_id", "b00t\n"),
            ("etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
        ])
        .unwrap();
        assert_eq!((machine.cpus, machine.memory_bytes, machine.swap_bytes), (5, 16_777_216_000, 2_097_152));
        assert_eq!((machine.machine_id.as_str(), machine.system_uuid.as_str()), ("0123", "abcd"));
        assert_eq!(machine.boot_id, "b00t");
        assert_eq!(machine.os_image, "Debian GNU/Linux 12 (bookworm)");
        assert!(machine.root_fs_bytes > 0);
    }

    #[test]
    fn what_only_names_a_machine_may_be_missing() {
        let machine = machine(&[MEMORY, (CPUS, "0")]).unwrap();
        assert_eq!((machine.cpus, machine.machine_id.as_str(), machine.os_image.as_str()), (1, "", "Linux"));
    }

    #[test]
    fn what_is_needed_is_named_when_it_is_missing() {
        let error = |files: &[_]| machine(files).unwrap_err().to_string();
        assert!(error(&[(CPUS, "0")]).contains("proc/meminfo: No such file"));
        assert!(error(&[(MEMINFO, "MemTotal: x kB"), (CPUS, "0")]).ends_with("there is no MemTotal in it"));
        assert!(error(&[MEMORY, (CPUS, "none")]).ends_with("there is no list of processors in it"));
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = machine_info(Path::new("/")).unwrap();
        assert!(machine.cpus > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(!machine.boot_id.is_empty() && !machine.kernel_version.is_empty(), "{machine:?}");
        assert!(matches!(machine_info(Path::new("/nowhere")), Err(NodeError::Read { .. })));
    }

    #[test]
    fn apparmor_is_enforced_where_the_kernel_says_so() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::below(root.path());
        assert!(!enforces_apparmor(&files));
        std::fs::create_dir_all(files.path("sys/module/apparmor/parameters")).unwrap();
        std::fs::write(files.path("sys/module/apparmor/parameters/enabled"), "Y\n").unwrap();
        assert!(!enforces_apparmor(&files), "its file system is not there");
        std::fs::create_dir_all(files.path("sys/kernel/security/apparmor")).unwrap();
        assert!(enforces_apparmor(&files));
        std::fs::write(files.path("sys/module/apparmor/parameters/enabled"), "N\n").unwrap();
        assert!(!enforces_apparmor(&files));
    }

    #[test]
    fn processors_are_counted() {
        for (list, count) in [("0", 1), ("0-1", 2), ("0-3,8,10-11", 7)] {
            assert_eq!(count_cpus(list), Some(count));
        }
        for list in ["", "a", "3-1", "1-", "0--1"] {
            assert_eq!(count_cpus(list), None, "{list}");
        }
    }

    #[test]
    fn a_host_name_is_in_lower_case() {
        assert_eq!(hostname(Some(" Node-1.Example.COM\n")).unwrap(), "node-1.example.com");
        assert!(matches!(hostname(Some("  ")), Err(NodeError::NoHostname)));
        assert_eq!(hostname(None).unwrap(), hostname(None).unwrap().to_lowercase());
    }

    #[test]
    fn architectures_have_gos_names() {
        for (rust, go) in
            [("x86_64", "amd64"), ("aarch64", "arm64"), ("s390x", "s390x"), ("riscv64", "riscv64")]
        {
            assert_eq!(go_architecture(rust), go);
        }
    }
}
