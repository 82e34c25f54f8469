//! What the rest of the provider gets from an image.

use std::path::PathBuf;

/// An image that is present and prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// `Image.id`: the digest of the image's manifest.
    pub manifest_digest: String,
    /// The program.
    pub wasm: WasmBlob,
    /// How the image wants it to be run.
    pub config: ImageConfig,
    /// It is a file of a container image: the first word of the command line names it. Otherwise that word is only
    /// what the program is called.
    pub is_named: bool,
}

/// A Wasm binary on disk. The file never changes while an image needs it; it may be unlinked after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmBlob {
    /// `sha256:…` of the binary itself, however it was packed.
    pub digest: String,
    /// Where it lies; readable by the owner only.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: WasmKind,
}

/// The two kinds of Wasm binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasmKind {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// The part of an image's configuration that says how to run it (OCI image specification, `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The command line's beginning, the name of the program included.
    pub entrypoint: Vec<String>,
    /// The command line's rest, which a pod's `args` replace.
    pub cmd: Vec<String>,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
    /// Where to start; empty for the root.
    pub working_dir: String,
    /// User and perhaps group, by name or number; empty if the image does not care.
    pub user: String,
}
