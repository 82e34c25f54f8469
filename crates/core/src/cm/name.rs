//! What control groups are called (upstream: `CgroupName` in `cgroup_manager_linux.go`).

use std::fmt;

const SLICE: &str = ".slice";

/// Who makes control groups; the container runtime has to use the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// This program, as folders.
    #[default]
    Cgroupfs,
    /// systemd, as slices.
    Systemd,
}

/// A control group by the names on the way to it, the same for both drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupName(Vec<String>);

impl CgroupName {
    /// The one above all.
    pub const ROOT: Self = Self(Vec::new());

    /// Whether a text can be part of a name (`NewCgroupName`): systemd's names have underscores in place of dashes.
    pub fn is_component(text: &str) -> bool {
        !text.is_empty() && !text.contains(['/', '_', '\0'])
    }

    /// One below this.
    pub fn child(&self, component: &str) -> Self {
        Self(self.0.iter().cloned().chain([component.to_owned()]).collect())
    }

    /// The last component; none of the root.
    pub fn base(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    /// The group above; none above the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        Some(Self(parents.to_vec()))
    }

    /// The path below the mount of a hierarchy, beginning with a slash.
    pub fn path(&self, driver: CgroupDriver) -> String {
        match driver {
            CgroupDriver::Cgroupfs => format!("/{}", self.0.join("/")),
            CgroupDriver::Systemd => self.slices(),
        }
    }

    /// The name of systemd's unit for it.
    pub fn unit(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(|part| part.replace('-', "_")).collect();
        if parts.is_empty() { "-.slice".to_owned() } else { parts.join("-") + SLICE }
    }

    /// What a path below the mount of a hierarchy stands for (`ParseCgroupfsToCgroupName`,
    /// `ParseSystemdToCgroupName`).
    pub fn parse(path: &str, driver: CgroupDriver) -> Self {
        match driver {
            CgroupDriver::Cgroupfs => {
                Self(path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            CgroupDriver::Systemd => {
                let base = path.rsplit('/').next().unwrap_or_default();
                let base = base.strip_suffix(SLICE).unwrap_or(base);
                Self(
                    base.split('-')
                        .filter(|part| !part.is_empty())
                        .map(|part| part.replace('_', "-"))
                        .collect(),
                )
            }
        }
    }

    /// `test-a-b.slice` is in `test-a.slice`, and that in `test.slice` (`ExpandSlice`).
    fn slices(&self) -> String {
        if self.0.is_empty() {
            return "/".to_owned();
        }
        let units = (1..=self.0.len()).map(|end| format!("/{}", Self(self.0[..end].to_vec()).unit()));
        units.collect()
    }
}

impl fmt::Display for CgroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(parts: &[&str]) -> CgroupName {
        parts.iter().fold(CgroupName::ROOT, |name, part| name.child(part))
    }

    /// `TestCgroupNameToSystemd`, `TestCgroupNameToCgroupfs`, and back.
    #[test]
    fn names_are_those_of_upstream() {
        let table: [(&[&str], &str, &str); 7] = [
            (&[], "/", "/"),
            (&["test"], "/test", "/test.slice"),
            (&["system", "slice"], "/system/slice", "/system.slice/system-slice.slice"),
            (&["besteffort"], "/besteffort", "/besteffort.slice"),
            (&["Burstable", "pod-123"], "/Burstable/pod-123", "/Burstable.slice/Burstable-pod_123.slice"),
            (&["test", "a", "b"], "/test/a/b", "/test.slice/test-a.slice/test-a-b.slice"),
            (
                &["kubepods", "burstable", "pod1234-abcd-5678-efgh"],
                "/kubepods/burstable/pod1234-abcd-5678-efgh",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234_abcd_5678_efgh.slice",
            ),
        ];
        for (parts, cgroupfs, systemd) in table {
            let name = name(parts);
            assert_eq!(name.path(CgroupDriver::Cgroupfs), cgroupfs);
            assert_eq!(name.path(CgroupDriver::Systemd), systemd);
            assert_eq!(CgroupName::parse(cgroupfs, CgroupDriver::Cgroupfs), name);
            assert_eq!(CgroupName::parse(systemd, CgroupDriver::Systemd), name);
        }
    }

    #[test]
    fn a_unit_is_the_last_part_of_the_path() {
        assert_eq!(name(&["kubepods", "pod-1"]).unit(), "kubepods-pod_1.slice");
        assert_eq!(CgroupName::ROOT.unit(), "-.slice");
        assert_eq!(name(&["a", "b"]).parent(), Some(name(&["a"])));
        assert_eq!(CgroupName::ROOT.parent(), None);
    }
}
