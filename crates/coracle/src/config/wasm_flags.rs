//! Limits of the WebAssembly runtime and its network: flags that upstream does not have.

use std::path::PathBuf;
use std::time::Duration;

use coracle_core::quantity::Quantity;

use super::args::KubeletArgs;
use super::duration;
use super::error::ConfigError;
use super::field::{Kind, Literal, Unset};
use super::flags::{Flag, own};
use super::support::Support::Works;

const DEFAULT_MEMORY_LIMIT: &str = "wasm-default-memory-limit";
const MAX_INSTANCES: &str = "wasm-max-instances";
const GUEST_THREADS: &str = "wasm-guest-threads";
const FILE_THREADS: &str = "wasm-file-threads";
const COMPILE_MEMORY_LIMIT: &str = "wasm-compile-memory-limit";
const COMPILE_TIME_LIMIT: &str = "wasm-compile-time-limit";
const COMPILE_OUTPUT_LIMIT: &str = "wasm-compile-output-limit";
const MAX_LAYER_SIZE: &str = "wasm-max-layer-size";
const MAX_IMAGE_SIZE: &str = "wasm-max-image-size";
const CNI_CONF_DIR: &str = "wasm-cni-conf-dir";
const CNI_BIN_DIR: &str = "wasm-cni-bin-dir";
const DEFAULT_CNI_BIN_DIR: &str = "/opt/cni/bin";

/// What these flags begin with.
pub(super) const PREFIX: &str = "wasm-";

#[rustfmt::skip]
pub(super) static WASM_FLAGS: &[Flag] = &[
    own(DEFAULT_MEMORY_LIMIT, Kind::Quantity, Unset::ZeroMeans(Literal::Str("4Gi")), Works("the memory limit of Wasm containers that set none")),
    own(MAX_INSTANCES, Kind::Int32, Unset::ZeroMeans(Literal::Int(8000)), Works("Wasm programs and requests at a time; each takes 4 GiB of addresses and 7 memory mappings")),
    own(GUEST_THREADS, Kind::Int32, Unset::Zero, Works("threads that run Wasm; 0 is one for each processor")),
    own(FILE_THREADS, Kind::Int32, Unset::ZeroMeans(Literal::Int(64)), Works("threads that wait for files of Wasm containers, for all with the same user; containers with a hostPath have 8 of their own")),
    own(COMPILE_MEMORY_LIMIT, Kind::Quantity, Unset::ZeroMeans(Literal::Str("8Gi")), Works("the address space for compiling one Wasm binary")),
    own(COMPILE_TIME_LIMIT, Kind::Duration, Unset::ZeroMeans(Literal::Str("10m0s")), Works("the time for compiling one Wasm binary, by the clock and of the processor")),
    own(COMPILE_OUTPUT_LIMIT, Kind::Quantity, Unset::ZeroMeans(Literal::Str("1Gi")), Works("the native code of one Wasm binary")),
    own(MAX_LAYER_SIZE, Kind::Quantity, Unset::ZeroMeans(Literal::Str("256Mi")), Works("the largest layer of a Wasm image, and the largest binary in one")),
    own(MAX_IMAGE_SIZE, Kind::Quantity, Unset::ZeroMeans(Literal::Str("1Gi")), Works("the layers of a Wasm image together, packed and unpacked")),
    own(CNI_CONF_DIR, Kind::Path, Unset::Zero, Works("the directory of CNI network configurations; with it, CNI plugins give Wasm pods their addresses, and the node's pod range is not used")),
    own(CNI_BIN_DIR, Kind::Text, Unset::ZeroMeans(Literal::Str(DEFAULT_CNI_BIN_DIR)), Works("where CNI plugins are; several directories with commas between them")),
];

