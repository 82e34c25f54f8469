//! Groups as systemd's slices (upstream: `systemd` in `github.com/opencontainers/cgroups`). systemd owns the tree then: it
//! has to know of every group and its limits, or it sets them back.
//!
//! It is asked through its own client, `busctl`; a pod needs a handful of calls in its life.

use std::path::PathBuf;
use std::process::Command;

use coracle_core::cm::{CgroupName, ResourceConfig};
use coracle_core::ports::CgroupError;

use super::Result;
use super::v2::shares_to_weight;

const CLIENT: &str = "busctl";
const SERVICE: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
const DEFAULT_PERIOD: i64 = 100_000;
/// A percent of a processor, in microseconds a second: systemd knows no less.
const PERCENT: i64 = 10_000;
const UNLIMITED: u64 = u64::MAX;

pub(super) struct Systemd {
    client: PathBuf,
}

/// A property of a unit: name, type, and the value's words.
type Property = (&'static str, &'static str, Vec<String>);

impl Systemd {
    pub(super) fn new() -> Self {
        Self { client: CLIENT.into() }
    }

    #[cfg(test)]
    pub(super) fn with_client(client: PathBuf) -> Self {
        Self { client }
    }

    /// Makes a slice; one that is there is fine. It counts what its processes use, as a group made by hand does.
    pub(super) fn start_slice(&self, name: &CgroupName, is_unified: bool) -> Result<()> {
        let parent = name.parent().unwrap_or(CgroupName::ROOT).unit();
        let io_accounting = if is_unified { "IOAccounting" } else { "BlockIOAccounting" };
        let flag = |name, value: bool| (name, "b", vec![value.to_string()]);
        let properties = [
            ("Description", "s", vec![format!("control group of pods {}", name.unit())]),
            ("Wants", "as", vec!["1".to_owned(), parent]),
            flag("MemoryAccounting", true),
            flag("CPUAccounting", true),
            flag(io_accounting, true),
            flag("TasksAccounting", true),
            flag("DefaultDependencies", false),
        ];
        let unit = name.unit();
        let mut words = vec![unit, "replace".to_owned()];
        words.extend(property_words(&properties));
        words.push("0".to_owned());
        match self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &words) {
            Err(CgroupError::Systemd(error)) if is_known(&error) => Ok(()),
            other => other,
        }
    }

    /// Tells the limits of a slice, until the machine is restarted.
    pub(super) fn set_properties(
        &self,
        name: &CgroupName,
        resources: &ResourceConfig,
        is_unified: bool,
    ) -> Result<()> {
        let properties = properties(resources, is_unified);
        if properties.is_empty() {
            return Ok(());
        }
        let mut words = vec![name.unit(), "true".to_owned()];
        words.extend(property_words(&properties));
        self.call("SetUnitProperties", "sba(sv)", &words)
    }

    /// Stops a slice; one that is not there is stopped.
    pub(super) fn stop_slice(&self, name: &CgroupName) -> Result<()> {
        match self.call("StopUnit", "ss", &[name.unit(), "replace".to_owned()]) {
            Err(CgroupError::Systemd(error)) if error.contains("not loaded") => Ok(()),
            other => other,
        }
    }

    fn call(&self, method: &str, signature: &str, words: &[String]) -> Result<()> {
        let mut command = Command::new(&self.client);
        command.args(["--system", "--quiet", "--timeout=30", "call"]).args(SERVICE);
        let output = command.args([method, signature, "--"]).args(words).output().map_err(|error| {
            CgroupError::Systemd(format!("cannot run {}: {error}", self.client.display()))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(CgroupError::Systemd(format!("{method} {}: {}", words.first().map_or("", |w| w), error.trim())))
    }
}

/// A quota of whole percents, rounded up: containers ask for what they were promised (`addCPUQuota`).
pub(super) fn rounded(resources: &ResourceConfig) -> ResourceConfig {
    let period = resources.cpu_period.filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD);
    let round = |quota: i64| match quota {
        quota if quota > 0 => percents(quota, period) * PERCENT * period / 1_000_000,
        other => other,
    };
    ResourceConfig { cpu_quota: resources.cpu_quota.map(round), ..resources.clone() }
}

fn percents(quota: i64, period: i64) -> i64 {
    (quota.saturating_mul(1_000_000) / period + PERCENT - 1) / PERCENT
}

fn properties(resources: &ResourceConfig, is_unified: bool) -> Vec<Property> {
    let number = |name, value: u64| (name, "t", vec![value.to_string()]);
    let limit = |value: i64| u64::try_from(value).unwrap_or(UNLIMITED);
    let mut properties = Vec::new();
    if let Some(memory) = resources.memory.filter(|memory| *memory != 0) {
        properties.push(number(if is_unified { "MemoryMax" } else { "MemoryLimit" }, limit(memory)));
    }
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares > 0) {
        properties.push(match is_unified {
            true => number("CPUWeight", limit(shares_to_weight(shares))),
            false => number("CPUShares", limit(shares)),
        });
    }
    let period = resources.cpu_period.filter(|period| *period > 0);
    if let Some(period) = period.filter(|period| *period != DEFAULT_PERIOD) {
        properties.push(number("CPUQuotaPeriodUSec", limit(period)));
    }
    let quota = resources.cpu_quota.filter(|quota| *quota != 0);
    if quota.is_some() || period.is_some() {
        let period = period.unwrap_or(DEFAULT_PERIOD);
        let a_second = quota.filter(|quota| *quota > 0).map(|quota| percents(quota, period) * PERCENT);
        properties.push(number("CPUQuotaPerSecUSec", a_second.map_or(UNLIMITED, limit)));
    }
    if let Some(pids) = resources.pids {
        properties.push(number("TasksMax", if pids == 0 { 1 } else { limit(pids) }));
    }
    properties
}

