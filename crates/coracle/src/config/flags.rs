//! Every flag of upstream's `kubelet` v1.37.2, those of configuration fields and those that exist only as flags, and
//! this program's own.

use super::field::{Field, Kind, Literal, Unset};
use super::fields::FIELDS;
use super::support::Support::{self, NoEffect, Refused, Works};
use super::wasm_flags::{PREFIX, WASM_FLAGS};

/// One command line flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The name without dashes. A name of one letter is also the short form.
    pub name: &'static str,
    /// How its value is spelled.
    pub kind: Kind,
    /// The value it has when it is not given.
    pub unset: Unset,
    /// What this program does with it.
    pub support: Support,
    /// The configuration field that it overrides.
    pub field: Option<&'static Field>,
}

impl Flag {
    /// Whether the flag may stand without a value, which then is `true`.
    pub(super) fn is_boolean(&self) -> bool {
        self.kind == Kind::Bool || self.name == VERSION
    }

    /// Whether upstream has it.
    pub fn is_upstreams(&self) -> bool {
        !self.name.starts_with(PREFIX)
    }
}

pub(super) const CONFIG: &str = "config";
pub(super) const CONFIG_DIR: &str = "config-dir";
pub(super) const KUBECONFIG: &str = "kubeconfig";
pub(super) const BOOTSTRAP_KUBECONFIG: &str = "bootstrap-kubeconfig";
pub(super) const HOSTNAME_OVERRIDE: &str = "hostname-override";
pub(super) const NODE_IP: &str = "node-ip";
pub(super) const NODE_LABELS: &str = "node-labels";
pub(super) const ROOT_DIR: &str = "root-dir";
pub(super) const ALLOCATABLE_IGNORE_EVICTION: &str = "experimental-allocatable-ignore-eviction";
pub(super) const CERT_DIR: &str = "cert-dir";
pub(super) const VERSION: &str = "version";
pub(super) const CREDENTIAL_PROVIDER_CONFIG: &str = "image-credential-provider-config";
pub(super) const CREDENTIAL_PROVIDER_BIN_DIR: &str = "image-credential-provider-bin-dir";
pub(super) const MAXIMUM_DEAD_CONTAINERS: &str = "maximum-dead-containers";
pub(super) const MAXIMUM_DEAD_CONTAINERS_PER_CONTAINER: &str = "maximum-dead-containers-per-container";
pub(super) const MINIMUM_CONTAINER_TTL_DURATION: &str = "minimum-container-ttl-duration";

const NO_LOCK: &str = "there is no lock file; let the service manager see to it that one kubelet runs";

pub(super) const fn own(name: &'static str, kind: Kind, unset: Unset, support: Support) -> Flag {
    Flag { name, kind, unset, support, field: None }
}

/// The flags that no configuration field stands for (`KubeletFlags` and the global flags).
#[rustfmt::skip]
static OWN_FLAGS: &[Flag] = &[
    own(CONFIG, Kind::Path, Unset::Zero, Works("the configuration file; flags override it")),
    own(CONFIG_DIR, Kind::Path, Unset::Zero, Works("a directory of *.conf drop-ins over the configuration file")),
    own(KUBECONFIG, Kind::Path, Unset::Zero, Works("how to reach the apiserver; a node without it stands alone and runs static pods only")),
    own(BOOTSTRAP_KUBECONFIG, Kind::Path, Unset::Zero, NoEffect("no client certificate is requested; the file given by --kubeconfig has to exist")),
    own(HOSTNAME_OVERRIDE, Kind::Text, Unset::Zero, Works("the node's name, in place of the host's")),
    own(NODE_IP, Kind::Text, Unset::Zero, Works("the node's address, or an IPv4 and an IPv6 one")),
    own(NODE_LABELS, Kind::TextMap, Unset::Zero, Works("labels the node is created with")),
    own(ROOT_DIR, Kind::Path, Unset::ZeroMeans(Literal::Str("/var/lib/kubelet")), Works("where pods, volumes and state are kept")),
    own(CERT_DIR, Kind::Path, Unset::ZeroMeans(Literal::Str("/var/lib/kubelet/pki")), Works("where the self-signed serving certificate is kept")),
    own(VERSION, Kind::Text, Unset::ZeroMeans(Literal::Str("false")), Works("prints the version and quits")),
    own("cloud-provider", Kind::Text, Unset::Zero, Refused("the node cannot be handed to a cloud controller; set --node-ip, --node-labels and --register-with-taints")),
    own("lock-file", Kind::Path, Unset::Zero, Refused(NO_LOCK)),
    own("exit-on-lock-contention", Kind::Bool, Unset::Zero, Refused(NO_LOCK)),
    own(CREDENTIAL_PROVIDER_CONFIG, Kind::Path, Unset::Zero, Works("a CredentialProviderConfig, or a directory of them: plugins that give registry credentials")),
    own(CREDENTIAL_PROVIDER_BIN_DIR, Kind::Path, Unset::Zero, Works("where the programs of those plugins are")),
    own("runtime-cgroups", Kind::Text, Unset::Zero, NoEffect("there is no container runtime to place")),
    own("seccomp-default", Kind::Bool, Unset::Zero, NoEffect("a Wasm module makes no system calls")),
    own("housekeeping-interval", Kind::Duration, Unset::NilMeans(Literal::Str("1s")), NoEffect("nothing is measured at intervals")),
    own(MAXIMUM_DEAD_CONTAINERS, Kind::Int32, Unset::NilMeans(Literal::Int(-1)), Works("how many ended containers are kept on the node; a negative number is no limit")),
    own(MAXIMUM_DEAD_CONTAINERS_PER_CONTAINER, Kind::Int32, Unset::NilMeans(Literal::Int(1)), Works("how many ended instances of each container of a pod are kept; a negative number is no limit")),
    own(MINIMUM_CONTAINER_TTL_DURATION, Kind::Duration, Unset::Zero, Works("ended containers that were made more recently are kept")),
    own("experimental-mounter-path", Kind::Path, Unset::Zero, NoEffect("volumes are mounted by this program itself")),
    own(ALLOCATABLE_IGNORE_EVICTION, Kind::Bool, Unset::Zero, Works("whether hard thresholds of eviction are not kept from what the Node offers")),
];

/// All flags, sorted by name. `--help` is not among them: the command line parser has it.
pub fn flags() -> Vec<Flag> {
    let of_fields = FIELDS.iter().filter_map(|field| {
        let name = field.flag?;
        Some(Flag { name, kind: field.kind, unset: field.unset, support: field.support, field: Some(field) })
    });
    let mut all: Vec<_> = OWN_FLAGS.iter().chain(WASM_FLAGS).copied().chain(of_fields).collect();
    all.sort_by_key(|flag| flag.name);
    all
}
