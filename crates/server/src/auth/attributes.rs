//! What a request means to do, in the words of a SubjectAccessReview.

use coracle_core::ports::Attributes;
use http::Method;

/// Whether `path` is `prefix` or below it (`isSubpath`).
pub(crate) fn is_subpath(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What has to be allowed for a request: one of these, tried in order (`GetRequestAttributes`). There is at least one,
/// and they differ in their subresource alone.
///
/// The path is taken as it stands in the request, undecoded, because that is what it is routed by: a path cannot be
/// judged as one thing and served as another.
pub(super) fn request_attributes(node_name: &str, method: &Method, path: &str) -> Vec<Attributes> {
    let verb = match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    subresources(path)
        .iter()
        .map(|subresource| Attributes {
            verb: verb.into(),
            resource: "nodes".into(),
            subresource: (*subresource).into(),
            name: node_name.into(),
            path: path.into(),
        })
        .collect()
}

fn subresources(path: &str) -> &'static [&'static str] {
    /// Upstream's table, with the feature `KubeletFineGrainedAuthz` on.
    const BY_PATH: [(&str, &[&str]); 11] = [
        ("/allocatedPods", &["pods", "proxy"]),
        ("/pods", &["pods", "proxy"]),
        ("/runningpods/", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
        ("/stats/", &["stats"]),
        ("/metrics", &["metrics"]),
        ("/logs/", &["log"]),
        ("/checkpoint/", &["checkpoint"]),
        ("/statusz", &["statusz"]),
        ("/flagz", &["configz"]),
    ];
    BY_PATH
        .iter()
        .find(|(prefix, _)| is_subpath(path, prefix))
        .map_or(&["proxy"], |(_, subresources)| subresources)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's `TestIsSubPath`.
    #[test]
    fn subpaths_end_at_slashes() {
        for (path, prefix, expected) in [
            ("", "", true),
            ("foo", "foo", true),
            ("/foo", "/foo", true),
            ("/foo/", "/foo/", true),
            ("/foo/bar", "/foo/bar", true),
            ("/foo", "/", true),
            ("/foo/", "/", true),
            ("/foo/bar", "/", true),
            ("/foo/", "/foo", true),
            ("/foo", "/foo/", true),
            ("/foo/bar", "/foo", true),
            ("/foo", "/bar", false),
            ("/foo", "/foobar", false),
            ("/foobar", "/foo", false),
        ] {
            assert_eq!(is_subpath(path, prefix), expected, "{path} under {prefix}");
        }
    }

    /// Upstream's `AuthzTestCases`.
    #[test]
    fn every_path_has_its_subresources() {
        let cases: [(&str, &[&str]); 34] = [
            ("/attach/{podNamespace}/{podID}/{containerName}", &["proxy"]),
            ("/attach/{podNamespace}/{podID}/{uid}/{containerName}", &["proxy"]),
            ("/checkpoint/{podNamespace}/{podID}/{containerName}", &["checkpoint"]),
            ("/configz", &["configz", "proxy"]),
            ("/flagz", &["configz"]),
            ("/statusz", &["statusz"]),
            ("/containerLogs/{podNamespace}/{podID}/{containerName}", &["proxy"]),
            ("/debug/flags/v", &["proxy"]),
            ("/debug/pprof/{subpath:*}", &["proxy"]),
            ("/exec/{podNamespace}/{podID}/{containerName}", &["proxy"]),
            ("/exec/{podNamespace}/{podID}/{uid}/{containerName}", &["proxy"]),
            ("/healthz", &["healthz", "proxy"]),
            ("/healthz/log", &["healthz", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/healthz/syncloop", &["healthz", "proxy"]),
            ("/logs/", &["log"]),
            ("/logs/{logpath:*}", &["log"]),
            ("/metrics", &["metrics"]),
            ("/metrics/slis", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metrics/probes", &["metrics"]),
            ("/metrics/resource", &["metrics"]),
            ("/pods/", &["pods", "proxy"]),
            ("/allocatedPods", &["pods", "proxy"]),
            ("/portForward/{podNamespace}/{podID}", &["proxy"]),
            ("/portForward/{podNamespace}/{podID}/{uid}", &["proxy"]),
            ("/run/{podNamespace}/{podID}/{containerName}", &["proxy"]),
            ("/run/{podNamespace}/{podID}/{uid}/{containerName}", &["proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/stats/", &["stats"]),
            ("/stats/summary", &["stats"]),
            // Nothing but what the router serves as this path counts as it.
            ("/%70ods", &["proxy"]),
            ("//pods", &["proxy"]),
            ("/podsandmore", &["proxy"]),
        ];
        let verbs = [
            (Method::POST, "create"),
            (Method::GET, "get"),
            (Method::PUT, "update"),
            (Method::PATCH, "patch"),
            (Method::DELETE, "delete"),
            (Method::OPTIONS, ""),
        ];
        for (path, expected) in cases {
            for (method, verb) in &verbs {
                let attributes = request_attributes("test", method, path);
                let subresources: Vec<&str> = attributes.iter().map(|a| a.subresource.as_str()).collect();
                assert_eq!(subresources, expected, "{method} {path}");
                for attribute in attributes {
                    assert_eq!(
                        (attribute.verb.as_str(), attribute.resource.as_str(), attribute.name.as_str()),
                        (*verb, "nodes", "test")
                    );
                    assert_eq!(attribute.path, path);
                }
            }
        }
    }
}