/// How many, and each as `busctl` reads it.
fn property_words(properties: &[Property]) -> Vec<String> {
    let words = properties.iter().flat_map(|(name, kind, value)| {
        [(*name).to_owned(), (*kind).to_owned()].into_iter().chain(value.iter().cloned())
    });
    std::iter::once(properties.len().to_string()).chain(words).collect()
}

/// `org.freedesktop.systemd1.UnitExists`, as the client writes it.
fn is_known(error: &str) -> bool {
    error.contains("already loaded") || error.contains("already exists") || error.contains("UnitExists")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use coracle_core::cm::CgroupDriver;

    use super::*;

    fn name() -> CgroupName {
        CgroupName::parse("/kubepods/burstable/pod12-34", CgroupDriver::Cgroupfs)
    }

    /// A client that writes down what it is asked, and ends as it is told.
    fn client(folder: &std::path::Path, ends: &str) -> Systemd {
        let client = folder.join("busctl");
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\n{ends}\n", folder.join("asked").display());
        fs::write(&client, script).unwrap();
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        Systemd::with_client(client)
    }

    #[test]
    fn a_slice_is_made_limited_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let systemd = client(folder.path(), "exit 0");
        systemd.start_slice(&name(), true).unwrap();
        let limits = ResourceConfig { memory: Some(1 << 20), pids: Some(-1), ..ResourceConfig::default() };
        systemd.set_properties(&name(), &limits, true).unwrap();
        systemd.set_properties(&name(), &ResourceConfig::default(), true).unwrap();
        systemd.stop_slice(&name()).unwrap();
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        let calls: Vec<&str> = asked.lines().map(|line| line.split_once("Manager ").unwrap().1).collect();
        assert_eq!(
            calls,
            [
                "StartTransientUnit ssa(sv)a(sa(sv)) -- kubepods-burstable-pod12_34.slice replace 7 Description s \
                 control group of pods kubepods-burstable-pod12_34.slice Wants as 1 kubepods-burstable.slice \
                 MemoryAccounting b true CPUAccounting b true IOAccounting b true TasksAccounting b true \
                 DefaultDependencies b false 0",
                "SetUnitProperties sba(sv) -- kubepods-burstable-pod12_34.slice true 2 MemoryMax t 1048576 TasksMax t \
                 18446744073709551615",
                "StopUnit ss -- kubepods-burstable-pod12_34.slice replace",
            ]
        );
    }

    #[test]
    fn what_is_there_or_gone_already_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let there = "echo 'Call failed: Unit x.slice was already loaded or has a fragment file.' >&2; exit 1";
        client(folder.path(), there).start_slice(&name(), false).unwrap();
        client(folder.path(), "echo 'Call failed: Unit x.slice not loaded.' >&2; exit 1")
            .stop_slice(&name())
            .unwrap();
        let refused = client(folder.path(), "echo 'Call failed: Access denied' >&2; exit 1");
        let error = refused.start_slice(&name(), false).unwrap_err().to_string();
        assert_eq!(
            error,
            "systemd: StartTransientUnit kubepods-burstable-pod12_34.slice: Call failed: Access denied"
        );
        let absent = Systemd::with_client(folder.path().join("nothing"));
        assert!(absent.stop_slice(&name()).unwrap_err().to_string().contains("cannot run"));
    }

    #[test]
    fn limits_are_properties_of_their_version() {
        let limits = ResourceConfig {
            memory: Some(5),
            cpu_shares: Some(1024),
            cpu_quota: Some(10_001),
            cpu_period: Some(100_000),
            pids: Some(0),
            huge_pages: None,
        };
        let text = |is_unified| {
            let list = properties(&limits, is_unified).into_iter();
            list.map(|(name, _, value)| format!("{name}={}", value.join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(
            text(false),
            ["MemoryLimit=5", "CPUShares=1024", "CPUQuotaPerSecUSec=110000", "TasksMax=1"]
        );
        assert_eq!(text(true), ["MemoryMax=5", "CPUWeight=39", "CPUQuotaPerSecUSec=110000", "TasksMax=1"]);
        assert_eq!(rounded(&limits).cpu_quota, Some(11_000));
        let unlimited = ResourceConfig { cpu_quota: Some(-1), ..ResourceConfig::default() };
        assert_eq!(rounded(&unlimited), unlimited);
        assert_eq!(properties(&unlimited, true)[0].2, [u64::MAX.to_string()]);
    }
}
