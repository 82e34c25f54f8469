//! Starting a container (upstream: `startContainer` in `kuberuntime_container.go`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_provider::{
    ContainerConfig, ContainerPort, ContainerStatus, EnvVar, ImageSpec, Protocol, Provider, SandboxStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::compute::{ContainerToKill, KillReason};
use super::labels;
use super::manager::KubeGenericRuntimeManager;
use super::resize::container_resources;
use super::runtime_pod::{RuntimeContainer, RuntimePod};
use super::sandbox::{pod_log_directory, protocol};
use super::sync_result::{SyncFailure, reason};
use crate::clock;
use crate::expansion::{expand, syntax_wrap};
use crate::metrics::runtime_operation;
use crate::pod::PodExt;
use crate::ports::EventType;
use crate::recorder;

/// Where an HTTP service listens if the pod declares no TCP port.
const DEFAULT_SERVING_PORT: u16 = 8080;

/// How links to logs end (`legacyLogSuffix`).
pub(super) const LEGACY_LOG_SUFFIX: &str = ".log";

/// The sandbox that containers are started in.
pub(super) struct Sandbox {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) status: Arc<SandboxStatus>,
}

impl KubeGenericRuntimeManager {
    /// Makes and starts one container whose image is present.
    pub(super) async fn start_container(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &Sandbox,
        image_ref: String,
        runtime: &RuntimePod,
    ) -> Result<(), SyncFailure> {
        let restart_count = self.next_restart_count(pod, container, runtime);
        let ips = &sandbox.status.network.ips;
        let config = self
            .generate_container_config(pod, container, restart_count, image_ref, ips, sandbox, runtime)
            .await;
        // What it is made with is what its runtime was told.
        let told = config.and_then(|config| {
            self.set_actuated(pod, &container.name, container.resources.as_ref()).map(|()| config)
        });
        let config = told.map_err(|message| {
            self.container_warning(pod, container, recorder::reason::FAILED, &message);
            SyncFailure::new(reason::CREATE_CONTAINER_CONFIG, message)
        })?;

        let provider = &sandbox.provider;
        self.remove_unstarted(pod, container, runtime).await?;
        let (made_by, sandbox_id) = (provider.clone(), sandbox.status.id.clone());
        let create = async move {
            runtime_operation("create_container", made_by.create_container(&sandbox_id, config)).await
        };
        let created = self.in_flight.change(provider.name(), &pod.uid(), create).await;
        let created =
            created.map_err(|e| self.start_failure(pod, container, reason::CREATE_CONTAINER, &e))?;
        let id = created.id.clone();
        self.cache.set_container(provider.name(), created);
        self.container_normal(pod, container, recorder::reason::CREATED_CONTAINER, "Container created");

        let started_by = provider.clone();
        let start =
            async move { runtime_operation("start_container", started_by.start_container(&id)).await };
        let started = self.in_flight.change(provider.name(), &pod.uid(), start).await;
        let started = started.map_err(|e| self.start_failure(pod, container, reason::RUN_CONTAINER, &e))?;
        self.link_log(pod, &started);
        self.cache.set_container(provider.name(), started.clone());
        self.container_normal(pod, container, recorder::reason::STARTED_CONTAINER, "Container started");
        self.run_post_start_hook(pod, container, provider, started).await
    }

    /// An instance that was made and did not start makes room for the next one: should its start still come through, there
    /// would be two. One that has started by now, maybe to its end, is the next one.
    async fn remove_unstarted(
        &self,
        pod: &Pod,
        container: &Container,
        runtime: &RuntimePod,
    ) -> Result<(), SyncFailure> {
        let unstarted = |c: &ContainerStatus| c.state == coracle_provider::ContainerState::Created;
        let last = runtime.find(&container.name).filter(|last| unstarted(&last.status));
        let Some(last) = last else { return Ok(()) };
        let Some(provider) = self.providers.by_name(last.provider) else { return Ok(()) };
        let listed = provider.list_pod(&pod.uid()).await;
        let listed = listed.map_err(|e| self.start_failure(pod, container, reason::CREATE_CONTAINER, &e))?;
        if let Some(started) = listed.containers.into_iter().find(|c| c.id == last.id && !unstarted(c)) {
            self.cache.set_container(provider.name(), started);
            return Err(SyncFailure::new(
                reason::CREATE_CONTAINER,
                "its last instance has started after all",
            ));
        }
        let (removed_by, id) = (provider.clone(), last.id.clone());
        let remove =
            async move { runtime_operation("remove_container", removed_by.remove_container(&id)).await };
        let removed = self.in_flight.change(provider.name(), &pod.uid(), remove).await;
        let revision =
            removed.map_err(|e| self.start_failure(pod, container, reason::CREATE_CONTAINER, &e))?;
        self.cache.remove_container(last.provider, &pod.uid(), &last.id, revision);
        Ok(())
    }

