//! Groups of this machine, below one of the test's own, and a tree of files where the kernel has no version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use coracle_core::cm::{CgroupDriver, CgroupName, ResourceConfig};
use coracle_core::ports::CgroupUsage;

use super::mounts::{self, Mounts};
use super::v1::V1;
use super::v2::V2;
use super::{Hierarchy, Shared};

fn shared(hierarchy: Hierarchy) -> Shared {
    Shared { hierarchy, systemd: None }
}

fn limits() -> ResourceConfig {
    ResourceConfig {
        memory: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(20_000),
        cpu_period: Some(50_000),
        pids: Some(100),
        huge_pages: None,
    }
}

/// What `config` answers of it.
fn readable(config: &ResourceConfig) -> ResourceConfig {
    ResourceConfig { pids: None, huge_pages: None, ..config.clone() }
}

/// A group of the test's own, if this machine lets it have one; removed when this is dropped.
struct Own {
    shared: Arc<Shared>,
    root: CgroupName,
}

impl Own {
    fn v1(test: &str) -> Option<Self> {
        let mounts = mounts::read().unwrap();
        let may_write = |mount: &PathBuf| rustix::fs::access(mount, rustix::fs::Access::WRITE_OK).is_ok();
        if !rustix::process::geteuid().is_root()
            || !["cpu", "memory", "pids"].iter().all(|name| mounts.get(*name).is_some_and(may_write))
        {
            eprintln!("SKIPPED: control groups of version 1 can only be made by root where they are mounted");
            return None;
        }
        let name = format!("coracle-test-{test}-{}", std::process::id());
        let shared = Arc::new(shared(Hierarchy::V1(V1::new(mounts).unwrap())));
        Some(Self { shared, root: CgroupName::ROOT.child(&name) })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shared.destroy(&self.root).unwrap();
    }
}

/// A process that waits, in a group.
fn sleeper(folder: &Path) -> Child {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
    child
}

#[test]
fn a_group_is_made_limited_changed_and_read() {
    let Some(own) = Own::v1("limits") else { return };
    let (shared, name) = (&own.shared, own.root.child("burstable").child("pod1-2"));
    assert!(shared.validate(&name).unwrap_err().to_string().contains("missing paths"));
    shared.create(&name, &limits()).unwrap();
    shared.validate(&name).unwrap();
    let config = |name: &CgroupName| match &shared.hierarchy {
        Hierarchy::V1(v1) => v1.config(&shared.path(name)).unwrap(),
        Hierarchy::V2(_) => unreachable!("it was made as version 1"),
    };
    assert_eq!(config(&name), readable(&limits()));
    let pids =
        mounts::read().unwrap()["pids"].join(shared.path(&name).trim_start_matches('/')).join("pids.max");
    assert_eq!(fs::read_to_string(pids).unwrap().trim(), "100");

    // A group that is there keeps what nobody mentions.
    let more = ResourceConfig { memory: Some(128 << 20), ..ResourceConfig::default() };
    shared.create(&name, &more).unwrap();
    assert_eq!(config(&name), ResourceConfig { memory: Some(128 << 20), ..readable(&limits()) });
    // A period that the old quota does not fit goes with the new one.
    let shorter =
        ResourceConfig { cpu_quota: Some(1000), cpu_period: Some(1000), ..ResourceConfig::default() };
    shared.update(&name, &shorter).unwrap();
    assert_eq!((config(&name).cpu_quota, config(&name).cpu_period), (Some(1000), Some(1000)));
    assert_eq!(shared.children(&own.root.child("burstable")).unwrap(), std::slice::from_ref(&name));
    assert!(shared.children(&own.root.child("nothing")).unwrap().is_empty());
}

#[test]
fn what_still_runs_in_a_group_ends_with_it() {
    let Some(own) = Own::v1("kill") else { return };
    let (shared, pod) = (&own.shared, own.root.child("pod1"));
    let container = pod.child("container");
    shared.create(&container, &ResourceConfig::default()).unwrap();
    // A level deeper, and not in every hierarchy: it is found all the same.
    let memory = mounts::read().unwrap()["memory"].join(shared.path(&container).trim_start_matches('/'));
    let mut child = sleeper(&memory);
    let pids = mounts::read().unwrap()["pids"].join(shared.path(&container).trim_start_matches('/'));
    fs::write(pids.join("cgroup.procs"), child.id().to_string()).unwrap();
    let limit = ResourceConfig { memory: Some(64 << 20), ..ResourceConfig::default() };
    shared.update(&pod, &limit).unwrap();
    let Hierarchy::V1(v1) = &shared.hierarchy else { unreachable!("it was made as version 1") };
    let usage = v1.usage(&shared.path(&pod)).unwrap();
    assert_eq!((usage.processes, usage.memory_limit_bytes), (1, Some(64 << 20)), "those below count");
    assert_eq!(v1.usage(&shared.path(&container)).unwrap().memory_limit_bytes, None);
    let reaped = std::thread::spawn(move || child.wait().unwrap());
    shared.destroy(&pod).unwrap();
    assert!(!reaped.join().unwrap().success());
    assert!(shared.folders(&pod).iter().all(|folder| !folder.exists()));
    shared.destroy(&pod).unwrap();
}

