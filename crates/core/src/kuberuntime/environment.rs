//! A container's environment (upstream: `makeEnvironmentVariables` in `kubelet_pods.go`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use coracle_provider::EnvVar;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapKeySelector, Container, EnvVarSource, FileKeySelector, ObjectFieldSelector, Pod,
    ResourceFieldSelector, Secret, SecretKeySelector,
};

use super::env_file::parse_env;
use super::manager::KubeGenericRuntimeManager;
use crate::expansion::{expand, syntax_wrap};
use crate::fieldpath::{
    default_limits_for_downward_api, extract_field_path_as_string, extract_resource_value,
};
use crate::pod::PodExt;
use crate::ports::ApiError;

/// A failure that the container's waiting state shows as `CreateContainerConfigError`.
type Result<T> = std::result::Result<T, String>;

impl KubeGenericRuntimeManager {
    /// The container's environment, all references resolved, sorted by name.
    pub(super) async fn make_environment_variables(
        &self,
        pod: &Pod,
        container: &Container,
        pod_ips: &[IpAddr],
    ) -> Result<Vec<EnvVar>> {
        // A static pod may be what the apiserver runs in: it cannot wait for Services.
        let services = if pod.is_static() { Ok(BTreeMap::new()) } else { self.service_env(pod).await };
        let services = services.map_err(|e| e.to_string())?;
        let (config_maps, secrets, env) = Default::default();
        let mut maker =
            EnvMaker { manager: self, pod, container, pod_ips, services, config_maps, secrets, env };
        maker.add_env_from().await?;
        maker.add_env().await?;
        let mut all = maker.services;
        all.extend(maker.env);
        Ok(all.into_iter().map(|(name, value)| EnvVar { name, value }).collect())
    }
}

struct EnvMaker<'a> {
    manager: &'a KubeGenericRuntimeManager,
    pod: &'a Pod,
    container: &'a Container,
    pod_ips: &'a [IpAddr],
    /// What the pod's own variables may refer to and replace.
    services: BTreeMap<String, String>,
    config_maps: HashMap<String, Arc<ConfigMap>>,
    secrets: HashMap<String, Arc<Secret>>,
    env: BTreeMap<String, String>,
}