    /// Step 4 of upstream's. A container whose hook fails is stopped, and waits as one that failed.
    async fn run_post_start_hook(
        &self,
        pod: &Pod,
        container: &Container,
        provider: &Arc<dyn Provider>,
        started: Arc<ContainerStatus>,
    ) -> Result<(), SyncFailure> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let runtime = self.cache.get(&pod.uid());
        let target = self.hook_target(pod, container, &runtime, &started.id, provider);
        let Err(message) = self.handlers.run(&target, hook).await else { return Ok(()) };

        // The message may have secrets of the program, which Events would show to everyone who may read them.
        let (event_type, why) = (EventType::Warning, recorder::reason::FAILED_POST_START_HOOK);
        self.recorder.container(pod, &container.name, event_type, why, "PostStartHook failed");
        let kill = ContainerToKill {
            container: RuntimeContainer { provider: provider.name(), status: started },
            message: "FailedPostStartHook".to_owned(),
            reason: KillReason::FailedPostStartHook,
        };
        if let Err(failure) = self.kill_container(pod, &runtime, &kill).await {
            tracing::warn!(container = %kill.container.id, error = failure.message, "stopping a container failed");
        }
        // From here on it is a container that crashed: how long it waits is the back-off's business.
        Err(SyncFailure { reason: reason::POST_START_HOOK, message, retry_at: Some(clock::now()) })
    }

    fn start_failure(
        &self,
        pod: &Pod,
        container: &Container,
        reason: &'static str,
        error: &coracle_provider::Error,
    ) -> SyncFailure {
        let mut told = error.to_string();
        for known in self.cache.get(&pod.uid()).containers.iter().filter(|c| c.name == container.name) {
            // An id in its message makes every Event a new one.
            told = told.replace(&known.id, &container.name);
        }
        self.container_warning(pod, container, recorder::reason::FAILED, &told);
        SyncFailure::new(reason, error.to_string())
    }

    /// One more than the last instance; where no runtime remembers one, one more than the newest log file.
    fn next_restart_count(&self, pod: &Pod, container: &Container, runtime: &RuntimePod) -> u32 {
        match runtime.find(&container.name) {
            Some(last) => last.restart_count() + 1,
            None => {
                let folder = pod_log_directory(&self.options.pod_logs_dir, pod).join(&container.name);
                restart_count_by_log_dir(&folder)
            }
        }
    }

    /// `generateContainerConfig`.
    #[allow(clippy::too_many_arguments)]
    async fn generate_container_config(
        &self,
        pod: &Pod,
        container: &Container,
        restart_count: u32,
        image_ref: String,
        pod_ips: &[IpAddr],
        sandbox: &Sandbox,
        runtime: &RuntimePod,
    ) -> Result<ContainerConfig, String> {
        let envs = self.make_environment_variables(pod, container, pod_ips).await?;
        let mounts = self.make_mounts(pod, container, restart_count, &envs, sandbox).await?;
        let (linux, sandbox_config) =
            self.linux_container(pod, container, &image_ref, sandbox, runtime).await?;
        let image = container.image.clone().unwrap_or_default();
        Ok(ContainerConfig {
            name: container.name.clone(),
            attempt: restart_count,
            image: ImageSpec { image, runtime_handler: sandbox.status.runtime_handler.clone() },
            image_ref,
            command: expand_all(container.command.as_deref(), &envs),
            args: expand_all(container.args.as_deref(), &envs),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            mounts,
            ports: container_ports(container),
            serving_port: serving_port(container),
            labels: labels::container_labels(container, pod),
            annotations: labels::container_annotations(container, pod, restart_count),
            log_path: PathBuf::from(&container.name).join(format!("{restart_count}.log")),
            stdin: container.stdin.unwrap_or(false),
            stdin_once: container.stdin_once.unwrap_or(false),
            tty: container.tty.unwrap_or(false),
            resources: container_resources(pod, container),
            linux,
            sandbox: sandbox_config,
            envs,
        })
    }

    /// The link under which log agents find the log (`legacyLogSymlink`). It is a convenience: a failure is logged.
    fn link_log(&self, pod: &Pod, status: &ContainerStatus) {
        let Some(folder) = &self.options.container_logs_dir else { return };
        let link = folder.join(legacy_log_name(pod.name(), pod.namespace(), &status.name, &status.id));
        if !status.log_path.exists() {
            return;
        }
        match std::os::unix::fs::symlink(&status.log_path, &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                tracing::warn!(%error, link = %link.display(), "linking a container's log failed");
            }
            _ => {}
        }
    }

    pub(super) fn container_warning(
        &self,
        pod: &Pod,
        container: &Container,
        reason: &'static str,
        error: &str,
    ) {
        self.recorder.container(pod, &container.name, EventType::Warning, reason, format!("Error: {error}"));
    }

    fn container_normal(&self, pod: &Pod, container: &Container, reason: &'static str, message: &str) {
        self.recorder.container(pod, &container.name, EventType::Normal, reason, message);
    }
}

