//! The few REST calls that the adapters make, on typed objects.

use coracle_core::ports::ApiError;
use kube::Resource;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::ApiClient;

/// A kind that is known when this is compiled.
pub(crate) trait Object:
    Resource<DynamicType = ()> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static
{
}

/// The collection of a kind, in a namespace or of the cluster.
pub(crate) fn collection<K: Object>(namespace: Option<&str>) -> Request {
    Request::new(K::url_path(&(), namespace))
}

/// A request that cannot be built, such as one for an object without a name.
pub(crate) fn unbuildable(error: kube::core::request::Error) -> ApiError {
    ApiError::Invalid(error.to_string())
}

impl ApiClient {
    /// Reads an object, with the guarantee of the store that it is the newest.
    pub(crate) async fn get<K: Object>(&self, namespace: Option<&str>, name: &str) -> Result<K, ApiError> {
        let request = collection::<K>(namespace).get(name, &GetParams::default()).map_err(unbuildable)?;
        self.call(request).await
    }

    /// Creates an object.
    pub(crate) async fn create<K: Object>(&self, namespace: Option<&str>, object: &K) -> Result<K, ApiError> {
        let request = collection::<K>(namespace)
            .create(&PostParams::default(), encode(object)?)
            .map_err(unbuildable)?;
        self.call(request).await
    }

    /// Replaces an object; its `resourceVersion` says what it replaces.
    pub(crate) async fn replace<K: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        object: &K,
    ) -> Result<K, ApiError> {
        let request = collection::<K>(namespace)
            .replace(name, &PostParams::default(), encode(object)?)
            .map_err(unbuildable)?;
        self.call(request).await
    }

    /// Changes an object by a strategic merge patch.
    pub(crate) async fn patch<K: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<K, ApiError> {
        let request = collection::<K>(namespace)
            .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
            .map_err(unbuildable)?;
        self.call(request).await
    }

    /// Changes the status of an object by a strategic merge patch.
    pub(crate) async fn patch_status<K: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<K, ApiError> {
        let request = collection::<K>(namespace)
            .patch_subresource("status", name, &PatchParams::default(), &Patch::Strategic(patch))
            .map_err(unbuildable)?;
        self.call(request).await
    }
}

/// An object as the body of a request.
pub(crate) fn encode(object: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(object).map_err(|e| ApiError::Invalid(format!("cannot be encoded: {e}")))
}
