//! What `fieldRef` and `resourceFieldRef` select of a pod (`pkg/fieldpath`, `pkg/api/v1/resource/helpers.go`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::quantity::{Quantity, QuantityError};

/// Resources by name, as in `limits`, `requests` and `status.allocatable`.
pub type ResourceList = BTreeMap<String, ApiQuantity>;

/// Why a selector selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldPathError {
    /// There is no such field, or it is not offered.
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    /// The field is no map.
    #[error("fieldPath {0:?} does not support subscript")]
    NoSubscript(String),
    /// The key in brackets is not one that a label or annotation can have.
    #[error("invalid key subscript in {path}: {reason}")]
    InvalidKey {
        /// The whole path.
        path: String,
        /// What is wrong with the key.
        reason: &'static str,
    },
    /// The pod has no container of this name.
    #[error("container {0} not found")]
    NoContainer(String),
    /// There is no such resource, or it is not offered.
    #[error("unsupported container resource: {0}")]
    UnsupportedResource(String),
    /// A quantity of the pod or of the node cannot be read.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

/// The value of a metadata field (`ExtractFieldPathAsString`). Fields that need a running pod (`status.podIP`, …) are
/// offered to the environment only, and not here.
pub fn extract_field_path_as_string(pod: &Pod, field_path: &str) -> Result<String, FieldPathError> {
    let metadata = &pod.metadata;
    if let Some((path, key)) = split_maybe_subscripted_path(field_path) {
        let (map, key_to_validate) = match path {
            "metadata.annotations" => (&metadata.annotations, key.to_lowercase()),
            "metadata.labels" => (&metadata.labels, key.to_owned()),
            _ => return Err(FieldPathError::NoSubscript(field_path.to_owned())),
        };
        validate_qualified_name(&key_to_validate)
            .map_err(|reason| FieldPathError::InvalidKey { path: field_path.to_owned(), reason })?;
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    match field_path {
        "metadata.annotations" => Ok(metadata.annotations.as_ref().map(format_map).unwrap_or_default()),
        "metadata.labels" => Ok(metadata.labels.as_ref().map(format_map).unwrap_or_default()),
        "metadata.name" => Ok(metadata.name.clone().unwrap_or_default()),
        "metadata.namespace" => Ok(metadata.namespace.clone().unwrap_or_default()),
        "metadata.uid" => Ok(metadata.uid.clone().unwrap_or_default()),
        _ => Err(FieldPathError::UnsupportedField(field_path.to_owned())),
    }
}

/// Splits `metadata.labels['key']` into the path and the key; none if there is no subscript
/// (`SplitMaybeSubscriptedPath`).
pub fn split_maybe_subscripted_path(field_path: &str) -> Option<(&str, &str)> {
    let (path, key) = field_path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// A map as lines of `key="value"`, sorted by key (`FormatMap`).
pub fn format_map(map: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (key, value) in map {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(key);
        out.push('=');
        push_quoted(&mut out, value);
    }
    out
}

/// Quotes a text as Go's `strconv.Quote` does.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\x07' => out.write_str("\\a"),
            '\x08' => out.write_str("\\b"),
            '\x0c' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\x0b' => out.write_str("\\v"),
            c if is_printable(c) => out.write_char(c),
            c if c.is_ascii() => write!(out, "\\x{:02x}", c as u32),
            c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32),
            c => write!(out, "\\U{:08x}", c as u32),
        };
    }
    out.push('"');
}

/// Go's `unicode.IsPrint`. The standard library shows the same distinction only through `escape_debug`, which leaves
/// a printable character alone; a letter goes first because a leading combining mark would be escaped too.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && format!("a{c}").escape_debug().count() == 2)
}

