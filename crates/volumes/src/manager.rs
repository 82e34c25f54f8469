//! The volumes of all pods (`pkg/kubelet/volumemanager`).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_core::fieldpath::ResourceList;
use coracle_core::pod::PodExt;
use coracle_core::ports::{ObjectReader, TokenIssuer, VolumeError, VolumeUsage, Volumes};
use coracle_provider::{DiskStats, EnvVar, Mount};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use parking_lot::Mutex;

use crate::adoption::tokens_on_disk;
use crate::container_mounts::{Base, MountPlan};
use crate::disk_usage::disk_usage;
use crate::empty_dir::EmptyDir;
use crate::error::{combine, in_volume, io_error, set_up_failed};
use crate::layout::{Layout, check_uid};
use crate::payload::make_payload;
use crate::pod::{Owner, containers, used_volumes};
use crate::privileges::Privileges;
use crate::remove::remove_tree;
use crate::setup::{Job, Mounted, PayloadSetup, Setup, set_up};
use crate::sources::{Content, Sources, is_same};
use crate::spec::{CONFIG_MAP_PLUGIN, EMPTY_DIR_PLUGIN, EmptyDirSpec, VolumeSpec, check_mount};
use crate::token::TokenManager;
use crate::usage::Measure;

/// How to keep volumes.
pub struct Options {
    /// The kubelet's root directory (`--root-dir`). It is made if it is missing.
    pub root_dir: PathBuf,
    /// Whether pods may see files of the node. Where they may, they still never see the root directory.
    pub allow_host_path: bool,
    /// The node's allocatable resources: what a container without limits is told that it has, and the limit of what a
    /// pod without limits may keep in memory. Called at every mount that needs it, so it should be cheap.
    pub node_allocatable: Box<dyn Fn() -> ResourceList + Send + Sync>,
}

/// Makes, refreshes and removes the volumes of pods, on disk in upstream's layout.
///
/// Calls for one pod may be dropped at any time: what a call has begun on disk goes on to its end, and the next call
/// for that pod waits for it. Calls for different pods do not wait for each other. Needs Linux 5.6 (`openat2`).
pub struct VolumeManager {
    pub(crate) layout: Arc<Layout>,
    sources: Sources,
    allow_host_path: bool,
    privileges: Privileges,
    /// The lock of a pod is held by whoever is at work on its directory, to the end of that work, whether anybody still
    /// waits for it or not.
    pods: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Mounted>>>>,
    /// Pods that an earlier run of the agent left on disk and that have not been mounted since.
    left_behind: Mutex<HashSet<String>>,
}

impl VolumeManager {
    /// Opens the root directory. Without a `TokenIssuer`, pods that need a service account token are refused. Blocks
    /// for the time of listing a directory.
    pub fn new(
        options: Options,
        objects: Arc<dyn ObjectReader>,
        tokens: Option<Arc<dyn TokenIssuer>>,
    ) -> Result<Self, VolumeError> {
        let failed = |e| io_error("open the root directory", &options.root_dir, e);
        let layout = Layout::open(&options.root_dir).map_err(failed)?;
        let left_behind = layout.pods().map_err(failed)?.into_iter().collect();
        Ok(Self {
            layout: Arc::new(layout),
            sources: Sources {
                objects,
                tokens: TokenManager::new(tokens),
                node_allocatable: options.node_allocatable,
            },
            allow_host_path: options.allow_host_path,
            privileges: Privileges::of_this_process(),
            pods: Mutex::default(),
            left_behind: Mutex::new(left_behind),
        })
    }

