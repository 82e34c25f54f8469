//! Docker's configuration files (upstream: `pkg/credentialprovider/config.go`, `provider.go`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use coracle_provider::{RegistryAuth, Secret};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::keyring::Keyring;
use super::{CredentialSource, TrackedAuthConfig};

/// How long the node's own configuration is remembered.
const LIFETIME: Duration = Duration::from_secs(300);

/// Entries by registry.
pub(super) type DockerAuths = BTreeMap<String, DockerAuth>;

/// `config.json`.
#[derive(Deserialize)]
pub(super) struct DockerConfigJson {
    #[serde(default)]
    pub(super) auths: DockerAuths,
}

/// One entry: user name and password, or both in one.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct DockerAuth {
    pub(super) username: String,
    pub(super) password: String,
    email: String,
    auth: String,
    identitytoken: String,
}

/// Upstream's `AuthConfig`, of which the JSON is what gets hashed.
#[derive(Serialize)]
struct AuthConfig<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    email: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    identitytoken: &'a str,
}

impl DockerAuth {
    /// User name and password.
    pub(super) fn password(username: String, password: String) -> Self {
        Self { username, password, ..Self::default() }
    }

    /// The credentials and their hash (`hashAuthConfig`); none if the entry does not parse.
    pub(super) fn credentials(mut self) -> Option<(RegistryAuth, String)> {
        if !self.auth.is_empty() {
            let decoded = STANDARD_NO_PAD.decode(self.auth.trim().trim_end_matches('=')).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (user, pass) = text.split_once(':')?;
            self.username = user.to_owned();
            self.password = pass.trim_matches('\0').to_owned();
        }
        let hash = self.hash();
        let auth = RegistryAuth {
            username: self.username,
            password: Secret(self.password),
            identity_token: Secret(self.identitytoken),
            registry_token: Secret::default(),
        };
        Some((auth, hash))
    }

    fn hash(&self) -> String {
        let Self { username, password, email, identitytoken, .. } = self;
        let json = serde_json::to_string(&AuthConfig { username, password, email, identitytoken });
        // As Go's encoder writes it.
        let json =
            json.unwrap_or_default().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        format!("{:x}", Sha256::digest(json))
    }
}

/// The node's own credentials: those that every pod on it may use (`NewDefaultDockerKeyring`).
#[derive(Debug, Default)]
pub struct NodeKeyring {
    /// `config.json` or `.dockercfg`; the first one that is there counts.
    files: Vec<PathBuf>,
    read: Mutex<Option<(Instant, std::sync::Arc<Keyring>)>>,
}

impl NodeKeyring {
    /// Looks in `folder` (the kubelet's own), in `home`, and in the root, as upstream and Docker do.
    pub fn new(folder: PathBuf, home: Option<PathBuf>) -> Self {
        let root = PathBuf::from("/");
        let json = [
            Some(folder.clone()),
            home.as_ref().map(|home| home.join(".docker")),
            Some(root.join(".docker")),
        ];
        let older = [Some(folder), home, Some(root)];
        let json = json.into_iter().flatten().map(|folder| folder.join("config.json"));
        let older = older.into_iter().flatten().map(|folder| folder.join(".dockercfg"));
        Self { files: json.chain(older).collect(), read: Mutex::default() }
    }

    /// The node's credentials for an image.
    pub(crate) async fn lookup(&self, image: &str) -> Vec<TrackedAuthConfig> {
        if self.files.is_empty() {
            return Vec::new();
        }
        let known = self.read.lock().clone().filter(|(at, _)| at.elapsed() < LIFETIME);
        let keyring = match known {
            Some((_, keyring)) => keyring,
            None => {
                let keyring = std::sync::Arc::new(self.read_files().await);
                *self.read.lock() = Some((Instant::now(), keyring.clone()));
                keyring
            }
        };
        keyring.lookup(image)
    }

    async fn read_files(&self) -> Keyring {
        let mut keyring = Keyring::default();
        for path in &self.files {
            let Ok(bytes) = tokio::fs::read(path).await else { continue };
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            let auths = match is_json {
                true => serde_json::from_slice::<DockerConfigJson>(&bytes).map(|config| config.auths),
                false => serde_json::from_slice::<DockerAuths>(&bytes),
            };
            match auths {
                Ok(auths) => {
                    keyring.add(&CredentialSource::Node, auths);
                    break;
                }
                // The parser's words could show what is in the file.
                Err(_) => {
                    tracing::warn!(path = %path.display(), "the node's registry credentials do not parse")
                }
            }
        }
        keyring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by upstream's `hashAuthConfig`, so that records of one kubelet are understood by the other.
    #[test]
    fn hashes_are_upstream_s() {
        let hash = |auth: DockerAuth| auth.credentials().unwrap().1;
        let plain = DockerAuth::password("user".to_owned(), "pass".to_owned());
        let encoded = DockerAuth { auth: "dXNlcjpwYXNz".to_owned(), ..DockerAuth::default() };
        let expected = hash(plain);
        assert_eq!(expected, hash(encoded));
        let json = r#"{"username":"user","password":"pass"}"#;
        let direct: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(expected, direct);
        let escaped = hash(DockerAuth::password("u".to_owned(), "<&>".to_owned()));
        let json = r#"{"username":"u","password":"\u003c\u0026\u003e"}"#;
        let direct: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(escaped, direct);
    }

    #[test]
    fn padding_may_be_left_out() {
        for auth in ["YTpwYXM=", "YTpwYXM", " YTpwYXM=\n"] {
            let (auth, _) =
                DockerAuth { auth: auth.to_owned(), ..DockerAuth::default() }.credentials().unwrap();
            assert_eq!((auth.username.as_str(), auth.password.0.as_str()), ("a", "pas"));
        }
        assert!(DockerAuth { auth: "%%".to_owned(), ..DockerAuth::default() }.credentials().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_s_file_is_read_again_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = NodeKeyring::new(folder.path().to_owned(), None);
        let users = async || -> Vec<String> {
            keyring.lookup("example.com/app").await.into_iter().map(|found| found.auth.username).collect()
        };
        let write = |user: &str| {
            let json = format!(r#"{{"auths":{{"example.com":{{"username":"{user}","password":"p"}}}}}}"#);
            std::fs::write(folder.path().join("config.json"), json).unwrap();
        };
        assert!(users().await.is_empty());
        write("one");
        tokio::time::advance(LIFETIME).await;
        assert_eq!(users().await, ["one"]);
        write("two");
        assert_eq!(users().await, ["one"]);
        tokio::time::advance(LIFETIME).await;
        assert_eq!(users().await, ["two"]);
    }
}
