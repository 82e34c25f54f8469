//! Images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sandbox::PodRef;

/// An image as somebody named it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSpec {
    /// The reference as the user wrote it.
    pub image: String,
    /// The RuntimeClass handler that it is for; empty for the default.
    pub runtime_handler: String,
}

impl ImageSpec {
    /// An image for the default handler.
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: image.into(), runtime_handler: String::new() }
    }
}

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArtifactKind {
    /// A WebAssembly module or component.
    Wasm,
    /// A root file system.
    RootFs,
}

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The provider's id: a digest.
    pub id: String,
    /// Tags that lead to it.
    pub repo_tags: Vec<String>,
    /// References by digest that lead to it.
    pub repo_digests: Vec<String>,
    /// Bytes on disk, everything that was derived from it included.
    pub size_bytes: u64,
    /// What it holds.
    pub kind: ArtifactKind,
    /// The user that its configuration asks for by number, if it does.
    pub uid: Option<i64>,
    /// The user that its configuration asks for by name, if it does.
    pub username: String,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Whether garbage collection must leave it alone.
    pub pinned: bool,
}

/// A text that must never be printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Credentials for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAuth {
    /// User name for basic authentication and for token requests.
    pub username: String,
    /// Password that goes with it.
    pub password: Secret,
    /// A refresh token, instead of user name and password.
    pub identity_token: Secret,
    /// A bearer token to send as it is.
    pub registry_token: Secret,
}

/// A request to fetch an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Which image.
    pub image: ImageSpec,
    /// With which credentials; none is anonymous.
    pub auth: Option<RegistryAuth>,
    /// For which pod.
    pub pod: PodRef,
}

/// How far a pull has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullProgress {
    /// The manifest is known.
    Resolved {
        /// Bytes to fetch; 0 if everything is present.
        total_bytes: u64,
    },
    /// Bytes have arrived.
    Fetched {
        /// How many, since the pull began.
        bytes: u64,
    },
    /// Everything is here and is being prepared (compiled, unpacked).
    Preparing,
}

/// How full a file system of images is. (CRI knows only what images use; the rest is what the file system says.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsUsage {
    /// Where it is mounted.
    pub mountpoint: String,
    /// Bytes that images use.
    pub used_bytes: u64,
    /// Inodes that images use.
    pub inodes_used: u64,
    /// Bytes that the file system has.
    pub capacity_bytes: u64,
    /// Bytes of it that are free.
    pub available_bytes: u64,
}
