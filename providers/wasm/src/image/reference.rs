//! Image references, read the way Docker and the kubelet read them (`distribution/reference`, `ParseDockerRef`).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::digest::{Digest, is_hex64};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
/// Where the registry behind [`DEFAULT_DOMAIN`] really answers.
const DEFAULT_DOMAIN_HOST: &str = "registry-1.docker.io";
const OFFICIAL_REPOSITORIES: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_REPOSITORY_LENGTH: usize = 255;
const MAX_TAG_LENGTH: usize = 128;

/// Which version of a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Version {
    /// A name that may be moved.
    Tag(String),
    /// The manifest or index with this digest, for ever.
    Digest(Digest),
}

/// A normalised reference: its [`fmt::Display`] form is the full one, `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    domain: String,
    repository: String,
    version: Version,
}

/// Why a text is no image reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReferenceError {
    /// Nothing there.
    #[error("an image name is empty")]
    Empty,
    /// Upper-case letters outside of the registry's name and the tag.
    #[error("invalid image name {0:?}: the repository name must be lower-case")]
    UpperCase(String),
    /// A bare digest, which says no repository.
    #[error("invalid image name {0:?}: it is a digest without a repository")]
    BareDigest(String),
    /// The repository's name is longer than registries allow.
    #[error(
        "invalid image name {0:?}: the repository name is longer than {MAX_REPOSITORY_LENGTH} characters"
    )]
    TooLong(String),
    /// Pinned by an algorithm that this provider does not know, or not well formed.
    #[error("invalid image name {0:?}: a digest must be sha256: and 64 lower-case hex digits")]
    Digest(String),
    /// Everything else.
    #[error("invalid image name {0:?}: expected [registry/]repository[:tag][@sha256:digest]")]
    Malformed(String),
    /// A file, where files are not allowed.
    #[error("invalid image name {0:?}: local files work only in `coracle run`; push the file to a registry")]
    LocalFile(String),
}

impl Reference {
    /// Reads what a user wrote.
    pub(super) fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_hex64(text) {
            return Err(ReferenceError::BareDigest(text.to_owned()));
        }
        let malformed = || ReferenceError::Malformed(text.to_owned());

        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (domain, rest) = split_domain(name);
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (&*rest, None),
        };
        if !is_domain(&domain) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed());
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(text.to_owned()));
        }
        if !is_repository(repository) {
            return Err(malformed());
        }
        if repository.len() > MAX_REPOSITORY_LENGTH {
            return Err(ReferenceError::TooLong(text.to_owned()));
        }

        // As with Docker, a digest makes the tag a comment.
        let version = match digest {
            Some(digest) => Version::Digest(
                Digest::try_from(digest.to_owned()).map_err(|_| ReferenceError::Digest(text.to_owned()))?,
            ),
            None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        Ok(Self { domain, repository: repository.to_owned(), version })
    }

    /// The same repository, pinned.
    pub(super) fn with_digest(&self, digest: &Digest) -> Self {
        Self { version: Version::Digest(digest.clone()), ..self.clone() }
    }

    /// The repository's path at its registry: `library/nginx`.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Which version is meant.
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// The host and port that the registry answers on.
    pub(super) fn host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN { DEFAULT_DOMAIN_HOST } else { &self.domain }
    }

    /// What the registry is called in the reference: `docker.io`.
    pub(super) fn domain(&self) -> &str {
        &self.domain
    }
}

/// Whether a registry (`host` or `host:port`) is on this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => {
            return address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback());
        }
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.domain, self.repository),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.domain, self.repository),
        }
    }
}

/// Whether a reference names a file of this machine and not an image.
pub(super) fn is_local_file(text: &str) -> bool {
    text.starts_with("./") || text.starts_with('/')
}

/// Splits the registry off, or adds the default one (`splitDockerDomain`).
fn split_domain(name: &str) -> (String, String) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_DOMAIN.to_owned(), format!("{OFFICIAL_REPOSITORIES}{name}"));
    };
    let names_registry = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase());
    if !names_registry {
        return (DEFAULT_DOMAIN.to_owned(), name.to_owned());
    }
    if first != DEFAULT_DOMAIN && first != LEGACY_DEFAULT_DOMAIN {
        return (first.to_owned(), rest.to_owned());
    }
    let official = !rest.contains('/');
    let rest = if official { format!("{OFFICIAL_REPOSITORIES}{rest}") } else { rest.to_owned() };
    (DEFAULT_DOMAIN.to_owned(), rest)
}