/// `validation.IsQualifiedName`: an optional DNS subdomain and a slash, then a name of at most 63 characters.
pub(crate) fn validate_qualified_name(value: &str) -> Result<(), &'static str> {
    let name = match value.split_once('/') {
        Some((prefix, name)) => {
            if !is_dns1123_subdomain(prefix) {
                return Err("the prefix must be a lower-case DNS subdomain of at most 253 characters");
            }
            name
        }
        None => value,
    };
    let is_edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let fits = bytes.len() <= 63
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    if fits {
        Ok(())
    } else {
        Err("the name must be 1 to 63 letters, digits, '-', '_' or '.', with a letter or digit at either end")
    }
}

fn is_dns1123_subdomain(value: &str) -> bool {
    let is_alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    value.len() <= 253
        && value.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(is_alphanumeric)
                && bytes.last().is_some_and(is_alphanumeric)
                && bytes.iter().all(|b| is_alphanumeric(b) || *b == b'-')
        })
}

/// The value of a `resourceFieldRef`. The container is the one that the selector names, else the one of that name
/// (`ExtractResourceValueByContainerNameAndNodeAllocatable`). A limit that the container does not have is taken from
/// `default_limits`: the node's allocatable resources, or [`default_limits_for_downward_api`].
pub fn extract_resource_value(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    container_name: &str,
    default_limits: &ResourceList,
) -> Result<String, FieldPathError> {
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(container_name);
    let container = find_container(pod, name).ok_or_else(|| FieldPathError::NoContainer(name.to_owned()))?;
    extract_container_resource_value(selector, container, default_limits)
}

/// The value of a `resourceFieldRef` in a known container, in units of the divisor, rounded up
/// (`ExtractContainerResourceValue`).
pub fn extract_container_resource_value(
    selector: &ResourceFieldSelector,
    container: &Container,
    default_limits: &ResourceList,
) -> Result<String, FieldPathError> {
    let unsupported = || FieldPathError::UnsupportedResource(selector.resource.clone());
    let (group, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let is_basic = matches!(resource, "cpu" | "memory" | "ephemeral-storage");
    if !is_basic && !resource.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let requirements = container.resources.as_ref();
    let amount = match group {
        "requests" => quantity_of(requirements.and_then(|r| r.requests.as_ref()), resource)?,
        "limits" => {
            let limit = quantity_of(requirements.and_then(|r| r.limits.as_ref()), resource)?;
            // Huge pages are never overcommitted: there a limit is always set.
            if limit.is_zero() && is_basic { quantity_of(Some(default_limits), resource)? } else { limit }
        }
        _ => return Err(unsupported()),
    };
    let divisor = match &selector.divisor {
        Some(divisor) => Quantity::try_from(divisor)?,
        None => Quantity::ZERO,
    };
    let divisor = if divisor.is_zero() { Quantity::parse("1")? } else { divisor };
    let (amount, divisor) = if resource == "cpu" {
        (amount.milli_value(), divisor.milli_value())
    } else {
        (amount.value(), divisor.value())
    };
    Ok(divide_rounding_up(amount.into(), divisor.into()).to_string())
}

/// The limits that a container without limits of its own is told in its environment: the pod's, and the node's
/// allocatable resources where the pod has none (`defaultPodLimitsForDownwardAPI`).
pub fn default_limits_for_downward_api(
    pod: &Pod,
    allocatable: &ResourceList,
) -> Result<ResourceList, FieldPathError> {
    let pod_limits =
        pod.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|resources| resources.limits.as_ref());
    let mut limits = allocatable.clone();
    for resource in ["cpu", "memory"] {
        let limit = quantity_of(pod_limits, resource)?;
        if let Some(default) = limits.get_mut(resource).filter(|_| !limit.is_zero()) {
            *default = limit.into();
        }
    }
    Ok(limits)
}

fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

fn quantity_of(resources: Option<&ResourceList>, name: &str) -> Result<Quantity, QuantityError> {
    resources.and_then(|r| r.get(name)).map_or(Ok(Quantity::ZERO), Quantity::try_from)
}