#[test]
fn a_limit_below_what_is_used_names_both() {
    let Some(own) = Own::v1("busy") else { return };
    let (shared, name) = (&own.shared, own.root.child("pod1"));
    shared.create(&name, &ResourceConfig::default()).unwrap();
    let memory = mounts::read().unwrap()["memory"].join(shared.path(&name).trim_start_matches('/'));
    if rustix::system::sysinfo().totalswap > 0 {
        return eprintln!("SKIPPED: with swap, the kernel takes any memory back");
    }
    // A file in memory is charged to who wrote it, and cannot be given back.
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let script = format!(
        "echo $$ > {}/cgroup.procs && head -c 4194304 /dev/zero > {}",
        memory.display(),
        file.path().display()
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let tiny = ResourceConfig { memory: Some(1 << 20), ..ResourceConfig::default() };
    let error = shared.update(&name, &tiny).unwrap_err().to_string();
    assert!(error.contains("unable to set memory limit to 1048576 (current usage: "), "{error}");
}

/// A tree as the kernel would show it: groups that are there, with the files of all controllers.
fn tree(groups: &[&str]) -> (tempfile::TempDir, Shared) {
    let root = tempfile::tempdir().unwrap();
    for group in [""].iter().chain(groups) {
        let folder = root.path().join(group);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        for file in
            ["cgroup.subtree_control", "memory.max", "cpu.weight", "cpu.max", "pids.max", "cgroup.procs"]
        {
            fs::write(folder.join(file), "").unwrap();
        }
    }
    let v2 = V2::new(root.path()).unwrap();
    (root, shared(Hierarchy::V2(v2)))
}

fn name(path: &str) -> CgroupName {
    CgroupName::parse(path, CgroupDriver::Cgroupfs)
}

#[test]
fn version_2_has_one_folder_and_other_files() {
    let (root, shared) = tree(&["kubepods", "kubepods/pod1"]);
    let pod = name("/kubepods/pod1");
    shared.validate(&pod).unwrap();
    shared.create(&pod, &limits()).unwrap();
    let read = |file: &str| fs::read_to_string(root.path().join("kubepods/pod1").join(file)).unwrap();
    assert_eq!(
        ["memory.max", "cpu.weight", "cpu.max", "pids.max"].map(read),
        ["67108864", "20", "20000 50000", "100"].map(str::to_owned)
    );
    let handed_on = fs::read_to_string(root.path().join("kubepods/cgroup.subtree_control")).unwrap();
    assert_eq!(handed_on, "+pids", "each controller is a write of its own, and this is the last one");
    let Hierarchy::V2(v2) = &shared.hierarchy else { unreachable!("it was made as version 2") };
    let found = v2.config("/kubepods/pod1").unwrap();
    // Weights are coarser than shares (`CPUSharesEqualAfterV2RoundTrip`).
    assert_eq!(found, ResourceConfig { cpu_shares: Some(500), ..readable(&limits()) });

    let unlimited =
        ResourceConfig { memory: Some(-1), cpu_quota: Some(-1), pids: Some(-1), ..ResourceConfig::default() };
    shared.update(&pod, &unlimited).unwrap();
    assert_eq!(
        ["memory.max", "cpu.max", "pids.max"].map(read),
        ["max", "max 100000", "max"].map(str::to_owned)
    );
    let found = v2.config("/kubepods/pod1").unwrap();
    assert_eq!((found.memory, found.cpu_quota), (Some(i64::MAX), Some(-1)));

    for (file, text) in
        [("memory.current", "5000"), ("memory.stat", "anon 1\ninactive_file 2000\n"), ("pids.current", "3")]
    {
        fs::write(root.path().join("kubepods/pod1").join(file), text).unwrap();
    }
    let expected = CgroupUsage { working_set_bytes: 3000, memory_limit_bytes: None, processes: 3 };
    assert_eq!(v2.usage("/kubepods/pod1").unwrap(), expected);
}

#[test]
fn a_group_of_version_2_without_its_controllers_is_none() {
    let (root, shared) = tree(&["kubepods"]);
    assert!(shared.validate(&name("/kubepods/pod1")).unwrap_err().to_string().contains("No such file"));
    fs::write(root.path().join("kubepods/cgroup.controllers"), "cpu memory").unwrap();
    let error = shared.validate(&name("/kubepods")).unwrap_err().to_string();
    assert!(error.ends_with("has some missing controllers: cpuset, pids"), "{error}");
    fs::write(root.path().join("cgroup.controllers"), "cpu").unwrap();
    assert!(V2::new(root.path()).is_err_and(|error| error.to_string().contains("memory")));
    assert!(V1::new(Mounts::new()).is_err());
}
