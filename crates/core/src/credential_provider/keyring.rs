//! Credentials by registry (upstream: `pkg/credentialprovider/keyring.go`, `secrets/secrets.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;

use super::docker_config::{DockerAuths, DockerConfigJson};
use super::{Coordinates, CredentialSource, TrackedAuthConfig};

/// What docker.io is called in configuration files and in references.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Credentials by registry, the most specific first.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    entries: Vec<(Pattern, TrackedAuthConfig)>,
}

/// Which images an entry is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

impl Keyring {
    /// Takes the credentials of pull secrets; a secret that cannot be read is left out and named in the second answer.
    pub(crate) fn from_secrets<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> (Self, Vec<String>) {
        let (mut keyring, mut unreadable) = (Self::default(), Vec::new());
        for secret in secrets {
            match read_secret(secret) {
                Some(auths) => keyring.add(&CredentialSource::Secret(coordinates(secret)), auths),
                None => unreadable.push(secret.metadata.name.clone().unwrap_or_default()),
            }
        }
        (keyring, unreadable)
    }

    /// Adds what a configuration says, from one place.
    pub(super) fn add(&mut self, source: &CredentialSource, auths: DockerAuths) {
        for (registry, auth) in auths {
            if let Some((auth, hash)) = auth.credentials() {
                let tracked = TrackedAuthConfig { auth, hash, source: source.clone() };
                self.entries.push((Pattern::parse(&registry), tracked));
            }
        }
        // Longer patterns are more specific: "quay.io/coreos" comes before "quay.io". Of the same, the first one stays
        // the first.
        self.entries.sort_by(|(one, _), (other, _)| other.cmp(one));
    }

    /// The credentials for an image, the best first. None means anonymous.
    pub(crate) fn lookup(&self, image: &str) -> Vec<TrackedAuthConfig> {
        let target = Pattern::of_image(image);
        self.entries
            .iter()
            .filter(|(pattern, _)| pattern.matches(&target))
            .map(|(_, auth)| auth.clone())
            .collect()
    }
}

fn coordinates(secret: &Secret) -> Coordinates {
    let metadata = &secret.metadata;
    Coordinates {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

/// `kubernetes.io/dockerconfigjson`, or the older `kubernetes.io/dockercfg`.
fn read_secret(secret: &Secret) -> Option<DockerAuths> {
    let data = secret.data.as_ref()?;
    let key = |name: &str| data.get(name).map(|bytes| bytes.0.as_slice());
    match secret.type_.as_deref()? {
        "kubernetes.io/dockerconfigjson" => {
            serde_json::from_slice::<DockerConfigJson>(key(".dockerconfigjson")?).ok().map(|c| c.auths)
        }
        "kubernetes.io/dockercfg" => serde_json::from_slice::<BTreeMap<_, _>>(key(".dockercfg")?).ok(),
        _ => None,
    }
}

/// The repository that an image reference means, without tag and digest: `docker.io/library/nginx`
/// (`parsers.ParseImageName`).
pub(super) fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let names_registry =
        name.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let of_default = match names_registry {
        true => ["docker.io/", "index.docker.io/"].iter().find_map(|registry| name.strip_prefix(registry)),
        false => Some(name),
    };
    match of_default {
        // Official images have a folder that nobody writes.
        Some(name) if !name.contains('/') => format!("docker.io/library/{name}"),
        Some(name) => format!("docker.io/{name}"),
        None => name.to_owned(),
    }
}

impl Pattern {
    /// What an image is looked up by.
    pub(super) fn of_image(image: &str) -> Self {
        Self::parse(&repository(image))
    }

    /// The left side of an entry of a Docker configuration, or an entry of `matchImages`.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // Configuration files may write the API's root for the whole registry.
        let path = ["v1/", "v2/"].iter().find_map(|root| path.strip_prefix(root)).unwrap_or(path);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.to_owned())),
            None => (authority, None),
        };
        let host = if host == "docker.io" { DEFAULT_REGISTRY } else { host };
        Self { host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() }
    }

    /// Every label of the host matches as a glob, the port is the same, and the path is a prefix (`URLsMatch`).
    pub(super) fn matches(&self, target: &Self) -> bool {
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
        let type_ = Some("kubernetes.io/dockerconfigjson".to_owned());
        Secret { data: Some(data), type_, ..Secret::default() }
    }

    fn users(auths: &str, image: &str) -> Vec<String> {
        let json = format!(r#"{{"auths":{auths}}}"#);
        let (keyring, unreadable) = Keyring::from_secrets([&secret(&json)]);
        assert!(unreadable.is_empty());
        keyring.lookup(image).into_iter().map(|a| a.auth.username).collect()
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
            ("docker.io/library", "app:v1", true),
            ("docker.io/library", "docker.io/app", true),
            ("docker.io/library", "other/app", false),
            ("example.com", "app", false),
        ];
        for (registry, image, found) in cases {
            let auths = format!(r#"{{"{registry}":{a}}}"#);
            assert_eq!(users(&auths, image).len(), usize::from(found), "{registry} {image}");
        }
    }

    #[test]
    fn the_repository_of_a_reference() {
        for (image, expected) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1@sha256:00", "docker.io/library/nginx"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("index.docker.io/team/app:v1", "docker.io/team/app"),
            ("team/app", "docker.io/team/app"),
            ("example.com:5000/app:v1", "example.com:5000/app"),
            ("localhost/app", "localhost/app"),
        ] {
            assert_eq!(repository(image), expected, "{image}");
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
        let mut opaque = secret(r#"{"auths":{"example.com":{"auth":"YTpw"}}}"#);
        opaque.metadata.name = Some("opaque".into());
        opaque.type_ = Some("Opaque".into());
        assert_eq!(Keyring::from_secrets([&broken, &opaque]).1, ["broken", "opaque"]);
    }

    #[test]
    fn credentials_know_their_secret() {
        let mut own = secret(r#"{"auths":{"example.com":{"username":"a","password":"<&>"}}}"#);
        own.metadata.name = Some("s".into());
        own.metadata.namespace = Some("n".into());
        own.metadata.uid = Some("u".into());
        let found = Keyring::from_secrets([&own]).0.lookup("example.com/app").remove(0);
        let coordinates = Coordinates { namespace: "n".into(), name: "s".into(), uid: "u".into() };
        assert_eq!(found.source, CredentialSource::Secret(coordinates));
        assert!(!format!("{found:?}").contains("<&>"), "{found:?}");
    }
}
