//! What the API tells of this kubelet besides its pods.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_core::machine::{FileSystem, MachineInfo, NodeUsage};
use coracle_core::ports::NodeUsageSource;
use jiff::Timestamp;
use prometheus::proto::MetricFamily;
use serde_json::Value;

/// Where more metrics come from, for `/metrics`.
pub type MetricsSource = Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;
/// Changes how much is logged, by the text of a number (`-v`).
pub type SetVerbosity = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Whether an address is one of this machine's.
pub type IsOwnAddress = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What the API tells of this kubelet besides its pods.
#[derive(Clone)]
pub struct About {
    /// The name of the node.
    pub node_name: String,
    /// What this kubelet says its version is: `v1.37.2+…`.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// The `KubeletConfiguration` in force, for `/configz`.
    pub configuration: Value,
    /// All flags with their values, for `/flagz`.
    pub flags: BTreeMap<String, String>,
    /// The machine.
    pub machine: MachineInfo,
    /// What the machine uses.
    pub node_usage: Arc<dyn NodeUsageSource>,
    /// More metrics.
    pub metrics: Vec<MetricsSource>,
    /// Where runtimes may have sessions served: connections go nowhere else.
    pub is_own_address: IsOwnAddress,
    /// Whether profiles are refused as switched off (`enableProfilingHandler: false`), not as missing.
    pub profiling_is_off: bool,
    /// The folder that `/logs/` shows (`enableSystemLogHandler`); none refuses it.
    pub system_logs: Option<PathBuf>,
    /// Behind `/debug/flags/v` (`enableDebugFlagsHandler`); none refuses it.
    pub set_verbosity: Option<SetVerbosity>,
}

/// Nothing is known: for tests, and for servers that show nothing of it.
impl Default for About {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            version: String::new(),
            started_at: Timestamp::now(),
            configuration: Value::Null,
            flags: BTreeMap::new(),
            machine: MachineInfo::default(),
            node_usage: Arc::new(Unknown),
            metrics: Vec::new(),
            is_own_address: Arc::new(|address| address.is_loopback()),
            profiling_is_off: false,
            system_logs: None,
            set_verbosity: None,
        }
    }
}

/// Not the values: they may be many.
impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

struct Unknown;

impl NodeUsageSource for Unknown {
    fn node_usage(&self) -> Result<NodeUsage, String> {
        Err("nobody measures this node".to_owned())
    }

    fn file_system(&self, _folder: &Path) -> Result<FileSystem, String> {
        Err("nobody measures this node".to_owned())
    }
}
