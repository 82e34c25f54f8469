//! Which credentials of a pod's pull secrets are for an image (upstream: `pkg/credentialprovider`).

use std::collections::BTreeMap;

use base64::Engine as _;
use coracle_provider::RegistryAuth;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// What docker.io is called in configuration files and in references.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Credentials by registry, the most specific first.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    entries: Vec<(Pattern, RegistryAuth)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

impl Keyring {
    /// Takes the credentials of pull secrets; a secret that cannot be read is left out and named in the second answer.
    pub(super) fn from_secrets<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> (Self, Vec<String>) {
        let (mut keyring, mut unreadable) = (Self::default(), Vec::new());
        for secret in secrets {
            match read_secret(secret) {
                Some(auths) => keyring.add(auths),
                None => unreadable.push(secret.metadata.name.clone().unwrap_or_default()),
            }
        }
        // Longer patterns are more specific: "quay.io/coreos" comes before "quay.io".
        keyring
            .entries
            .sort_by_key(|(p, _)| std::cmp::Reverse((p.host.clone(), p.port.clone(), p.path.clone())));
        (keyring, unreadable)
    }

    fn add(&mut self, auths: BTreeMap<String, DockerAuth>) {
        for (registry, auth) in auths {
            if let Some(auth) = auth.credentials() {
                self.entries.push((Pattern::parse(&registry), auth));
            }
        }
    }

    /// The credentials for an image, the best first. None means anonymous.
    pub(super) fn lookup(&self, image: &str) -> Vec<RegistryAuth> {
        let target = Pattern::parse(&with_registry(image));
        self.entries
            .iter()
            .filter(|(pattern, _)| pattern.matches(&target))
            .map(|(_, auth)| auth.clone())
            .collect()
    }
}

impl DockerAuth {
    fn credentials(self) -> Option<RegistryAuth> {
        let (mut username, mut password) = (self.username, self.password);
        if !self.auth.is_empty() {
            let decoded = base64::engine::general_purpose::STANDARD.decode(self.auth.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (user, pass) = text.split_once(':')?;
            username = user.to_owned();
            password = pass.trim_matches('\0').to_owned();
        }
        Some(RegistryAuth {
            username,
            password: coracle_provider::Secret(password),
            identity_token: coracle_provider::Secret(self.identitytoken),
            registry_token: coracle_provider::Secret::default(),
        })
    }
}

/// `kubernetes.io/dockerconfigjson`, or the older `kubernetes.io/dockercfg`.
fn read_secret(secret: &Secret) -> Option<BTreeMap<String, DockerAuth>> {
    let data = secret.data.as_ref()?;
    if let Some(json) = data.get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfigJson>(&json.0).ok().map(|c| c.auths);
    }
    serde_json::from_slice(&data.get(".dockercfg")?.0).ok()
}

/// An image reference with the registry that it means: docker.io where it names none.
fn with_registry(image: &str) -> String {
    let names_registry =
        image.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let full = if names_registry { image.to_owned() } else { format!("{DEFAULT_REGISTRY}/{image}") };
    match full.strip_prefix("docker.io/") {
        Some(rest) => format!("{DEFAULT_REGISTRY}/{rest}"),
        None => full,
    }
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // Configuration files may write the API's root for the whole registry.
        let path = path.trim_start_matches("v1/").trim_start_matches("v2/");
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.to_owned())),
            None => (authority, None),
        };
        let host = if host == "docker.io" { DEFAULT_REGISTRY } else { host };
        Self { host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() }
    }

    /// Every label of the host matches as a glob, the port is the same, and the path is a prefix (`URLsMatch`).
    fn matches(&self, target: &Self) -> bool {
        let (own, other): (Vec<_>, Vec<_>) =
            (self.host.split('.').collect(), target.host.split('.').collect());
        self.port == target.port
            && own.len() == other.len()
            && target.path.starts_with(&self.path)
            && own.iter().zip(&other).all(|(glob, label)| glob_matches(glob.as_bytes(), label.as_bytes()))
    }
}

/// `*` and `?` of a file name pattern, within one label.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob_matches(&glob[1..], text) || (!text.is_empty() && glob_matches(glob, &text[1..]))
        }
        (Some(b'?'), Some(_)) => glob_matches(&glob[1..], &text[1..]),
        (Some(g), Some(t)) if g == t => glob_matches(&glob[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(json: &str) -> Secret {
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(json.as_bytes().to_vec()))]);
        Secret { data: Some(data), ..Secret::default() }
    }

    fn users(auths: &str, image: &str) -> Vec<String> {
        let json = format!(r#"{{"auths":{auths}}}"#);
        let (keyring, unreadable) = Keyring::from_secrets([&secret(&json)]);
        assert!(unreadable.is_empty());
        keyring.lookup(image).into_iter().map(|a| a.username).collect()
    }

    #[test]
    fn finds_credentials_as_upstream_does() {
        let a = r#"{"username":"a","password":"p"}"#;
        let cases = [
            ("example.com", "example.com/app:1", true),
            ("https://example.com/v2/", "example.com/app:1", true),
            ("example.com", "example.com:5000/app", false),
            ("localhost:5000", "localhost:5000/app@sha256:00", true),
            ("example.com/team", "example.com/team/app", true),
            ("example.com/team", "example.com/other/app", false),
            ("*.example.com", "eu.example.com/app", true),
            ("*.example.com", "a.b.example.com/app", false),
            ("https://index.docker.io/v1/", "library/app", true),
            ("docker.io", "app", true),
            ("example.com", "app", false),
        ];
        for (registry, image, found) in cases {
            let auths = format!(r#"{{"{registry}":{a}}}"#);
            assert_eq!(users(&auths, image).len(), usize::from(found), "{registry} {image}");
        }
    }

    #[test]
    fn the_most_specific_comes_first() {
        let auths = r#"{"example.com":{"auth":"YTpw"},"example.com/team":{"auth":"Yjpw"}}"#;
        assert_eq!(users(auths, "example.com/team/app"), ["b", "a"]);
    }

    #[test]
    fn an_unreadable_secret_is_named() {
        let mut broken = secret("{");
        broken.metadata.name = Some("broken".into());
        assert_eq!(Keyring::from_secrets([&broken]).1, ["broken"]);
    }
}
