//! What a pod refers to (upstream: `pkg/api/v1/pod/util.go`, `VisitPodSecretNames` and `VisitPodConfigmapNames`).

use std::collections::BTreeSet;

use crate::ports::{ObjectKey, ObjectKind};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec, Volume};

/// The ConfigMaps and Secrets that a pod refers to and that this kubelet reads.
pub fn references(pod: &Pod) -> BTreeSet<ObjectKey> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut found = Found { namespace, keys: BTreeSet::new() };
    for reference in spec.image_pull_secrets.iter().flatten() {
        found.secret(&reference.name);
    }
    for (env, env_from) in environments(spec) {
        found.environment(env, env_from);
    }
    for volume in spec.volumes.iter().flatten() {
        found.volume(volume);
    }
    found.keys
}

type Environment<'a> = (&'a [EnvVar], &'a [EnvFromSource]);

fn environments(spec: &PodSpec) -> impl Iterator<Item = Environment<'_>> {
    let init = spec.init_containers.iter().flatten();
    let containers = init.chain(&spec.containers).map(|c| (c.env.as_deref(), c.env_from.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|c| (c.env.as_deref(), c.env_from.as_deref()));
    containers.chain(ephemeral).map(|(env, from)| (env.unwrap_or_default(), from.unwrap_or_default()))
}

struct Found<'a> {
    namespace: &'a str,
    keys: BTreeSet<ObjectKey>,
}

impl Found<'_> {
    fn environment(&mut self, env: &[EnvVar], env_from: &[EnvFromSource]) {
        for source in env_from {
            if let Some(reference) = &source.config_map_ref {
                self.config_map(&reference.name);
            }
            if let Some(reference) = &source.secret_ref {
                self.secret(&reference.name);
            }
        }
        for source in env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            if let Some(reference) = &source.config_map_key_ref {
                self.config_map(&reference.name);
            }
            if let Some(reference) = &source.secret_key_ref {
                self.secret(&reference.name);
            }
        }
    }

    fn volume(&mut self, volume: &Volume) {
        if let Some(source) = &volume.config_map {
            self.config_map(&source.name);
        }
        if let Some(source) = &volume.secret {
            self.secret(source.secret_name.as_deref().unwrap_or_default());
        }
        if let Some(reference) = volume.csi.as_ref().and_then(|csi| csi.node_publish_secret_ref.as_ref()) {
            self.secret(&reference.name);
        }
        let projected = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        for source in projected.into_iter().flatten() {
            if let Some(source) = &source.config_map {
                self.config_map(&source.name);
            }
            if let Some(source) = &source.secret {
                self.secret(&source.name);
            }
        }
    }

    fn config_map(&mut self, name: &str) {
        self.add(ObjectKind::ConfigMap, name);
    }

    fn secret(&mut self, name: &str) {
        self.add(ObjectKind::Secret, name);
    }

    fn add(&mut self, kind: ObjectKind, name: &str) {
        if !name.is_empty() {
            self.keys.insert(ObjectKey { kind, namespace: self.namespace.to_owned(), name: name.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_refer_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init-all"}}]}],
                "containers": [{"name": "c",
                    "env": [
                        {"name": "PLAIN", "value": "v"},
                        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}},
                        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}
                    ],
                    "envFrom": [{"secretRef": {"name": "all"}}]}],
                "ephemeralContainers": [{"name": "e",
                    "env": [{"name": "C", "valueFrom": {"configMapKeyRef": {"name": "debug", "key": "k"}}}]}],
                "volumes": [
                    {"name": "v1", "configMap": {"name": "volume"}},
                    {"name": "v2", "secret": {"secretName": "volume"}},
                    {"name": "v3", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "publish"}}},
                    {"name": "v4", "projected": {"sources": [
                        {"configMap": {"name": "kube-root-ca.crt"}},
                        {"secret": {"name": "projected"}},
                        {"serviceAccountToken": {"path": "token"}}]}},
                    {"name": "v5", "emptyDir": {}}
                ]
            }
        }))
        .unwrap();
        let mut names: Vec<String> = references(&pod)
            .into_iter()
            .map(|key| {
                assert_eq!(key.namespace, "ns");
                format!("{:?} {}", key.kind, key.name)
            })
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ConfigMap debug",
                "ConfigMap env",
                "ConfigMap init-all",
                "ConfigMap kube-root-ca.crt",
                "ConfigMap volume",
                "Secret all",
                "Secret env",
                "Secret projected",
                "Secret publish",
                "Secret pull",
                "Secret volume",
            ]
        );
    }
}