impl EnvMaker<'_> {
    async fn add_env_from(&mut self) -> Result<()> {
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            if let Some(reference) = &source.config_map_ref {
                let Some(map) = self.config_map(&reference.name, reference.optional).await? else { continue };
                for (key, value) in map.data.iter().flatten() {
                    self.env.insert(format!("{prefix}{key}"), value.clone());
                }
            } else if let Some(reference) = &source.secret_ref {
                let Some(secret) = self.secret(&reference.name, reference.optional).await? else { continue };
                for (key, value) in secret.data.iter().flatten() {
                    let value = String::from_utf8_lossy(&value.0).into_owned();
                    self.env.insert(format!("{prefix}{key}"), value);
                }
            }
        }
        Ok(())
    }

    async fn add_env(&mut self) -> Result<()> {
        for var in self.container.env.iter().flatten() {
            let value = match (&var.value, &var.value_from) {
                (Some(value), _) if !value.is_empty() => {
                    let known = |name: &str| self.env.get(name).or_else(|| self.services.get(name));
                    expand(value, |name| known(name).cloned().unwrap_or_else(|| syntax_wrap(name)))
                }
                (_, Some(source)) => match self.value_from(&var.name, source).await? {
                    Some(value) => value,
                    None => continue,
                },
                _ => String::new(),
            };
            self.env.insert(var.name.clone(), value);
        }
        Ok(())
    }

    /// None if an optional reference leads nowhere.
    async fn value_from(&mut self, name: &str, source: &EnvVarSource) -> Result<Option<String>> {
        if let Some(selector) = &source.field_ref {
            self.field_value(selector).map(Some)
        } else if let Some(selector) = &source.resource_field_ref {
            self.resource_value(selector).map(Some)
        } else if let Some(selector) = &source.config_map_key_ref {
            self.config_map_value(selector).await
        } else if let Some(selector) = &source.secret_key_ref {
            self.secret_value(selector).await
        } else if let Some(selector) = &source.file_key_ref {
            self.file_value(selector).await
        } else {
            Err(format!("env {name:?}: this kind of valueFrom is not supported by this kubelet"))
        }
    }

    /// `podFieldSelectorRuntimeValue`.
    fn field_value(&self, selector: &ObjectFieldSelector) -> Result<String> {
        let spec = self.pod.pod_spec();
        let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
        let host_ips = &self.manager.options.node_ips;
        let pod_ips =
            if self.pod.is_host_network() && self.pod_ips.is_empty() { host_ips } else { self.pod_ips };
        Ok(match selector.field_path.as_str() {
            "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            "status.hostIP" => first(host_ips),
            "status.hostIPs" => join(host_ips),
            "status.podIP" => first(pod_ips),
            "status.podIPs" => join(pod_ips),
            path => return extract_field_path_as_string(self.pod, path).map_err(|e| e.to_string()),
        })
    }

    fn resource_value(&self, selector: &ResourceFieldSelector) -> Result<String> {
        let node = self.manager.objects.node();
        let allocatable = node.as_ref().and_then(|n| n.status.as_ref()).and_then(|s| s.allocatable.clone());
        let limits = default_limits_for_downward_api(self.pod, &allocatable.unwrap_or_default());
        let limits = limits.map_err(|e| e.to_string())?;
        extract_resource_value(selector, self.pod, &self.container.name, &limits).map_err(|e| e.to_string())
    }

    async fn config_map_value(&mut self, selector: &ConfigMapKeySelector) -> Result<Option<String>> {
        let Some(map) = self.config_map(&selector.name, selector.optional).await? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&selector.key)).cloned();
        self.require("ConfigMap", &selector.name, &selector.key, selector.optional, value)
    }

    async fn secret_value(&mut self, selector: &SecretKeySelector) -> Result<Option<String>> {
        let Some(secret) = self.secret(&selector.name, selector.optional).await? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&selector.key));
        let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
        self.require("Secret", &selector.name, &selector.key, selector.optional, value)
    }

    /// Of a file that another container of the pod has written. One that is not there is an error in any case, as upstream's.
    async fn file_value(&self, selector: &FileKeySelector) -> Result<Option<String>> {
        let FileKeySelector { key, path, volume_name, .. } = selector;
        let content = self.manager.volumes.read_env_file(self.pod, volume_name, path).await;
        let content = content.map_err(|e| format!("env file {path:?} of volume {volume_name:?}: {e}"))?;
        let value = parse_env(&String::from_utf8_lossy(&content), key)
            .map_err(|e| format!("couldn't parse env file {path:?} of volume {volume_name:?}: {e}"))?;
        match (value.is_empty(), selector.optional) {
            (false, _) => Ok(Some(value)),
            (true, Some(true)) => Ok(None),
            (true, _) => Err(format!("environment variable key {key:?} not found in file {path:?}")),
        }
    }

    fn require(
        &self,
        kind: &str,
        name: &str,
        key: &str,
        optional: Option<bool>,
        value: Option<String>,
    ) -> Result<Option<String>> {
        if value.is_none() && optional != Some(true) {
            return Err(format!("couldn't find key {key} in {kind} {}/{name}", self.pod.namespace()));
        }
        Ok(value)
    }

    async fn config_map(&mut self, name: &str, optional: Option<bool>) -> Result<Option<Arc<ConfigMap>>> {
        if let Some(map) = self.config_maps.get(name) {
            return Ok(Some(map.clone()));
        }
        let found = self.manager.objects.config_map(self.pod.namespace(), name).await;
        let found = allow_missing(found, optional)?;
        self.config_maps.extend(found.iter().map(|map| (name.to_owned(), map.clone())));
        Ok(found)
    }

    async fn secret(&mut self, name: &str, optional: Option<bool>) -> Result<Option<Arc<Secret>>> {
        if let Some(secret) = self.secrets.get(name) {
            return Ok(Some(secret.clone()));
        }
        let found = self.manager.objects.secret(self.pod.namespace(), name).await;
        let found = allow_missing(found, optional)?;
        self.secrets.extend(found.iter().map(|secret| (name.to_owned(), secret.clone())));
        Ok(found)
    }
}

fn allow_missing<T>(found: std::result::Result<T, ApiError>, optional: Option<bool>) -> Result<Option<T>> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() && optional == Some(true) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