    /// Reads a volume of a pod and says whether it can be had on this node.
    fn parse<'a>(&self, volume: &'a Volume) -> Result<VolumeSpec<'a>, VolumeError> {
        let refused = |message: &str| Err(VolumeError::Invalid(message.to_owned()));
        let spec = VolumeSpec::parse(volume).map_err(|error| in_volume(&volume.name, error))?;
        let result = match &spec {
            VolumeSpec::HostPath(_) if !self.allow_host_path => {
                refused("hostPath is not allowed on this node")
            }
            VolumeSpec::EmptyDir(EmptyDirSpec { in_memory: true, .. }) if !self.privileges.may_mount => {
                refused(
                    "emptyDir with medium Memory needs an agent that may mount (CAP_SYS_ADMIN), and this one may not",
                )
            }
            VolumeSpec::Payload(payload) if payload.needs_token() && !self.sources.tokens.has_issuer() => {
                refused("serviceAccountToken needs an apiserver, and this node has none")
            }
            _ => Ok(()),
        };
        result.map_err(|error| in_volume(&volume.name, error))?;
        Ok(spec)
    }

    /// The volumes of a pod that its containers use.
    fn used<'a>(&self, pod: &'a Pod) -> Result<Vec<(&'a str, VolumeSpec<'a>)>, VolumeError> {
        let used = used_volumes(pod);
        let volumes = pod.pod_spec().volumes.iter().flatten().filter(|v| used.contains(v.name.as_str()));
        volumes.map(|volume| Ok((volume.name.as_str(), self.parse(volume)?))).collect()
    }

    /// The lock of a pod.
    pub(crate) fn mounted(&self, uid: &str) -> Arc<tokio::sync::Mutex<Mounted>> {
        self.pods.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// Reads the tokens that an earlier run left on disk, so that a restart asks for none that is still fresh.
    async fn adopt_tokens(
        &self,
        pod: &Pod,
        uid: &str,
        volumes: &[(&str, VolumeSpec<'_>)],
    ) -> Result<(), VolumeError> {
        if !self.left_behind.lock().contains(uid) {
            return Ok(());
        }
        let mut files = Vec::new();
        for (name, spec) in volumes {
            if let VolumeSpec::Payload(payload) = spec {
                let dir = self.layout.volume_dir(uid, payload.plugin, name);
                files.extend(tokens_on_disk(pod, &dir, payload));
            }
        }
        let tokens =
            blocking(move || Ok(files.into_iter().filter_map(|file| file.read()).collect::<Vec<_>>()));
        for (key, value) in tokens.await? {
            self.sources.tokens.adopt(pod, key, value);
        }
        self.left_behind.lock().remove(uid);
        Ok(())
    }

    /// What has to be done on disk for a volume; nothing if all is as it should be.
    fn job(
        &self,
        pod: &Arc<Pod>,
        owner: Owner,
        (volume, spec): (&str, &VolumeSpec<'_>),
        contents: Vec<Content>,
        mounted: &Mounted,
    ) -> Result<Option<Job>, VolumeError> {
        let versions: Vec<_> = contents.iter().map(Content::version).collect();
        if mounted.get(volume).is_some_and(|mounted| is_same(mounted, &versions)) {
            return Ok(None);
        }
        let group = owner.fs_group.filter(|_| self.privileges.may_chown);
        let dir = |plugin| self.layout.volume_dir(&pod.uid(), plugin, volume);
        let setup = match spec {
            VolumeSpec::EmptyDir(spec) => {
                let empty_dir = EmptyDir::new(spec, pod, &self.sources.node_allocatable, group)?;
                Setup::EmptyDir { dir: dir(EMPTY_DIR_PLUGIN), empty_dir }
            }
            VolumeSpec::HostPath(source) => Setup::HostPath((*source).clone()),
            VolumeSpec::Payload(payload) => Setup::Payload(PayloadSetup {
                pod: pod.clone(),
                dir: dir(payload.plugin),
                payload: make_payload(payload, contents, owner)?,
                group,
                may_chown: self.privileges.may_chown,
            }),
        };
        Ok(Some(Job { volume: volume.to_owned(), setup, versions }))
    }

    /// The volumes of a pod that can be measured.
    fn measures(&self, pod: &Pod) -> Vec<Measure> {
        let uid = pod.uid();
        let (Ok(uid), Ok(volumes)) = (check_uid(&uid), self.used(pod)) else { return Vec::new() };
        let measure = |(volume, spec): &(&str, VolumeSpec<'_>)| {
            let (plugin, is_file_system, is_ephemeral) = match spec {
                VolumeSpec::HostPath(_) => return None,
                VolumeSpec::EmptyDir(spec) => (EMPTY_DIR_PLUGIN, spec.in_memory, !spec.in_memory),
                VolumeSpec::Payload(payload) => (payload.plugin, false, payload.plugin == CONFIG_MAP_PLUGIN),
            };
            let dir = self.layout.volume_dir(uid, plugin, volume);
            Some(Measure { volume: (*volume).to_owned(), dir, is_file_system, is_ephemeral })
        };
        volumes.iter().filter_map(measure).collect()
    }

    /// Everything about a mount of a container that needs no disk.
    fn mount_plan(
        &self,
        pod: &Pod,
        mount: &VolumeMount,
        env: &[EnvVar],
        mounted: &Mounted,
    ) -> Result<MountPlan, VolumeError> {
        let volume = pod.pod_spec().volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| VolumeError::Invalid("the pod has no such volume".to_owned()))?;
        if !mounted.contains_key(&mount.name) {
            return Err(VolumeError::NotReady("it is not set up yet".to_owned()));
        }
        let spec = VolumeSpec::parse(volume)?;
        let dir = |plugin| self.layout.volume_dir(&pod.uid(), plugin, &mount.name);
        let base = match &spec {
            VolumeSpec::HostPath(source) => Base::Host((*source).clone()),
            VolumeSpec::EmptyDir(_) => Base::Own(dir(EMPTY_DIR_PLUGIN)),
            VolumeSpec::Payload(payload) => Base::Own(dir(payload.plugin)),
        };
        MountPlan::new(mount, base, spec.is_read_only(), env)
    }
}

#[async_trait]
impl Volumes for VolumeManager {
    fn check(&self, pod: &Pod) -> Result<(), String> {
        let mut volumes = pod.pod_spec().volumes.iter().flatten();
        volumes.try_for_each(|volume| self.parse(volume).map(drop)).map_err(|e| e.to_string())?;
        for container in containers(pod) {
            for mount in container.mounts {
                check_mount(mount)
                    .map_err(|e| format!("container {:?}: mount {:?}: {e}", container.name, mount.name))?;
            }
        }
        Ok(())
    }

    async fn mount(&self, pod: &Arc<Pod>) -> Result<(), VolumeError> {
        let uid = pod.uid();
        let uid = check_uid(&uid)?;
        let owner = Owner::of(pod)?;
        let volumes = self.used(pod)?;
        if volumes.is_empty() {
            return Ok(());
        }
        self.adopt_tokens(pod, uid, &volumes).await?;
        let contents = join_all(volumes.iter().map(|(_, spec)| self.sources.collect(pod, spec))).await;

        // Whoever was at work on this pod's directory before is done now.
        let mounted = self.mounted(uid).lock_owned().await;
        let mut jobs = Vec::new();
        let mut errors = Vec::new();
        for ((volume, spec), contents) in volumes.iter().zip(contents) {
            match contents.and_then(|contents| self.job(pod, owner, (volume, spec), contents, &mounted)) {
                Ok(job) => jobs.extend(job),
                Err(error) => errors.push(set_up_failed(volume, error)),
            }
        }
        // One volume that is not ready must not keep the token in another from being renewed.
        if !jobs.is_empty() {
            let (layout, uid) = (self.layout.clone(), uid.to_owned());
            errors.extend(blocking(move || set_up(&layout, &uid, jobs, mounted)).await?);
        }
        combine(errors)
    }

    async fn container_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[EnvVar],
    ) -> Result<Vec<Mount>, VolumeError> {
        if container.volume_mounts.as_ref().is_none_or(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mounted = self.mounted(&pod.uid()).lock_owned().await;
        let plans = container.volume_mounts.iter().flatten().map(|mount| {
            self.mount_plan(pod, mount, env, &mounted).map_err(|error| in_volume(&mount.name, error))
        });
        let plans: Vec<_> = plans.collect::<Result<_, _>>()?;
        let layout = self.layout.clone();
        let needs_disk = plans.iter().any(MountPlan::needs_disk);
        let resolve = move || plans.into_iter().map(|plan| plan.resolve(layout.root())).collect();
        if !needs_disk {
            return resolve();
        }
        blocking(move || {
            let mounts = resolve();
            drop(mounted);
            mounts
        })
        .await
    }

    async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeError> {
        let pod_dir = self.layout.pod_dir(check_uid(pod_uid)?);
        let mut mounted = self.mounted(pod_uid).lock_owned().await;
        blocking(move || {
            mounted.clear();
            remove_tree(&pod_dir)
        })
        .await?;
        self.sources.tokens.delete_service_account_tokens(pod_uid);
        self.left_behind.lock().remove(pod_uid);
        self.pods.lock().remove(pod_uid);
        Ok(())
    }

    async fn empty_dir_usage(&self, pod_uid: &str, volume: &str) -> Result<DiskStats, VolumeError> {
        let dir = self.layout.volume_dir(check_uid(pod_uid)?, EMPTY_DIR_PLUGIN, volume);
        blocking(move || disk_usage(&dir)).await
    }

    async fn usage(&self, pod: &Pod) -> Vec<VolumeUsage> {
        let measures = self.measures(pod);
        let measured =
            blocking(move || Ok(measures.into_iter().map(Measure::take).collect::<Vec<_>>())).await;
        let name = pod.display_name();
        let note = |error: &VolumeError| tracing::debug!(pod = %name, %error, "a volume cannot be measured");
        let measured = measured.inspect_err(note).unwrap_or_default();
        measured.into_iter().filter_map(|usage| usage.inspect_err(note).ok()).collect()
    }

    async fn known_pods(&self) -> Result<Vec<String>, VolumeError> {
        let layout = self.layout.clone();
        blocking(move || layout.pods().map_err(|e| io_error("list the pods in", layout.root(), e))).await
    }
}

/// Runs work that blocks, to its end even if nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|error| Err(VolumeError::Io(format!("work on volumes did not finish: {error}"))))
}
