//! What a pod is called (upstream: `GeneratePodHostNameAndDomain` in `kubelet_pods.go`, `GetNodenameForKernel` in
//! `util/util.go`).

use k8s_openapi::api::core::v1::Pod;

use crate::config::{is_dns_label, is_dns_subdomain};
use crate::pod::PodExt;

/// The longest host name that Linux takes (`hostnameMaxLen`).
const HOSTNAME_MAX: usize = 63;
/// The longest one with a domain (`fqdnMaxLen`).
const FQDN_MAX: usize = 64;

/// A pod's own name and its domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PodHostname {
    /// Without the domain.
    pub(super) hostname: String,
    /// Empty without `spec.subdomain`.
    pub(super) domain: String,
}

impl PodHostname {
    /// Reads it from the spec; the error names the field.
    pub(super) fn of(pod: &Pod, cluster_domain: &str) -> Result<Self, String> {
        let spec = pod.pod_spec();
        if let Some(name) = &spec.hostname_override {
            if !is_dns_subdomain(name) {
                return Err(format!("pod HostnameOverride {name:?} is not a valid DNS subdomain"));
            }
            return Ok(Self { hostname: truncated(pod, name)?, domain: String::new() });
        }
        let label = |field: &str, value: &Option<String>| match value.as_deref().unwrap_or_default() {
            "" => Ok(None),
            label if is_dns_label(label) => Ok(Some(label.to_owned())),
            other if other.len() > HOSTNAME_MAX => Err(format!(
                "pod {field} {other:?} is not a valid DNS label: must be no more than {HOSTNAME_MAX} characters"
            )),
            other => Err(format!("pod {field} {other:?} is not a valid DNS label")),
        };
        let hostname = label("Hostname", &spec.hostname)?;
        let hostname = truncated(pod, hostname.as_deref().unwrap_or(pod.name()))?;
        let subdomain = label("Subdomain", &spec.subdomain)?;
        let domain = subdomain.map(|it| format!("{it}.{}.svc.{cluster_domain}", pod.namespace()));
        Ok(Self { hostname, domain: domain.unwrap_or_default() })
    }

    /// What the kernel is told: with the domain if the pod asks for it (`setHostnameAsFQDN`).
    pub(super) fn for_kernel(&self, as_fqdn: bool) -> Result<String, String> {
        if self.domain.is_empty() || !as_fqdn {
            return Ok(self.hostname.clone());
        }
        let fqdn = format!("{}.{}", self.hostname, self.domain);
        if fqdn.len() > FQDN_MAX {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({FQDN_MAX} \
                 characters is the max, {} characters requested)",
                fqdn.len()
            ));
        }
        Ok(fqdn)
    }
}

/// Cut so that Linux takes it (`truncatePodHostnameIfNeeded`).
fn truncated(pod: &Pod, name: &str) -> Result<String, String> {
    if name.len() <= HOSTNAME_MAX {
        return Ok(name.to_owned());
    }
    let end = (0..=HOSTNAME_MAX).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    match name[..end].trim_end_matches(['-', '.']) {
        "" => Err(format!("hostname for pod {:?} was invalid: {name:?}", pod.name())),
        cut => Ok(cut.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn named(name: &str, spec: Value) -> Result<(String, String), String> {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
        let found = PodHostname::of(&serde_json::from_value(pod).unwrap(), "cluster.local")?;
        Ok((found.hostname, found.domain))
    }

    /// `TestGeneratePodHostNameAndDomain`.
    #[test]
    fn name_and_domain_are_upstreams() {
        let domain = "my-subdomain.default.svc.cluster.local";
        let all =
            json!({ "hostname": "custom", "subdomain": "my-subdomain", "hostnameOverride": "override" });
        let long = "a".repeat(65);
        let cases = [
            ("test-pod", json!({}), ("test-pod", "")),
            ("test-pod", json!({ "hostname": "custom" }), ("custom", "")),
            ("test-pod", json!({ "subdomain": "my-subdomain" }), ("test-pod", domain)),
            ("test-pod", json!({ "hostname": "custom", "subdomain": "my-subdomain" }), ("custom", domain)),
            ("test-pod", all, ("override", "")),
            ("test-pod", json!({ "hostnameOverride": "valid.hostname" }), ("valid.hostname", "")),
            (&long, json!({}), (&long[..63], "")),
        ];
        for (name, spec, (hostname, domain)) in cases {
            assert_eq!(named(name, spec.clone()), Ok((hostname.into(), domain.into())), "{spec}");
        }
        let refused = [
            (
                json!({ "hostnameOverride": "Invalid-!" }),
                "HostnameOverride \"Invalid-!\" is not a valid DNS subdomain",
            ),
            (json!({ "hostname": "Invalid-!" }), "Hostname \"Invalid-!\" is not a valid DNS label"),
            (
                json!({ "subdomain": "invalid_subdomain" }),
                "Subdomain \"invalid_subdomain\" is not a valid DNS label",
            ),
            (json!({ "hostname": &long[..64] }), "must be no more than 63 characters"),
        ];
        for (spec, expected) in refused {
            let error = named("test-pod", spec).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// `TestTruncatePodHostname`.
    #[test]
    fn a_long_name_is_cut_to_a_valid_one() {
        let seven = |times: usize| vec!["1234567"; times].join(".");
        let cases = [
            ("test.pod.hostname".to_owned(), "test.pod.hostname".to_owned()),
            (format!("{}.", seven(9)), seven(8)),
            (format!("{}.123456.1234567.", seven(7)), format!("{}.123456", seven(7))),
            (format!("{}.123456-1234567.", seven(7)), format!("{}.123456", seven(7))),
        ];
        for (name, expected) in cases {
            assert_eq!(named(&name, json!({})), Ok((expected, String::new())));
        }
        assert!(named(&"-".repeat(64), json!({})).unwrap_err().contains("was invalid"));
    }

    /// `TestGetNodenameForKernel`.
    #[test]
    fn the_kernel_is_told_the_domain_where_it_is_asked_for_and_fits() {
        let kernel = |hostname: &str, domain: &str, as_fqdn| {
            PodHostname { hostname: hostname.into(), domain: domain.into() }.for_kernel(as_fqdn)
        };
        let (short, domain) = ("test.pod.hostname", "svc.subdomain.local");
        assert_eq!(kernel(short, "", false).as_deref(), Ok(short));
        assert_eq!(kernel(short, "", true).as_deref(), Ok(short));
        assert_eq!(kernel(short, domain, false).as_deref(), Ok(short));
        assert_eq!(kernel(short, domain, true).as_deref(), Ok("test.pod.hostname.svc.subdomain.local"));
        let long = ["1234567"; 7].join(".");
        assert_eq!(kernel("1234567.1234567", &long, false).as_deref(), Ok("1234567.1234567"));
        assert!(kernel("1234567.1234567", &long, true).unwrap_err().contains("71 characters requested"));
    }
}