fn divide_rounding_up(amount: i128, divisor: i128) -> i128 {
    let rounds_up = amount % divisor != 0 && (amount < 0) == (divisor < 0);
    amount / divisor + i128::from(rounds_up)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn resources(entries: &[(&str, &str)]) -> ResourceList {
        entries.iter().map(|(k, v)| ((*k).to_owned(), ApiQuantity((*v).to_owned()))).collect()
    }

    fn container(name: &str, requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        Container {
            name: name.into(),
            resources: Some(ResourceRequirements {
                requests: Some(resources(requests)),
                limits: Some(resources(limits)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn pod() -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("shop".into()),
                uid: Some("b70b3269-858e-12a8-9cf2-1232a194038a".into()),
                labels: Some(map(&[("b", "2"), ("a", "1"), ("example.com/tier", "front")])),
                annotations: Some(map(&[("Www.example.com/test", "1"), ("note", "line\n\"two\"\\")])),
                ..Default::default()
            },
            spec: Some(PodSpec {
                containers: vec![container(
                    "main",
                    &[("cpu", "100m"), ("memory", "64Mi"), ("hugepages-2Mi", "4Mi")],
                    &[("cpu", "1500m"), ("memory", "100M"), ("hugepages-2Mi", "4Mi")],
                )],
                init_containers: Some(vec![container("init", &[], &[])]),
                ..Default::default()
            }),
            status: None,
        }
    }

    #[test]
    fn selects_metadata() {
        let table = [
            ("metadata.name", "web"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "b70b3269-858e-12a8-9cf2-1232a194038a"),
            ("metadata.labels", "a=\"1\"\nb=\"2\"\nexample.com/tier=\"front\""),
            ("metadata.annotations", "Www.example.com/test=\"1\"\nnote=\"line\\n\\\"two\\\"\\\\\""),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['example.com/tier']", "front"),
            ("metadata.labels['absent']", ""),
            ("metadata.annotations['Www.example.com/test']", "1"),
        ];
        for (path, expected) in table {
            assert_eq!(extract_field_path_as_string(&pod(), path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn names_what_it_cannot_select() {
        let table = [
            ("metadata.whoops", "unsupported fieldPath: metadata.whoops"),
            ("spec.nodeName", "unsupported fieldPath: spec.nodeName"),
            (
                "metadata.annotations['invalid~key']",
                "invalid key subscript in metadata.annotations['invalid~key']",
            ),
            ("metadata.labels['Www.example.com/test']", "invalid key subscript in metadata.labels"),
            ("metadata.labels['']", "invalid key subscript in metadata.labels['']"),
            ("metadata.labels['/a']", "invalid key subscript"),
            ("metadata.labels['a/b/c']", "invalid key subscript"),
            ("metadata.other['a']", "fieldPath \"metadata.other['a']\" does not support subscript"),
        ];
        for (path, expected) in table {
            let message = extract_field_path_as_string(&pod(), path).unwrap_err().to_string();
            assert!(message.contains(expected), "{path}: {message}");
        }
    }

    #[test]
    fn splits_subscripts_as_upstream() {
        let table = [
            ("metadata.annotations['key']", Some(("metadata.annotations", "key"))),
            ("metadata.annotations['a[b']c']", Some(("metadata.annotations", "a[b']c"))),
            ("metadata.labels['['key']", Some(("metadata.labels", "['key"))),
            ("metadata.labels['key']']", Some(("metadata.labels", "key']"))),
            ("metadata.labels['']", Some(("metadata.labels", ""))),
            ("metadata.labels[' ']", Some(("metadata.labels", " "))),
            ("metadata.labels[ 'key' ]", None),
            ("metadata.labels[]", None),
            ("metadata.labels[']", None),
            ("metadata.labels['key']foo", None),
            ("['key']", None),
            ("metadata.labels", None),
        ];
        for (path, expected) in table {
            assert_eq!(split_maybe_subscripted_path(path), expected, "{path}");
        }
    }

    #[test]
    fn quotes_as_go_does() {
        let table = [
            ("plain é 日本 ~", "plain é 日本 ~"),
            ("\x07\x08\x0c\n\r\t\x0b", "\\a\\b\\f\\n\\r\\t\\v"),
            ("\0\x1b\x7f", "\\x00\\x1b\\x7f"),
            ("'", "'"),
            ("\u{a0}\u{200b}\u{ad}", "\\u00a0\\u200b\\u00ad"),
            ("e\u{301}", "e\u{301}"),
            ("\u{1f600}\u{e0001}", "\u{1f600}\\U000e0001"),
        ];
        for (text, expected) in table {
            assert_eq!(format_map(&map(&[("k", text)])), format!("k=\"{expected}\""));
        }
    }

    #[test]
    fn selects_resources() {
        let allocatable = resources(&[("cpu", "3920m"), ("memory", "7Gi"), ("ephemeral-storage", "100Gi")]);
        let table = [
            ("main", "limits.cpu", "", "2"),
            ("main", "limits.cpu", "1m", "1500"),
            ("main", "requests.cpu", "1", "1"),
            ("main", "requests.cpu", "1m", "100"),
            ("main", "limits.memory", "", "100000000"),
            ("main", "limits.memory", "1Mi", "96"),
            ("main", "requests.memory", "1Ki", "65536"),
            ("main", "limits.ephemeral-storage", "1Gi", "100"),
            ("main", "requests.ephemeral-storage", "0", "0"),
            ("main", "limits.hugepages-2Mi", "1Mi", "4"),
            ("main", "requests.hugepages-1Gi", "", "0"),
            ("init", "limits.cpu", "", "4"),
            ("init", "limits.memory", "1Gi", "7"),
            ("init", "limits.hugepages-2Mi", "", "0"),
            ("init", "requests.memory", "", "0"),
        ];
        for (container, resource, divisor, expected) in table {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: (!divisor.is_empty()).then(|| ApiQuantity(divisor.into())),
                resource: resource.into(),
            };
            let value = extract_resource_value(&selector, &pod(), container, &allocatable);
            assert_eq!(value.as_deref(), Ok(expected), "{container} {resource} / {divisor:?}");
        }
    }

    #[test]
    fn the_selector_names_the_container_first() {
        let selector = ResourceFieldSelector {
            container_name: Some("main".into()),
            divisor: None,
            resource: "limits.memory".into(),
        };
        let value = extract_resource_value(&selector, &pod(), "init", &ResourceList::new());
        assert_eq!(value.as_deref(), Ok("100000000"));
    }

    #[test]
    fn names_resources_that_do_not_exist() {
        let select = |container: &str, resource: &str| {
            let selector = ResourceFieldSelector { resource: resource.into(), ..Default::default() };
            extract_resource_value(&selector, &pod(), container, &ResourceList::new())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(select("main", "limits.gpu"), "unsupported container resource: limits.gpu");
        assert_eq!(select("main", "limits"), "unsupported container resource: limits");
        assert_eq!(select("main", "claims.cpu"), "unsupported container resource: claims.cpu");
        assert_eq!(select("other", "limits.cpu"), "container other not found");
    }

    #[test]
    fn pod_level_limits_go_before_the_nodes() {
        let allocatable = resources(&[("cpu", "4"), ("memory", "7Gi"), ("ephemeral-storage", "100Gi")]);
        let mut pod = pod();
        assert_eq!(default_limits_for_downward_api(&pod, &allocatable), Ok(allocatable.clone()));
        pod.spec.as_mut().unwrap().resources = Some(ResourceRequirements {
            limits: Some(resources(&[("memory", "512Mi"), ("cpu", "0"), ("ephemeral-storage", "1Gi")])),
            ..Default::default()
        });
        let expected = resources(&[("cpu", "4"), ("memory", "512Mi"), ("ephemeral-storage", "100Gi")]);
        assert_eq!(default_limits_for_downward_api(&pod, &allocatable), Ok(expected));
    }
}
