//! What is set by flags alone, because it belongs to one node (upstream's `KubeletFlags`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_core::kuberuntime::GcPolicy;

use super::args::KubeletArgs;
use super::duration;
use super::error::ConfigError;
use super::flags::{
    ALLOCATABLE_IGNORE_EVICTION, CERT_DIR, CREDENTIAL_PROVIDER_BIN_DIR, CREDENTIAL_PROVIDER_CONFIG,
    HOSTNAME_OVERRIDE, KUBECONFIG, MAXIMUM_DEAD_CONTAINERS, MAXIMUM_DEAD_CONTAINERS_PER_CONTAINER,
    MINIMUM_CONTAINER_TTL_DURATION, NODE_IP, NODE_LABELS, ROOT_DIR,
};
use super::labels::check_node_labels;
use super::pflag::parts;
use super::wasm_flags::WasmFlags;

/// The checked flags of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletFlags {
    /// How to reach the apiserver; `None` for a node that stands alone.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name: `--hostname-override` or the host's name, in lower case.
    pub node_name: String,
    /// The node's addresses from `--node-ip`: none to choose one, or one, or one of each family. An unspecified address
    /// only says which family to choose.
    pub node_ips: Vec<IpAddr>,
    /// Labels the node is created with.
    pub node_labels: BTreeMap<String, String>,
    /// Where pods, volumes and state are kept; absolute.
    pub root_dir: PathBuf,
    /// Where the self-signed serving certificate is kept; absolute.
    pub cert_dir: PathBuf,
    /// The configuration of credential provider plugins, and where they are; `None` without any.
    pub credential_providers: Option<(PathBuf, PathBuf)>,
    /// Which ended containers are kept.
    pub container_gc: GcPolicy,
    /// Whether the Node also offers what hard thresholds of eviction keep free.
    pub allocatable_ignore_eviction: bool,
    /// Limits of the WebAssembly runtime.
    pub wasm: WasmFlags,
}

impl KubeletFlags {
    /// Reads and checks the flags (`ValidateKubeletFlags`, `ParseNodeIPArgument`, `GetHostname`).
    pub(super) fn from_args(args: &KubeletArgs) -> Result<Self, ConfigError> {
        let node_labels = node_labels(args.values(NODE_LABELS));
        check_node_labels(&node_labels)
            .map_err(|message| ConfigError::Invalid { messages: vec![message] })?;
        let addresses = args.last(NODE_IP).unwrap_or_default();
        let node_ips = node_ips(addresses).map_err(|message| ConfigError::Argument {
            flag: NODE_IP,
            value: addresses.to_owned(),
            message,
        })?;
        Ok(Self {
            kubeconfig: args.path(KUBECONFIG),
            node_name: node_name(args.last(HOSTNAME_OVERRIDE))?,
            node_ips,
            node_labels,
            root_dir: absolute(args.last(ROOT_DIR).unwrap_or("/var/lib/kubelet"))?,
            cert_dir: absolute(args.last(CERT_DIR).unwrap_or("/var/lib/kubelet/pki"))?,
            credential_providers: credential_providers(args)?,
            container_gc: container_gc(args)?,
            allocatable_ignore_eviction: args.own(ALLOCATABLE_IGNORE_EVICTION)?.as_bool().unwrap_or(false),
            wasm: WasmFlags::from_args(args)?,
        })
    }
}

/// `key=value` pairs; a key alone has the empty value, and a later pair replaces an earlier one.
fn node_labels(given: &[String]) -> BTreeMap<String, String> {
    let pairs = given.iter().flat_map(|text| parts(text, ','));
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.trim().to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// One without the other could only fail later.
fn credential_providers(args: &KubeletArgs) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let given = (args.path(CREDENTIAL_PROVIDER_CONFIG), args.path(CREDENTIAL_PROVIDER_BIN_DIR));
    let missing = match given {
        (None, None) => return Ok(None),
        (Some(config), Some(bin_dir)) => return Ok(Some((config, bin_dir))),
        (None, Some(_)) => CREDENTIAL_PROVIDER_CONFIG,
        (Some(_), None) => CREDENTIAL_PROVIDER_BIN_DIR,
    };
    let message =
        format!("--{CREDENTIAL_PROVIDER_CONFIG} and --{CREDENTIAL_PROVIDER_BIN_DIR} belong together");
    Err(ConfigError::Argument { flag: missing, value: String::new(), message })
}

