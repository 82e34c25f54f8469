//! Tokens that an earlier run of the agent left on disk.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::atomic_writer::clean_path;
use crate::spec::{PayloadSpec, SourceSpec};
use crate::token::TokenKey;

/// No token is longer; a file that is, is none.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// The file of a token.
pub(crate) struct TokenFile {
    key: TokenKey,
    path: PathBuf,
}

/// The files in a volume that hold tokens, if it was set up before.
pub(crate) fn tokens_on_disk(
    pod: &Pod,
    volume_dir: &Path,
    payload: &PayloadSpec<'_>,
) -> impl Iterator<Item = TokenFile> {
    payload.sources.iter().filter_map(move |source| {
        let SourceSpec::ServiceAccountToken(projection) = source else { return None };
        let path = volume_dir.join(clean_path(&projection.path).ok()?);
        Some(TokenFile { key: TokenKey::new(pod, projection), path })
    })
}

impl TokenFile {
    /// The token. One that cannot be read is not there: a new one will be asked for. Blocks.
    pub(crate) fn read(self) -> Option<(TokenKey, String)> {
        let mut token = String::new();
        File::open(self.path).ok()?.take(MAX_TOKEN_BYTES).read_to_string(&mut token).ok()?;
        Some((self.key, token))
    }
}
