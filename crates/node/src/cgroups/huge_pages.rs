//! Limits of huge pages (upstream: `maybeSetHugetlb`). A group that nobody gave any has none.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Result, files};

const SIZES: &str = "/sys/kernel/mm/hugepages";

/// Limits every size that the kernel has. `suffix` is how the file of a size ends: `limit_in_bytes`, `max`.
pub(super) fn limit(folder: &Path, limits: &BTreeMap<i64, i64>, suffix: &str) -> Result<()> {
    for size in sizes(Path::new(SIZES))? {
        let (name, limit) = (unit_size(size), limits.get(&size).copied().unwrap_or_default());
        files::write(folder, &format!("hugetlb.{name}.{suffix}"), limit)?;
        let reserved = format!("hugetlb.{name}.rsvd.{suffix}");
        // Older kernels do not limit what is reserved.
        if folder.join(&reserved).exists() {
            files::write(folder, &reserved, limit)?;
        }
    }
    Ok(())
}

/// The sizes that the kernel has, in bytes, from the names of folders: `hugepages-2048kB`.
fn sizes(folder: &Path) -> Result<Vec<i64>> {
    let names = files::folders_in(folder)?;
    let size = |name: &String| {
        name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok()?.checked_mul(1024)
    };
    Ok(names.iter().filter_map(size).collect())
}

/// `2MB`, as the names of files have it (`HugePageUnitSizeFromByteSize`).
fn unit_size(bytes: i64) -> String {
    let (mut size, mut units) = (bytes, ["B", "KB", "MB", "GB", "TB", "PB"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    while size >= 1024
        && let Some(next) = units.next()
    {
        (size, unit) = (size / 1024, next);
    }
    format!("{size}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_kernels_names() {
        for (bytes, name) in [(64 << 10, "64KB"), (2 << 20, "2MB"), (1 << 30, "1GB")] {
            assert_eq!(unit_size(bytes), name);
        }
        let root = tempfile::tempdir().unwrap();
        for name in ["hugepages-2048kB", "hugepages-1048576kB", "other"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut found = sizes(root.path()).unwrap();
        found.sort_unstable();
        assert_eq!(found, [2 << 20, 1 << 30]);
        assert!(sizes(&root.path().join("nothing")).unwrap().is_empty());
    }
}