fn node_ips(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = parts(text, ',')
        .map(|part| part.parse::<IpAddr>().map_err(|_| format!("{part:?} is not an IP address")))
        .collect::<Result<Vec<_>, _>>()?;
    match addresses.as_slice() {
        [] | [_] => Ok(addresses),
        [first, second] if first.is_ipv4() != second.is_ipv4() => {
            if first.is_unspecified() || second.is_unspecified() {
                return Err("dual-stack node IP cannot include '0.0.0.0' or '::'".to_owned());
            }
            Ok(addresses)
        }
        _ => Err("must contain either a single IP or a dual-stack pair of IPs".to_owned()),
    }
}

fn node_name(given: Option<&str>) -> Result<String, ConfigError> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => {
            let system = rustix::system::uname();
            system.nodename().to_str().map_err(|error| ConfigError::Hostname(error.to_string()))?.to_owned()
        }
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err(ConfigError::Hostname("empty hostname is invalid".to_owned()));
    }
    Ok(name)
}

fn container_gc(args: &KubeletArgs) -> Result<GcPolicy, ConfigError> {
    let default = GcPolicy::default();
    // A negative number is no limit.
    let limit = |flag, default| {
        let given = args.own(flag)?.as_i64();
        Ok(given.map_or(default, |number| usize::try_from(number).ok()))
    };
    Ok(GcPolicy {
        min_age: min_age(args)?.unwrap_or(default.min_age),
        max_per_pod_container: limit(MAXIMUM_DEAD_CONTAINERS_PER_CONTAINER, default.max_per_pod_container)?,
        max_containers: limit(MAXIMUM_DEAD_CONTAINERS, default.max_containers)?,
    })
}

fn min_age(args: &KubeletArgs) -> Result<Option<Duration>, ConfigError> {
    let given = args.own(MINIMUM_CONTAINER_TTL_DURATION)?;
    let Some(text) = given.as_str() else { return Ok(None) };
    let nanos = duration::parse(text).and_then(|nanos| {
        u64::try_from(nanos).map_err(|_| format!("invalid minimum garbage collection age: {text}"))
    });
    nanos.map(|nanos| Some(Duration::from_nanos(nanos))).map_err(|message| ConfigError::Argument {
        flag: MINIMUM_CONTAINER_TTL_DURATION,
        value: text.to_owned(),
        message,
    })
}

fn absolute(path: &str) -> Result<PathBuf, ConfigError> {
    std::path::absolute(Path::new(path)).map_err(|source| ConfigError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ip_takes_one_address_or_one_of_each_family() {
        assert_eq!(node_ips(""), Ok(vec![]));
        assert_eq!(node_ips("::").map(|ips| ips.len()), Ok(1));
        assert_eq!(node_ips("10.0.0.1, fd00::1").map(|ips| ips.len()), Ok(2));
        for text in ["10.0.0.1,10.0.0.2", "10.0.0.1,::", "host", "10.0.0.1,fd00::1,fd00::2"] {
            assert!(node_ips(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_add_up_and_a_key_may_stand_alone() {
        let given = ["a=1,b".to_owned(), "a=2, c = x=y ,".to_owned()];
        let labels = node_labels(&given);
        let expected = [("a", "2"), ("b", ""), ("c", "x=y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(labels, BTreeMap::from(expected));
    }

    #[test]
    fn the_node_name_is_trimmed_and_in_lower_case() {
        assert_eq!(node_name(Some(" Node-A ")).unwrap(), "node-a");
        assert!(node_name(Some("  ")).is_err());
        assert!(!node_name(None).unwrap().is_empty());
    }
}
