//! Content digests.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A `sha256:<64 lower-case hex digits>` digest: checked once, so that it is safe as a file name.
///
/// Registries may use other algorithms too; nobody does, and a second one would be a second way to name the same
/// bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Digest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of everything that `hasher` was fed.
    pub(super) fn finish(hasher: Sha256) -> Self {
        Self(format!("{PREFIX}{:x}", hasher.finalize()))
    }

    /// The whole digest, algorithm included.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits alone.
    pub(super) fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }
}

/// Why a text is no digest that this store can use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sha256 digest")]
pub(super) struct DigestError(String);

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        match text.strip_prefix(PREFIX) {
            Some(hex) if is_hex64(hex) => Ok(Self(text)),
            _ => Err(DigestError(text)),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is 64 lower-case hex digits.
pub(super) fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_sha256_is_taken() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::try_from(good.clone()).unwrap().hex(), "0a".repeat(32));
        for bad in [
            String::new(),
            "0a".repeat(32),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:{}/", "0a".repeat(32)),
            format!("sha512:{}", "0a".repeat(64)),
            "sha256:../../../../etc/passwd".to_owned(),
        ] {
            assert_eq!(Digest::try_from(bad.clone()).unwrap_err(), DigestError(bad));
        }
    }

    #[test]
    fn a_digest_is_the_one_of_its_bytes() {
        assert_eq!(
            Digest::of(b"abc").as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
