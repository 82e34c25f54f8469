//! Where hierarchies are mounted (upstream: `GetCgroupSubsystems` in `helpers_linux.go`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::error::NodeError;
use crate::files::Files;

/// Where control groups are by convention.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

const MOUNTS: &str = "proc/self/mountinfo";
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Controllers of version 1 by name, and where their hierarchies are mounted.
pub(super) type Mounts = BTreeMap<String, PathBuf>;

/// Whether a folder is the one hierarchy of version 2.
pub(super) fn unified(root: &Path) -> bool {
    #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
    statfs(root).is_ok_and(|stat| i64::from(stat.f_type) == CGROUP2_MAGIC)
}

/// The hierarchies of version 1 that this process sees.
pub(super) fn read() -> Result<Mounts, NodeError> {
    Files::system().read(MOUNTS).map(|text| parse(&text))
}

/// Of a controller that is mounted twice, the mount with the shortest path counts.
fn parse(mountinfo: &str) -> Mounts {
    let mut mounts = Mounts::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let mut kind = kind.split(' ');
        let (Some("cgroup"), Some(_source), Some(options)) = (kind.next(), kind.next(), kind.next()) else {
            continue;
        };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        // A hierarchy without a controller has a name: `name=systemd`.
        let controllers =
            options.split(',').filter(|option| !["rw", "ro", "xattr", "clone_children"].contains(option));
        for controller in controllers.filter(|option| !option.starts_with("release_agent=")) {
            let controller = controller.strip_prefix("name=").unwrap_or(controller);
            let known = mounts.entry(controller.to_owned()).or_insert_with(|| point.into());
            if point.len() < known.as_os_str().len() {
                *known = point.into();
            }
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_by_their_shortest_path() {
        let text = "24 21 0:21 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            25 24 0:22 / /var/lib/other/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            26 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            27 24 0:23 / /x rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            28 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd\n\
            29 24 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nnonsense\n";
        let mounts = parse(text);
        let expected = [("cpu", "/x"), ("cpuacct", "/x"), ("systemd", "/sys/fs/cgroup/systemd")];
        assert_eq!(mounts, expected.map(|(name, path)| (name.to_owned(), path.into())).into());
    }
}
