//! Control groups of pods that run on Linux.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::cm::{
    CgroupDriver, CgroupName, ContainerManager, ContainerManagerOptions, NodeAllocatable, ResourceConfig,
};
use coracle_core::ports::{CgroupError, CgroupManager, CgroupUsage};
use coracle_provider::fake::Call;
use coracle_provider::{ArtifactKind, ContainerState, LiveResize};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{World, on, one};

/// Groups in memory, by their paths.
#[derive(Default)]
struct FakeCgroups {
    groups: Mutex<BTreeMap<String, ResourceConfig>>,
    /// What was set of which, in order.
    updates: Mutex<Vec<(String, ResourceConfig)>>,
    create_error: Mutex<Option<String>>,
}

impl FakeCgroups {
    fn paths(&self) -> Vec<String> {
        self.groups.lock().keys().cloned().collect()
    }

    fn has(&self, path: &str) -> bool {
        self.groups.lock().contains_key(path)
    }

    fn get(&self, path: &str) -> ResourceConfig {
        self.groups.lock().get(path).cloned().unwrap_or_default()
    }
}

fn path(name: &CgroupName) -> String {
    name.path(CgroupDriver::Cgroupfs)
}

#[async_trait]
impl CgroupManager for FakeCgroups {
    fn driver(&self) -> CgroupDriver {
        CgroupDriver::Cgroupfs
    }
    async fn validate(&self, name: &CgroupName) -> Result<(), CgroupError> {
        let is_there = *name == CgroupName::ROOT || self.has(&path(name));
        let missing = || CgroupError::Invalid { name: name.clone(), problem: "is missing".to_owned() };
        is_there.then_some(()).ok_or_else(missing)
    }
    async fn create(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<(), CgroupError> {
        if let Some(error) = self.create_error.lock().clone() {
            return Err(CgroupError::Systemd(error));
        }
        self.groups.lock().entry(path(name)).or_default();
        self.update(name, resources).await
    }
    async fn update(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<(), CgroupError> {
        self.validate(name).await?;
        let mut groups = self.groups.lock();
        let config = groups.entry(path(name)).or_default();
        config.memory = resources.memory.or(config.memory);
        config.cpu_shares = resources.cpu_shares.or(config.cpu_shares);
        config.cpu_quota = resources.cpu_quota.or(config.cpu_quota);
        config.cpu_period = resources.cpu_period.or(config.cpu_period);
        config.pids = resources.pids.or(config.pids);
        self.updates.lock().push((path(name), resources.clone()));
        Ok(())
    }
    async fn destroy(&self, name: &CgroupName) -> Result<(), CgroupError> {
        self.groups.lock().remove(&path(name));
        Ok(())
    }
    async fn children(&self, name: &CgroupName) -> Result<Vec<CgroupName>, CgroupError> {
        let names = self.paths().into_iter().map(|path| CgroupName::parse(&path, CgroupDriver::Cgroupfs));
        Ok(names.filter(|child| child.parent().as_ref() == Some(name)).collect())
    }
    async fn usage(&self, _name: &CgroupName) -> Result<CgroupUsage, CgroupError> {
        Ok(CgroupUsage { processes: 1, ..CgroupUsage::default() })
    }
    async fn config(&self, name: &CgroupName) -> Result<ResourceConfig, CgroupError> {
        Ok(self.get(&path(name)))
    }
}

/// A world whose first provider runs Linux containers, and groups for their pods.
async fn linux_world() -> (World, Arc<FakeCgroups>) {
    let groups = Arc::new(FakeCgroups::default());
    let mut world = World::without_agent();
    world.fast.set_runs(ArtifactKind::RootFs);
    world.fast.set_live_resize(LiveResize { cpu: true, memory: true });
    let manager = ContainerManager::new(groups.clone(), options());
    manager.start().await.unwrap();
    world.container_manager = Some(Arc::new(manager));
    world.start_agent();
    (world, groups)
}

fn options() -> ContainerManagerOptions {
    ContainerManagerOptions {
        cgroup_root: CgroupName::ROOT,
        cgroups_per_qos: true,
        pod_pids_limit: Some(50),
        enforce_cpu_limits: true,
        cpu_quota_period: 100_000,
        node_allocatable: NodeAllocatable::default(),
    }
}

fn burstable(cpu: &str) -> Value {
    let mut spec = one("Always", "app");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    spec
}

fn guaranteed(cpu: &str, memory: &str) -> Value {
    let mut spec = one("Always", "app");
    let list = json!({"cpu": cpu, "memory": memory});
    spec["containers"][0]["resources"] = json!({"requests": list, "limits": list});
    spec["containers"][0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    spec
}

/// Creates a pod of a class; the apiserver says which.
fn create(world: &World, uid: &str, class: &str, spec: Value) {
    world.create(uid, spec);
    world.change(uid, |pod| pod.status.as_mut().unwrap().qos_class = Some(class.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_a_group_of_its_class_from_start_to_end() {
    let (world, groups) = linux_world().await;
    assert_eq!(groups.paths(), ["/kubepods", "/kubepods/besteffort", "/kubepods/burstable"]);
    create(&world, "a", "BestEffort", one("Always", "app"));
    create(&world, "b", "Burstable", burstable("500m"));
    create(&world, "c", "Guaranteed", guaranteed("1", "1Gi"));
    world.until("running", |w| ["a", "b", "c"].iter().all(|uid| w.phase(uid) == "Running")).await;
    let (a, b, c) = (
        groups.get("/kubepods/besteffort/poda"),
        groups.get("/kubepods/burstable/podb"),
        groups.get("/kubepods/podc"),
    );
    assert_eq!((a.cpu_shares, a.memory, a.pids), (Some(2), None, Some(50)));
    assert_eq!((b.cpu_shares, b.cpu_quota), (Some(512), None));
    assert_eq!((c.cpu_shares, c.cpu_quota, c.memory), (Some(1024), Some(100_000), Some(1 << 30)));
    // Burstable pods together weigh what they ask for.
    assert_eq!(groups.get("/kubepods/burstable").cpu_shares, Some(512));
    assert_eq!(world.fast.cgroup_parent("a").as_deref(), Some("/kubepods/besteffort/poda"));

    for uid in ["a", "b", "c"] {
        world.delete(uid, 1);
    }
    world.until("gone", |w| ["a", "b", "c"].iter().all(|uid| w.phase(uid) == "gone")).await;
    assert_eq!(groups.paths(), ["/kubepods", "/kubepods/besteffort", "/kubepods/burstable"]);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(groups.get("/kubepods/burstable").cpu_shares, Some(2), "nobody asks for anything any more");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_webassembly_has_none() {
    let (world, groups) = linux_world().await;
    world.create("w", on("slow", one("Always", "app")));
    world.until("running", |w| w.phase("w") == "Running").await;
    assert!(!groups.paths().iter().any(|path| path.contains("podw")), "{:?}", groups.paths());
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_pod_starts_before_its_group_is_there() {
    let (world, groups) = linux_world().await;
    *groups.create_error.lock() = Some("no".to_owned());
    world.create("a", one("Always", "app"));
    world.until("told", |w| w.api.reasons().iter().any(|r| r == "FailedToCreatePodContainer")).await;
    assert_eq!(world.fast.calls(Call::RunSandbox), 0);
    *groups.create_error.lock() = None;
    world.until("running", |w| w.phase("a") == "Running").await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_without_a_group_comes_back_in_one() {
    let mut world = World::without_agent();
    world.fast.set_runs(ArtifactKind::RootFs);
    world.start_agent();
    world.create("a", one("Always", "app"));
    world.until("running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    let groups = Arc::new(FakeCgroups::default());
    let manager = ContainerManager::new(groups.clone(), options());
    manager.start().await.unwrap();
    world.container_manager = Some(Arc::new(manager));
    world.start_agent();
    world.until("started again", |w| w.restarts("a") == 1).await;
    assert!(groups.has("/kubepods/besteffort/poda"));
}

#[tokio::test(start_paused = true)]
async fn groups_of_pods_that_nobody_knows_go() {
    let (mut world, groups) = linux_world().await;
    create(&world, "a", "BestEffort", one("Always", "app"));
    world.until("running", |w| w.phase("a") == "Running").await;
    world.kill_agent();
    let orphan = CgroupName::parse("/kubepods/burstable/podgone", CgroupDriver::Cgroupfs);
    let other = CgroupName::parse("/kubepods/burstable/other", CgroupDriver::Cgroupfs);
    groups.create(&orphan, &ResourceConfig::default()).await.unwrap();
    groups.create(&other, &ResourceConfig::default()).await.unwrap();
    world.start_agent();
    world.until("removed", |_| !groups.has("/kubepods/burstable/podgone")).await;
    sleep(Duration::from_secs(120)).await;
    assert!(groups.has("/kubepods/besteffort/poda"), "it is wanted");
    assert!(groups.has("/kubepods/burstable/other"), "it is no pod's");
}

#[tokio::test(start_paused = true)]
async fn a_group_grows_before_containers_and_shrinks_after_them() {
    let (world, groups) = linux_world().await;
    create(&world, "a", "Guaranteed", guaranteed("1", "1Gi"));
    world.until("running", |w| w.phase("a") == "Running").await;
    let resize = |cpu: &str, memory: &str| {
        let list = json!({"cpu": cpu, "memory": memory});
        let resources = serde_json::from_value(json!({"requests": list, "limits": list})).unwrap();
        world.update("a", |spec| spec.containers[0].resources = Some(resources));
    };
    let of_pod = |groups: &FakeCgroups| groups.get("/kubepods/poda");
    // While the container cannot be told, the group has grown already.
    world.fast.set_error(Call::UpdateContainerResources, Some(coracle_provider::Error::unimplemented("x")));
    resize("2", "2Gi");
    world.until("grown", |_| of_pod(&groups).memory == Some(2 << 30)).await;
    assert_eq!(world.fast.containers()[0].resources.memory_limit_bytes, Some(1 << 30));
    world.fast.set_error(Call::UpdateContainerResources, None);
    world.until("resized", |_| of_pod(&groups).cpu_quota == Some(200_000)).await;
    world.until("told", |w| w.fast.containers()[0].resources.cpu_limit_millis == Some(2000)).await;

    world.fast.set_error(Call::UpdateContainerResources, Some(coracle_provider::Error::unimplemented("x")));
    resize("1", "1Gi");
    world.until("refused", |w| w.api.reasons().iter().any(|r| r == "ResizeError")).await;
    assert_eq!(of_pod(&groups).memory, Some(2 << 30), "its container has that much");
    world.fast.set_error(Call::UpdateContainerResources, None);
    world.until("shrunk", |_| of_pod(&groups).memory == Some(1 << 30)).await;
    world.until("all of it", |_| of_pod(&groups).cpu_shares == Some(1024)).await;
    let running = world.fast.containers().into_iter().filter(|c| c.state == ContainerState::Running);
    assert_eq!(running.map(|c| c.attempt).collect::<Vec<_>>(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_uid_that_no_group_can_be_called_by_is_refused() {
    let (world, groups) = linux_world().await;
    world.create("../x_y", one("Always", "app"));
    world.until("told", |w| w.api.reasons().iter().any(|r| r == "FailedToCreatePodContainer")).await;
    assert_eq!(groups.paths().len(), 3);
    world.delete("../x_y", 1);
    world.until("gone", |w| w.phase("../x_y") == "gone").await;
}
