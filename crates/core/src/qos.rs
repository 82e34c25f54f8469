//! The quality-of-service class of a pod (upstream: `pkg/apis/core/v1/helper/qos`).

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::fieldpath::ResourceList;
use crate::pod::PodExt;
use crate::quantity::Quantity;

const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// What the apiserver has decided, else what it would (`GetPodQOS`).
pub fn pod_qos(pod: &Pod) -> String {
    if let Some(class) = pod.pod_status().qos_class.as_ref().filter(|c| !c.is_empty()) {
        return class.clone();
    }
    if let Some(own) = &pod.pod_spec().resources
        && own.requests.is_some() | own.limits.is_some()
    {
        return requirements_qos(Some(own)).to_owned();
    }
    let mut containers = pod.init_containers().iter().chain(pod.containers());
    let Some(first) = containers.next() else { return "BestEffort".to_owned() };
    let class = requirements_qos(first.resources.as_ref());
    let same = containers.all(|c| requirements_qos(c.resources.as_ref()) == class);
    if same { class } else { "Burstable" }.to_owned()
}

fn requirements_qos(requirements: Option<&ResourceRequirements>) -> &'static str {
    let amount = |list: Option<&ResourceList>, name: &str| {
        list.and_then(|l| l.get(name)).and_then(|q| Quantity::try_from(q).ok()).filter(|q| !q.is_zero())
    };
    let requests = |name| amount(requirements.and_then(|r| r.requests.as_ref()), name);
    let limits = |name| amount(requirements.and_then(|r| r.limits.as_ref()), name);
    if RESOURCES.iter().all(|r| requests(r).is_none() && limits(r).is_none()) {
        return "BestEffort";
    }
    let guaranteed = RESOURCES.iter().all(|r| match (requests(r), limits(r)) {
        (Some(request), Some(limit)) => request == limit,
        // The apiserver fills absent requests in from limits; manifests from disk have not been there.
        (None, limit) => limit.is_some(),
        (Some(_), None) => false,
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}