/// The limits of the WebAssembly runtime that were set; none is the runtime's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WasmFlags {
    default_memory_bytes: Option<u64>,
    instances: Option<u32>,
    guest_threads: Option<usize>,
    file_threads: Option<usize>,
    compile_memory_bytes: Option<u64>,
    compile_time: Option<Duration>,
    compile_output_bytes: Option<u64>,
    max_layer_bytes: Option<u64>,
    max_image_bytes: Option<u64>,
    /// Where CNI's network configurations and plugins are; none without CNI.
    pub(crate) cni: Option<(PathBuf, Vec<PathBuf>)>,
}

impl WasmFlags {
    pub(super) fn from_args(args: &KubeletArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            default_memory_bytes: bytes(args, DEFAULT_MEMORY_LIMIT)?,
            instances: number(args, MAX_INSTANCES)?,
            guest_threads: number(args, GUEST_THREADS)?,
            file_threads: number(args, FILE_THREADS)?,
            compile_memory_bytes: bytes(args, COMPILE_MEMORY_LIMIT)?,
            compile_time: time(args, COMPILE_TIME_LIMIT)?,
            compile_output_bytes: bytes(args, COMPILE_OUTPUT_LIMIT)?,
            max_layer_bytes: bytes(args, MAX_LAYER_SIZE)?,
            max_image_bytes: bytes(args, MAX_IMAGE_SIZE)?,
            cni: args.path(CNI_CONF_DIR).map(|conf_dir| (conf_dir, cni_bin_dirs(args))),
        })
    }

    /// Sets what was set.
    pub fn apply(&self, options: &mut coracle_wasm::Options) {
        fn set<T>(option: &mut T, flag: Option<T>) {
            if let Some(value) = flag {
                *option = value;
            }
        }
        set(&mut options.guests.default_memory_bytes, self.default_memory_bytes);
        set(&mut options.guests.instances, self.instances);
        set(&mut options.guests.threads, self.guest_threads);
        set(&mut options.guests.file_threads, self.file_threads);
        set(&mut options.compile.memory_bytes, self.compile_memory_bytes);
        set(&mut options.compile.cpu, self.compile_time);
        set(&mut options.compile.wall, self.compile_time);
        set(&mut options.compile.output_bytes, self.compile_output_bytes);
        set(&mut options.images.max_layer_bytes, self.max_layer_bytes);
        set(&mut options.images.max_image_bytes, self.max_image_bytes);
    }
}

fn cni_bin_dirs(args: &KubeletArgs) -> Vec<PathBuf> {
    let given = args.last(CNI_BIN_DIR).unwrap_or(DEFAULT_CNI_BIN_DIR);
    given.split(',').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect()
}

/// A flag that was given and is not zero, which is the default.
fn checked<T>(
    args: &KubeletArgs,
    flag: &'static str,
    read: impl FnOnce(&serde_json::Value) -> Result<T, String>,
) -> Result<Option<T>, ConfigError>
where
    T: Default + PartialEq,
{
    let given = args.own(flag)?;
    if given.is_null() {
        return Ok(None);
    }
    let value = read(&given).map_err(|message| ConfigError::Argument {
        flag,
        value: args.last(flag).unwrap_or_default().to_owned(),
        message,
    })?;
    Ok(Some(value).filter(|value| *value != T::default()))
}

fn number<T: TryFrom<i64> + Default + PartialEq>(
    args: &KubeletArgs,
    flag: &'static str,
) -> Result<Option<T>, ConfigError> {
    let read = |value: &serde_json::Value| value.as_i64().and_then(|number| T::try_from(number).ok());
    checked(args, flag, |value| read(value).ok_or_else(|| "it must not be negative".to_owned()))
}

fn bytes(args: &KubeletArgs, flag: &'static str) -> Result<Option<u64>, ConfigError> {
    checked(args, flag, |value| {
        let quantity: Quantity =
            value.as_str().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
        u64::try_from(quantity.value()).map_err(|_| "it must not be negative".to_owned())
    })
}

fn time(args: &KubeletArgs, flag: &'static str) -> Result<Option<Duration>, ConfigError> {
    checked(args, flag, |value| {
        let nanos = duration::parse(value.as_str().unwrap_or_default())?;
        u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| "it must not be negative".to_owned())
    })
}
