//! Mount points inside of volumes (`pkg/volume/util/nested_volumes.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::containers;

/// The directories that a volume must have because another volume is mounted there: with one volume at `/etc/app` and
/// another at `/etc/app/certs`, the first needs a `certs`. A runtime cannot make it in a volume that is read-only.
pub(crate) fn nested_mount_points(pod: &Pod, volume: &str) -> BTreeSet<String> {
    let mut nested = BTreeSet::new();
    for container in containers(pod) {
        let paths: Vec<String> = container.mounts.iter().map(|m| clean(&m.mount_path)).collect();
        let own = container.mounts.iter().zip(&paths).filter(|(m, _)| m.name == volume).map(|(_, path)| path);
        for parent in own {
            let parent = format!("{}/", parent.trim_end_matches('/'));
            let below: Vec<&str> = paths
                .iter()
                .filter_map(|path| path.strip_prefix(&parent))
                .filter(|path| !path.is_empty())
                .collect();
            // `a` brings the mount point `a/b` with it, in another volume.
            let direct = below.iter().filter(|path| !below.iter().any(|outer| is_below(path, outer)));
            nested.extend(direct.map(|path| (*path).to_owned()));
        }
    }
    nested
}

fn is_below(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// An absolute path without `.`, `..` and double slashes; `..` cannot leave the container's root.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

    use super::*;

    fn pod(containers: &[&[(&str, &str)]]) -> Pod {
        let containers = containers.iter().map(|mounts| {
            let mounts = mounts.iter().map(|(name, path)| VolumeMount {
                name: (*name).into(),
                mount_path: (*path).into(),
                ..Default::default()
            });
            Container { volume_mounts: Some(mounts.collect()), ..Default::default() }
        });
        let spec = PodSpec { containers: containers.collect(), ..Default::default() };
        Pod { spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn finds_mount_points_in_a_volume() {
        type Mounts = &'static [(&'static str, &'static str)];
        let table: [(Mounts, &[&str]); 8] = [
            (&[("a", "/dir")], &[]),
            (&[("a", "/dir"), ("b", "/other")], &[]),
            (&[("a", "/dir"), ("b", "/dir/nested")], &["nested"]),
            (&[("a", "/dir"), ("b", "/dir/nested"), ("c", "/dir/nested/double")], &["nested"]),
            (
                &[("a", "/dir"), ("b", "/dir/x/nested"), ("c", "/dir/x.y"), ("d", "/dir2")],
                &["x.y", "x/nested"],
            ),
            (&[("a", "/dir/"), ("b", "/dir//./nested/")], &["nested"]),
            (&[("a", "/"), ("b", "/etc")], &["etc"]),
            (&[("a", "/dir"), ("b", "/dir/../../../etc")], &[]),
        ];
        for (mounts, expected) in table {
            let nested = nested_mount_points(&pod(&[mounts]), "a");
            assert!(nested.iter().eq(expected), "{mounts:?}: {nested:?}");
        }
    }

    #[test]
    fn every_container_gets_its_own() {
        let pod = pod(&[&[("a", "/dir"), ("b", "/dir/x")], &[("a", "/dir"), ("c", "/dir/x/y")]]);
        assert!(nested_mount_points(&pod, "a").iter().eq(&["x", "x/y"]));
    }
}