/// `POD_NAMESPACE_CONTAINER-ID.log`, the pod part cut so that the name fits (`legacy.go`).
pub(super) fn legacy_log_name(pod: &str, namespace: &str, container: &str, id: &str) -> String {
    const MAX_FILE_NAME: usize = 255;
    let prefix = format!("{pod}_{namespace}_{container}");
    let room = MAX_FILE_NAME - LEGACY_LOG_SUFFIX.len() - 1 - id.len().min(MAX_FILE_NAME / 2);
    format!("{}-{id}{LEGACY_LOG_SUFFIX}", &prefix[..prefix.len().min(room)])
}

/// `calcRestartCountByLogDir`: log files are named after the restart count.
fn restart_count_by_log_dir(folder: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let number = |name: &str| name.split_once(".log").and_then(|(number, _)| number.parse::<u32>().ok());
    let newest = entries.flatten().filter_map(|entry| number(&entry.file_name().to_string_lossy())).max();
    newest.map_or(0, |n| n + 1)
}

/// `ExpandContainerCommandAndArgs`.
fn expand_all(words: Option<&[String]>, envs: &[EnvVar]) -> Vec<String> {
    let lookup = |name: &str| {
        let found = envs.iter().find(|e| e.name == name);
        found.map_or_else(|| syntax_wrap(name), |e| e.value.clone())
    };
    words.unwrap_or_default().iter().map(|word| expand(word, lookup)).collect()
}

fn container_ports(container: &Container) -> Vec<ContainerPort> {
    let ports = container.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(ContainerPort {
                name: port.name.clone().unwrap_or_default(),
                port: u16::try_from(port.container_port).ok()?,
                protocol: protocol(port),
            })
        })
        .collect()
}

/// The first port named `http`, else the first TCP one, else 8080.
fn serving_port(container: &Container) -> u16 {
    let ports = container_ports(container);
    let tcp = || ports.iter().filter(|p| p.protocol == Protocol::Tcp);
    let port = tcp().find(|p| p.name == "http").or_else(|| tcp().next());
    port.map_or(DEFAULT_SERVING_PORT, |p| p.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, number: i32, protocol: &str) -> k8s_openapi::api::core::v1::ContainerPort {
        k8s_openapi::api::core::v1::ContainerPort {
            name: Some(name.into()),
            container_port: number,
            protocol: Some(protocol.into()),
            ..Default::default()
        }
    }

    #[test]
    fn the_serving_port_is_the_one_named_http_else_the_first_tcp_one() {
        let cases = [
            (vec![], 8080),
            (vec![port("dns", 53, "UDP")], 8080),
            (vec![port("dns", 53, "UDP"), port("a", 81, "TCP"), port("b", 82, "TCP")], 81),
            (vec![port("a", 81, "TCP"), port("http", 80, "TCP")], 80),
        ];
        for (ports, expected) in cases {
            let container = Container { ports: Some(ports), ..Container::default() };
            assert_eq!(serving_port(&container), expected);
        }
    }

    #[test]
    fn the_restart_count_goes_on_where_the_log_files_end() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(restart_count_by_log_dir(&folder.path().join("none")), 0);
        for name in ["0.log", "3.log.20260101-000000.gz", "2.log", "other"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(restart_count_by_log_dir(folder.path()), 4);
    }

    #[test]
    fn the_log_link_fits_a_file_name() {
        assert_eq!(legacy_log_name("p", "ns", "c", "id"), "p_ns_c-id.log");
        assert!(legacy_log_name(&"p".repeat(300), "ns", "c", "0123456789abcdef").len() <= 255);
    }
}
