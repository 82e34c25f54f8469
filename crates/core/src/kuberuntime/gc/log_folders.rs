//! Logs of pods that are gone, and links to logs that are gone (`evictPodLogsDirectories`).

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_provider::{ContainerState, PodRef};
use tracing::warn;

use super::ContainerGc;
use crate::blocking::blocking;
use crate::kuberuntime::container::{LEGACY_LOG_SUFFIX, legacy_log_name};
use crate::kuberuntime::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::kuberuntime::sandbox::pod_log_folder_name;

impl ContainerGc {
    /// Removes the logs of pods whose content may go. Folders of pods that no runtime remembers are among them, so
    /// no two agents may share a folder for logs.
    pub(super) async fn evict_pod_log_folders(&self, content_may_go: impl Fn(&str) -> bool) {
        let root = self.pod_logs_dir.clone();
        let names = match blocking(move || list(&root)).await {
            Ok(names) => names,
            Err(error) => return warn!(%error, "listing the folders of pods' logs failed"),
        };
        for name in names.into_iter().filter(|name| uid_of(name).is_some_and(&content_may_go)) {
            self.remove_log_folder(&name).await;
        }
    }

    /// Removes the logs of one pod.
    pub(super) async fn remove_pod_logs(&self, pod: &RuntimePod) {
        let sandbox = pod.sandboxes.first().map(|s| &s.pod);
        if let Some(pod) = sandbox.or_else(|| pod.containers.first().map(|c| &c.pod)) {
            let PodRef { uid, namespace, name } = pod;
            self.remove_log_folder(&pod_log_folder_name(namespace, name, uid)).await;
        }
    }

    async fn remove_log_folder(&self, name: &str) {
        let folder = self.pod_logs_dir.join(name);
        match blocking(move || std::fs::remove_dir_all(folder)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, name, "removing the logs of a pod failed");
            }
            _ => {}
        }
    }

    /// Removes links of log agents that lead to logs that are gone. While a container lives, its log may be away for a
    /// moment: that is how it is rotated.
    pub(super) async fn remove_dead_log_links(&self) {
        let Some(links) = self.container_logs_dir.clone() else { return };
        let logs = self.pod_logs_dir.clone();
        let alive: HashSet<String> = self
            .cache
            .all()
            .into_iter()
            .flat_map(|pod| pod.containers)
            .filter(|container| container.state != ContainerState::Exited)
            .map(|container| container.id.clone())
            .collect();
        let removed = blocking(move || {
            for link in dead_links(&links, &logs)? {
                if container_id_of(&link).is_none_or(|id| !alive.contains(id)) {
                    remove_link(&link);
                }
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            warn!(%error, "looking for dead links to logs failed");
        }
    }

    /// The link under which log agents find the log of a container (`legacyLogSymlink`), if there are such links.
    pub(super) fn log_link(&self, container: &RuntimeContainer) -> Option<PathBuf> {
        let folder = self.container_logs_dir.as_ref()?;
        let (pod, name) = (&container.pod, &container.name);
        Some(folder.join(legacy_log_name(&pod.name, &pod.namespace, name, &container.id)))
    }
}

/// Removes a link, if it is there. Blocks.
pub(super) fn remove_link(link: &Path) {
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(%error, link = %link.display(), "removing the link to a log failed");
        }
        _ => {}
    }
}

/// The UID at the end of `NAMESPACE_NAME_UID` (`parsePodUIDFromLogsDirectory`). A folder that is called otherwise is
/// not the logs of a pod, and stays: upstream takes its whole name for a UID.
fn uid_of(folder: &str) -> Option<&str> {
    match folder.split('_').collect::<Vec<_>>()[..] {
        [_, _, uid] => Some(uid),
        _ => None,
    }
}

/// The id at the end of `POD_NAMESPACE_CONTAINER-ID.log` (`getContainerIDFromLegacyLogSymlink`).
fn container_id_of(link: &Path) -> Option<&str> {
    let name = link.file_name()?.to_str()?.strip_suffix(LEGACY_LOG_SUFFIX)?;
    name.rsplit_once('-').map(|(_, id)| id)
}

/// The names of what is in a folder; nothing, if there is none.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    // A name that is no text is not one of ours.
    entries.filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose()).collect()
}

/// Links into `logs` that lead nowhere. Those of other agents on this machine are theirs.
fn dead_links(folder: &Path, logs: &Path) -> io::Result<Vec<PathBuf>> {
    let is_dead = |link: &PathBuf| {
        std::fs::read_link(link).is_ok_and(|target| target.starts_with(logs))
            && link.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let links = list(folder)?.into_iter().filter(|name| name.ends_with(LEGACY_LOG_SUFFIX));
    Ok(links.map(|name| folder.join(name)).filter(is_dead).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_log_folder_ends_in_its_pods_uid() {
        for (folder, uid) in [
            ("namespace_name_321", Some("321")),
            ("a_b_c-d", Some("c-d")),
            ("123", None),
            ("journal", None),
            ("a_b_c_d", None),
        ] {
            assert_eq!(uid_of(folder), uid);
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found_and_those_of_others_left_alone() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        for folder in ["links", "logs", "others"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        std::fs::write(at("logs/alive"), "").unwrap();
        for (link, target) in [
            ("p_ns_c-1.log", "logs/alive"),
            ("p_ns_c-2.log", "logs/gone"),
            ("p_ns_c-3.log", "others/gone"),
            ("p_ns_c-4.txt", "logs/gone"),
        ] {
            symlink(at(target), at("links").join(link)).unwrap();
        }
        let dead = dead_links(&at("links"), &at("logs")).unwrap();
        assert_eq!(dead, [at("links/p_ns_c-2.log")]);
        assert_eq!(container_id_of(&dead[0]), Some("2"));
        assert!(dead_links(&at("none"), &at("logs")).unwrap().is_empty());
    }
}
