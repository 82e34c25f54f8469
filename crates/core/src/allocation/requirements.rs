//! Comparing resource requirements.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::fieldpath::ResourceList;
use crate::quantity::{Format, Quantity};

/// What of a container, or of a pod as a whole, can be changed while it runs (`resourceRequirements` in
/// `kuberuntime_manager.go`). Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// In thousandths of a core.
    pub cpu_limit: i64,
    /// In thousandths of a core.
    pub cpu_request: i64,
    /// In bytes.
    pub memory_limit: i64,
    /// In bytes.
    pub memory_request: i64,
}

impl Amounts {
    /// Of a pod as a whole (`podResourcesFromRequirements`).
    pub fn of_pod(own: Option<&ResourceRequirements>) -> Self {
        own.map(Self::read).unwrap_or_default()
    }

    /// Of a container; where it has no limit, the pod's holds (`containerResourcesFromRequirements`).
    pub fn of_container(
        pod_level: Option<&ResourceRequirements>,
        container: Option<&ResourceRequirements>,
    ) -> Self {
        let own = container.map(Self::read).unwrap_or_default();
        let pod = Self::of_pod(pod_level);
        let or = |limit: i64, pod: i64| if limit == 0 { pod } else { limit };
        Self {
            cpu_limit: or(own.cpu_limit, pod.cpu_limit),
            memory_limit: or(own.memory_limit, pod.memory_limit),
            ..own
        }
    }

    fn read(requirements: &ResourceRequirements) -> Self {
        let (limits, requests) = (requirements.limits.as_ref(), requirements.requests.as_ref());
        Self {
            cpu_limit: quantity(limits, "cpu").milli_value(),
            cpu_request: quantity(requests, "cpu").milli_value(),
            memory_limit: quantity(limits, "memory").value(),
            memory_request: quantity(requests, "memory").value(),
        }
    }

    /// In the API's form, as upstream writes down what a runtime was told: all four, zeros included.
    pub fn to_requirements(self) -> ResourceRequirements {
        let list = |cpu, memory| {
            ResourceList::from([
                ("cpu".to_owned(), Quantity::new_milli(cpu, Format::DecimalSi).into()),
                ("memory".to_owned(), Quantity::new(memory, Format::BinarySi).into()),
            ])
        };
        ResourceRequirements {
            limits: Some(list(self.cpu_limit, self.memory_limit)),
            requests: Some(list(self.cpu_request, self.memory_request)),
            claims: None,
        }
    }
}

/// An amount of a list; zero if it is not named or does not parse.
fn quantity(list: Option<&ResourceList>, name: &str) -> Quantity {
    let found = list.and_then(|l| l.get(name));
    found.and_then(|q| Quantity::try_from(q).ok()).unwrap_or(Quantity::ZERO)
}

/// The limits of a container, with the pod's where it has none of its own (`GetLimits` in `pkg/kubelet/util`).
pub fn effective_limits(
    pod_level: Option<&ResourceRequirements>,
    container: Option<&ResourceRequirements>,
) -> ResourceList {
    let own = container.and_then(|r| r.limits.clone());
    let mut limits = own.unwrap_or_default();
    let pod_limits = pod_level.and_then(|r| r.limits.as_ref());
    for name in ["cpu", "memory"] {
        if quantity(Some(&limits), name).is_zero()
            && let Some(limit) = pod_limits.and_then(|l| l.get(name))
            && !quantity(pod_limits, name).is_zero()
        {
            limits.insert(name.to_owned(), limit.clone());
        }
    }
    limits
}

/// Whether two requirements mean the same: notation does not count, and empty is none (`Semantic.DeepEqual`).
pub fn requirements_equal(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let lists = |r: Option<&ResourceRequirements>| {
        r.map(|r| (r.limits.clone().unwrap_or_default(), r.requests.clone().unwrap_or_default()))
    };
    let claims = |r: Option<&ResourceRequirements>| r.and_then(|r| r.claims.clone()).unwrap_or_default();
    let ((a_limits, a_requests), (b_limits, b_requests)) =
        (lists(a).unwrap_or_default(), lists(b).unwrap_or_default());
    lists_equal(&a_limits, &b_limits) && lists_equal(&a_requests, &b_requests) && claims(a) == claims(b)
}

fn lists_equal(a: &ResourceList, b: &ResourceList) -> bool {
    let same = |a: &ApiQuantity, b: &ApiQuantity| match (Quantity::try_from(a), Quantity::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    a.len() == b.len() && a.iter().all(|(name, amount)| b.get(name).is_some_and(|other| same(amount, other)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requirements(value: Value) -> ResourceRequirements {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn notation_does_not_count_and_empty_is_none() {
        let half = requirements(json!({"limits": {"cpu": "500m"}, "requests": {}}));
        let same = requirements(json!({"limits": {"cpu": "0.5"}}));
        let more = requirements(json!({"limits": {"cpu": "0.5", "memory": "0"}}));
        assert!(requirements_equal(Some(&half), Some(&same)));
        assert!(!requirements_equal(Some(&half), Some(&more)), "a limit of zero is named");
        assert!(requirements_equal(None, Some(&ResourceRequirements::default())));
        assert!(!requirements_equal(None, Some(&half)));
    }

    #[test]
    fn the_pods_limits_hold_for_containers_without_their_own() {
        let pod = requirements(json!({"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "500m"}}));
        let own = requirements(json!({"limits": {"cpu": "200m"}, "requests": {"memory": "1000"}}));
        let amounts = Amounts::of_container(Some(&pod), Some(&own));
        let expected =
            Amounts { cpu_limit: 200, cpu_request: 0, memory_limit: 1 << 20, memory_request: 1000 };
        assert_eq!(amounts, expected);
        let limits = effective_limits(Some(&pod), Some(&own));
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("200m", "1Mi"));
        assert_eq!(Amounts::of_container(None, Some(&amounts.to_requirements())), amounts);
        assert!(effective_limits(None, None).is_empty());
    }
}