/// `domainAndPort`: dotted names, an IPv4 address or a bracketed IPv6 address, then perhaps a port.
fn is_domain(domain: &str) -> bool {
    let (host_is_valid, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let valid =
                !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            (valid, port.strip_prefix(':').or((!port.is_empty()).then_some("")))
        }
        None => {
            let (host, port) = match domain.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (domain, None),
            };
            (host.split('.').all(is_domain_component), port)
        }
    };
    host_is_valid
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= MAX_TAG_LENGTH
        && tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn is_repository(repository: &str) -> bool {
    repository.split('/').all(is_path_component)
}

/// Runs of lower-case letters and digits, with one of `.`, `_`, `__` or any number of `-` between two of them.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = component.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| is_word(**byte)).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|byte| !is_word(**byte)).count();
        let valid = match &rest[..separator] {
            b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|byte| *byte == b'-'),
        };
        if !valid {
            return false;
        }
        rest = &rest[separator..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

    #[test]
    fn references_are_normalised_as_docker_does() {
        let pinned = format!("nginx:1@sha256:{HEX}");
        let pinned_full = format!("docker.io/library/nginx@sha256:{HEX}");
        for (written, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("user/app:v1", "docker.io/user/app:v1"),
            ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("UPPER/app", "UPPER/app:latest"),
            ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
            ("[fd00::1]/a", "[fd00::1]/a:latest"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
            ("example.com/a--b/c__d/e.f_g:_T-1.", "example.com/a--b/c__d/e.f_g:_T-1."),
            (&pinned, &pinned_full),
        ] {
            assert_eq!(Reference::parse(written).map(|r| r.to_string()).as_deref(), Ok(full), "{written}");
            assert_eq!(
                Reference::parse(full).map(|r| r.to_string()).as_deref(),
                Ok(full),
                "{full} is stable"
            );
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = format!("example.com/{}", "a".repeat(256));
        let sha512 = format!("a@sha512:{HEX}{HEX}");
        let upper_digest = format!("a@sha256:{}", HEX.to_uppercase());
        for (written, reason) in [
            ("", "is empty"),
            (HEX, "without a repository"),
            ("Nginx", "lower-case"),
            ("example.com/Nginx:1", "lower-case"),
            (&long_name, "longer than 255"),
            (&sha512, "sha256"),
            (&upper_digest, "sha256"),
            ("a@", "sha256"),
            ("a@sha256:abc", "sha256"),
            (&long_tag, "expected [registry/]"),
            ("a:", "expected [registry/]"),
            ("a:-x", "expected [registry/]"),
            ("a:b:c", "expected [registry/]"),
            ("a b", "expected [registry/]"),
            ("-a", "expected [registry/]"),
            ("a-", "expected [registry/]"),
            ("a..b", "expected [registry/]"),
            ("a___b", "expected [registry/]"),
            ("a//b", "expected [registry/]"),
            ("../a", "expected [registry/]"),
            ("a/../b", "expected [registry/]"),
            ("example.com:port/a", "expected [registry/]"),
            ("example.com:/a", "expected [registry/]"),
            ("-example.com/a", "expected [registry/]"),
            ("ex_ample.com/a", "expected [registry/]"),
            ("[::1]x/a", "expected [registry/]"),
            ("[::g]:5000/a", "expected [registry/]"),
            ("https://example.com/a", "expected [registry/]"),
            ("user@example.com/a", "sha256"),
            ("ü/a", "expected [registry/]"),
        ] {
            let message = Reference::parse(written).expect_err(written).to_string();
            assert!(message.contains(reason), "{written:?}: {message}");
        }
    }

    #[test]
    fn a_registry_on_this_machine_is_known() {
        for (written, loopback) in [
            ("localhost/a", true),
            ("localhost:5000/a", true),
            ("127.0.0.1:5000/a", true),
            ("127.9.9.9/a", true),
            ("[::1]:5000/a", true),
            ("[fd00::1]:5000/a", false),
            ("128.0.0.1:5000/a", false),
            ("localhost.example.com/a", false),
            ("127.0.0.1.example.com/a", false),
            ("a", false),
        ] {
            assert_eq!(is_loopback(Reference::parse(written).unwrap().host()), loopback, "{written}");
        }
    }

    #[test]
    fn docker_hub_answers_under_another_name() {
        assert_eq!(Reference::parse("nginx").unwrap().host(), "registry-1.docker.io");
        assert_eq!(Reference::parse("localhost:5000/nginx").unwrap().host(), "localhost:5000");
    }

    #[test]
    fn files_are_told_from_images() {
        assert!(is_local_file("./a.wasm") && is_local_file("/a.wasm"));
        assert!(!is_local_file("a.wasm") && !is_local_file("../a.wasm") && !is_local_file("localhost/a"));
    }
}
