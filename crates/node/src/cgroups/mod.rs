//! Control groups (upstream: `cgroup_manager_linux.go` in `pkg/kubelet/cm`, and the parts of
//! `github.com/opencontainers/cgroups` that it uses). Either every controller has a hierarchy of its own (version 1), or
//! there is one for all (version 2).

mod files;
mod huge_pages;
mod mounts;
mod processes;
mod systemd;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::cm::{CgroupDriver, CgroupName, ResourceConfig};
use coracle_core::ports::{CgroupError, CgroupManager, CgroupUsage};

use self::systemd::Systemd;
use self::v1::V1;
use self::v2::V2;
use crate::error::NodeError;

type Result<T, E = CgroupError> = std::result::Result<T, E>;

/// The control groups of this machine.
pub struct Cgroups {
    shared: Arc<Shared>,
}

struct Shared {
    hierarchy: Hierarchy,
    /// Who knows the groups as slices, if it is not this program that makes them.
    systemd: Option<Systemd>,
}

enum Hierarchy {
    V1(V1),
    V2(V2),
}

impl Cgroups {
    /// Looks for the hierarchies that are mounted. `driver` is what the container runtime uses, too.
    pub fn find(driver: CgroupDriver) -> Result<Self, NodeError> {
        let hierarchy = match mounts::unified(Path::new(mounts::ROOT)) {
            true => Hierarchy::V2(V2::new(mounts::ROOT)?),
            false => Hierarchy::V1(V1::new(mounts::read()?)?),
        };
        let systemd = (driver == CgroupDriver::Systemd).then(Systemd::new);
        Ok(Self { shared: Arc::new(Shared { hierarchy, systemd }) })
    }

    /// Runs what waits for the kernel or for systemd where waiting harms nobody.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|error| Err(CgroupError::Systemd(error.to_string())))
    }
}

#[async_trait]
impl CgroupManager for Cgroups {
    fn driver(&self) -> CgroupDriver {
        self.shared.driver()
    }

    async fn validate(&self, name: &CgroupName) -> Result<()> {
        let name = name.clone();
        self.run(move |shared| shared.validate(&name)).await
    }

    async fn create(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<()> {
        let (name, resources) = (name.clone(), resources.clone());
        self.run(move |shared| shared.create(&name, &resources)).await
    }

    async fn update(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<()> {
        let (name, resources) = (name.clone(), resources.clone());
        self.run(move |shared| shared.update(&name, &resources)).await
    }

    async fn destroy(&self, name: &CgroupName) -> Result<()> {
        let name = name.clone();
        self.run(move |shared| shared.destroy(&name)).await
    }

    async fn children(&self, name: &CgroupName) -> Result<Vec<CgroupName>> {
        let name = name.clone();
        self.run(move |shared| shared.children(&name)).await
    }

    async fn usage(&self, name: &CgroupName) -> Result<CgroupUsage> {
        let name = name.clone();
        self.run(move |shared| match &shared.hierarchy {
            Hierarchy::V1(v1) => v1.usage(&shared.path(&name)),
            Hierarchy::V2(v2) => v2.usage(&shared.path(&name)),
        })
        .await
    }

    async fn config(&self, name: &CgroupName) -> Result<ResourceConfig> {
        let name = name.clone();
        self.run(move |shared| match &shared.hierarchy {
            Hierarchy::V1(v1) => v1.config(&shared.path(&name)),
            Hierarchy::V2(v2) => v2.config(&shared.path(&name)),
        })
        .await
    }
}

impl Shared {
    fn driver(&self) -> CgroupDriver {
        if self.systemd.is_some() { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs }
    }

    /// Below the mount of a hierarchy.
    fn path(&self, name: &CgroupName) -> String {
        name.path(self.driver())
    }

    fn validate(&self, name: &CgroupName) -> Result<()> {
        let missing = match &self.hierarchy {
            Hierarchy::V1(v1) => v1.missing(&self.path(name)),
            Hierarchy::V2(v2) => v2.missing(&self.path(name)),
        };
        match missing {
            None => Ok(()),
            Some(problem) => Err(CgroupError::Invalid { name: name.clone(), problem }),
        }
    }

    fn create(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<()> {
        if let Some(systemd) = &self.systemd {
            systemd.start_slice(name, self.is_unified())?;
        }
        match &self.hierarchy {
            Hierarchy::V1(v1) => v1.create(&self.path(name))?,
            Hierarchy::V2(v2) => v2.create(&self.path(name))?,
        }
        // As upstream: the group is there, and somebody looks at its limits again.
        if let Err(error) = self.update(name, resources) {
            tracing::warn!(%name, %error, "limiting a new control group failed");
        }
        Ok(())
    }

    fn update(&self, name: &CgroupName, resources: &ResourceConfig) -> Result<()> {
        let rounded = self.systemd.as_ref().map(|_| systemd::rounded(resources));
        let resources = rounded.as_ref().unwrap_or(resources);
        if let Some(systemd) = &self.systemd {
            systemd.set_properties(name, resources, self.is_unified())?;
        }
        match &self.hierarchy {
            Hierarchy::V1(v1) => v1.update(&self.path(name), resources),
            Hierarchy::V2(v2) => v2.update(&self.path(name), resources),
        }
    }

    fn destroy(&self, name: &CgroupName) -> Result<()> {
        let folders = self.folders(name);
        if folders.iter().all(|folder| !folder.exists()) {
            return Ok(());
        }
        processes::kill_all(&folders)?;
        let stopped = self.systemd.as_ref().map_or(Ok(()), |systemd| systemd.stop_slice(name));
        for folder in &folders {
            files::remove_tree(folder)?;
        }
        stopped
    }

    fn children(&self, name: &CgroupName) -> Result<Vec<CgroupName>> {
        let mut children = Vec::new();
        for folder in self.folders(name) {
            for child in files::folders_in(&folder)? {
                let is_group = self.systemd.is_none() || child.ends_with(".slice");
                let path = format!("{}/{child}", self.path(name));
                children.extend(is_group.then(|| CgroupName::parse(&path, self.driver())));
            }
        }
        children.sort();
        children.dedup();
        Ok(children)
    }

    /// Where a group is, in each hierarchy.
    fn folders(&self, name: &CgroupName) -> Vec<PathBuf> {
        match &self.hierarchy {
            Hierarchy::V1(v1) => v1.folders(&self.path(name)),
            Hierarchy::V2(v2) => vec![v2.folder(&self.path(name))],
        }
    }

    fn is_unified(&self) -> bool {
        matches!(self.hierarchy, Hierarchy::V2(_))
    }
}
