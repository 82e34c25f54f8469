//! Gets what payload volumes are made from: ConfigMaps, Secrets, fields of the pod, tokens.

use std::sync::Arc;

use coracle_core::fieldpath::{ResourceList, extract_field_path_as_string, extract_resource_value};
use coracle_core::pod::PodExt;
use coracle_core::ports::{ApiError, ObjectReader, VolumeError};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::error::combine;
use crate::retry::until_related;
use crate::spec::{SourceSpec, VolumeSpec};
use crate::token::{Token, TokenKey, TokenManager};

/// The content of one source. An object is absent if it does not exist and need not.
pub(crate) enum Content {
    ConfigMap(Option<Arc<ConfigMap>>),
    Secret(Option<Arc<Secret>>),
    /// One value for each item.
    Fields(Vec<String>),
    Token(Arc<Token>),
}

/// What tells whether a source's content has changed, without keeping the content itself.
pub(crate) enum Version {
    Absent,
    Object {
        uid: Option<String>,
        resource_version: String,
    },
    /// An object without a resource version: only the files tell.
    Unknown,
    Fields(Vec<String>),
    Token(Arc<Token>),
}

impl Content {
    /// The version of this content.
    pub(crate) fn version(&self) -> Version {
        match self {
            Self::ConfigMap(None) | Self::Secret(None) => Version::Absent,
            Self::ConfigMap(Some(object)) => Version::of_object(&object.metadata),
            Self::Secret(Some(object)) => Version::of_object(&object.metadata),
            Self::Fields(values) => Version::Fields(values.clone()),
            Self::Token(token) => Version::Token(token.clone()),
        }
    }
}

impl Version {
    fn of_object(metadata: &ObjectMeta) -> Self {
        match &metadata.resource_version {
            Some(resource_version) => {
                Self::Object { uid: metadata.uid.clone(), resource_version: resource_version.clone() }
            }
            None => Self::Unknown,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (
                Self::Object { uid, resource_version },
                Self::Object { uid: other_uid, resource_version: other_version },
            ) => resource_version == other_version && uid == other_uid,
            (Self::Fields(values), Self::Fields(others)) => values == others,
            (Self::Token(token), Self::Token(other)) => Arc::ptr_eq(token, other),
            _ => false,
        }
    }
}

/// Whether content of these versions is certainly the same.
pub(crate) fn is_same(left: &[Version], right: &[Version]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is_same(right))
}

/// Where content comes from.
pub(crate) struct Sources {
    pub(crate) objects: Arc<dyn ObjectReader>,
    pub(crate) tokens: TokenManager,
    /// What a container without limits is told that it has.
    pub(crate) node_allocatable: Box<dyn Fn() -> ResourceList + Send + Sync>,
}

impl Sources {
    /// The content of all sources of a volume, looked up at once. The error has all reasons.
    pub(crate) async fn collect(
        &self,
        pod: &Pod,
        volume: &VolumeSpec<'_>,
    ) -> Result<Vec<Content>, VolumeError> {
        let VolumeSpec::Payload(volume) = volume else { return Ok(Vec::new()) };
        let results = join_all(volume.sources.iter().map(|source| self.get(pod, source))).await;
        let mut contents = Vec::with_capacity(results.len());
        let mut errors = Vec::new();
        for result in results {
            match result {
                Ok(content) => contents.push(content),
                Err(error) => errors.push(error),
            }
        }
        combine(errors).map(|()| contents)
    }

    async fn get(&self, pod: &Pod, source: &SourceSpec<'_>) -> Result<Content, VolumeError> {
        let namespace = pod.namespace();
        match source {
            SourceSpec::ConfigMap(source) => {
                let result = until_related(|| self.objects.config_map(namespace, source.name)).await;
                found(result, source.optional)
                    .map(Content::ConfigMap)
                    .map_err(|error| unavailable("configMap", source.name, error))
            }
            SourceSpec::Secret(source) => {
                let result = until_related(|| self.objects.secret(namespace, source.name)).await;
                found(result, source.optional)
                    .map(Content::Secret)
                    .map_err(|error| unavailable("secret", source.name, error))
            }
            SourceSpec::DownwardApi(items) => {
                items.iter().map(|item| self.field(pod, item)).collect::<Result<_, _>>().map(Content::Fields)
            }
            SourceSpec::ServiceAccountToken(projection) => {
                let key = TokenKey::new(pod, projection);
                self.tokens.get_service_account_token(pod, key).await.map(Content::Token)
            }
        }
    }

    fn field(&self, pod: &Pod, item: &DownwardAPIVolumeFile) -> Result<String, VolumeError> {
        let value = if let Some(selector) = &item.field_ref {
            extract_field_path_as_string(pod, &selector.field_path)
        } else if let Some(selector) = &item.resource_field_ref {
            extract_resource_value(selector, pod, "", &(self.node_allocatable)())
        } else {
            Ok(String::new())
        };
        value.map_err(|error| VolumeError::Invalid(format!("{}: {error}", item.path)))
    }
}

fn found<T>(result: Result<T, ApiError>, optional: bool) -> Result<Option<T>, ApiError> {
    match result {
        Err(error) if optional && error.is_not_found() => Ok(None),
        result => result.map(Some),
    }
}

fn unavailable(kind: &str, name: &str, error: ApiError) -> VolumeError {
    VolumeError::NotReady(match error {
        // Says itself what is not there.
        ApiError::NotFound(message) => message,
        error => format!("cannot get {kind} {name:?}: {error}"),
    })
}
