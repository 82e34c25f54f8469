//! Which plugins the operator has configured (upstream: `pkg/credentialprovider/plugin/config.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use super::keyring::Pattern;

/// The versions of the protocol with plugins; they differ in name only, but for service accounts.
const PROTOCOLS: [&str; 3] =
    [PROTOCOL_V1, "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"];
const PROTOCOL_V1: &str = "credentialprovider.kubelet.k8s.io/v1";
const CONFIGS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];

/// Why the configuration of plugins can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is not there or can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder holds no configuration.
    #[error("{0} holds no .json, .yaml or .yml file")]
    Empty(PathBuf),
    /// A file says something that can't be.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, in one line.
        problem: String,
    },
}

/// One plugin (`CredentialProvider`).
#[derive(Clone, Debug)]
pub(super) struct PluginConfig {
    pub(super) name: String,
    pub(super) match_images: Vec<Pattern>,
    pub(super) default_cache_duration: Duration,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) token_attributes: Option<TokenAttributes>,
}

/// How a plugin gets tokens of service accounts (`ServiceAccountTokenAttributes`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenAttributes {
    #[serde(rename = "serviceAccountTokenAudience")]
    pub(super) audience: String,
    pub(super) cache_type: CacheType,
    pub(super) require_service_account: bool,
    #[serde(default, rename = "requiredServiceAccountAnnotationKeys")]
    pub(super) required_annotations: Vec<String>,
    #[serde(default, rename = "optionalServiceAccountAnnotationKeys")]
    pub(super) optional_annotations: Vec<String>,
}

/// What credentials that were got with a token are remembered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum CacheType {
    ServiceAccount,
    Token,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<EnvVar>,
    token_attributes: Option<TokenAttributes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvVar {
    name: String,
    #[serde(default)]
    value: String,
}

/// Reads a file, or all `*.json`, `*.yaml` and `*.yml` of a folder in the order of their names. Blocks.
pub(super) fn read(path: &Path) -> Result<Vec<PluginConfig>, ConfigError> {
    let mut plugins: Vec<PluginConfig> = Vec::new();
    for file in files(path)? {
        let invalid = |problem: String| ConfigError::Invalid { path: file.clone(), problem };
        let text = std::fs::read_to_string(&file).map_err(|source| unreadable(&file, source))?;
        for plugin in parse(&text).map_err(invalid)? {
            if plugins.iter().any(|known| known.name == plugin.name) {
                return Err(invalid(format!("provider {:?} is configured twice", plugin.name)));
            }
            plugins.push(plugin);
        }
    }
    if plugins.is_empty() {
        let problem = "at least one provider is required".to_owned();
        return Err(ConfigError::Invalid { path: path.to_owned(), problem });
    }
    Ok(plugins)
}

fn unreadable(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), source }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = |source| unreadable(path, source);
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        let is_config = file.extension().is_some_and(|ext| ext == "json" || ext == "yaml" || ext == "yml");
        if is_config && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(ConfigError::Empty(path.to_owned())) } else { Ok(files) }
}

fn parse(text: &str) -> Result<Vec<PluginConfig>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))?;
    if file.kind != "CredentialProviderConfig" || !CONFIGS.contains(&file.api_version.as_str()) {
        return Err(format!(
            "it is a {} of {}, not a CredentialProviderConfig of {}",
            file.kind, file.api_version, CONFIGS[0]
        ));
    }
    file.providers.into_iter().map(Raw::check).collect()
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

impl Raw {
    /// `validateCredentialProviderConfig`.
    fn check(self) -> Result<PluginConfig, String> {
        let name = self.name;
        let problem = |text: &str| format!("provider {name:?}: {text}");
        if name.is_empty() || name.contains(['/', ' ']) || name == "." || name == ".." {
            return Err(problem("the name must be that of a file in the plugins' folder"));
        }
        if !PROTOCOLS.contains(&self.api_version.as_str()) {
            return Err(problem(&format!("apiVersion must be one of {}", PROTOCOLS.join(", "))));
        }
        if self.match_images.is_empty() {
            return Err(problem("matchImages must not be empty"));
        }
        let duration =
            self.default_cache_duration.ok_or_else(|| problem("defaultCacheDuration is required"))?;
        let duration = duration.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let default_cache_duration = duration
            .ok_or_else(|| problem("defaultCacheDuration must be a duration of zero or more, such as 10m"))?;
        if let Some(attributes) = &self.token_attributes {
            attributes
                .check(&self.api_version)
                .map_err(|text| problem(&format!("tokenAttributes: {text}")))?;
        }
        Ok(PluginConfig {
            match_images: self.match_images.iter().map(|image| Pattern::parse(image)).collect(),
            default_cache_duration,
            api_version: self.api_version,
            args: self.args,
            env: self.env.into_iter().map(|var| (var.name, var.value)).collect(),
            token_attributes: self.token_attributes,
            name,
        })
    }
}

impl TokenAttributes {
    fn check(&self, api_version: &str) -> Result<(), String> {
        if api_version != PROTOCOL_V1 {
            return Err(format!("they need apiVersion {PROTOCOL_V1}"));
        }
        if self.audience.is_empty() {
            return Err("serviceAccountTokenAudience is required".to_owned());
        }
        if !self.require_service_account && !self.required_annotations.is_empty() {
            return Err("requiredServiceAccountAnnotationKeys need requireServiceAccount".to_owned());
        }
        let mut seen = BTreeSet::new();
        let keys = self.required_annotations.iter().chain(&self.optional_annotations);
        match keys.into_iter().find(|key| !seen.insert(*key)) {
            Some(key) => Err(format!("the annotation {key:?} is named twice")),
            None => Ok(()),
        }
    }

    /// The annotations of a service account that the plugin is told; none if one that it needs is missing
    /// (`getServiceAccountData`).
    pub(super) fn annotations(&self, all: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
        let entry = |key: &String| Some((key.clone(), all.get(key)?.clone()));
        let required: Option<BTreeMap<_, _>> = self.required_annotations.iter().map(entry).collect();
        let optional = self.optional_annotations.iter().filter_map(entry);
        required.map(|mut chosen| {
            chosen.extend(optional);
            chosen
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n";

    fn provider(more: &str) -> String {
        format!(
            "{GOOD}- name: ecr\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['*.example.com']\n  \
             defaultCacheDuration: 12h\n{more}"
        )
    }

    #[test]
    fn a_configuration_is_read() {
        let more = "  args: [get]\n  env: [{name: A, value: b}]\n  tokenAttributes:\n    serviceAccountTokenAudience: aud\n    \
                    cacheType: Token\n    requireServiceAccount: true\n    requiredServiceAccountAnnotationKeys: [a/b]\n";
        let [plugin] = &parse(&provider(more)).unwrap()[..] else { panic!("one") };
        assert_eq!(plugin.default_cache_duration, Duration::from_secs(12 * 3600));
        assert_eq!(
            (plugin.args.as_slice(), plugin.env.as_slice()),
            (&["get".to_owned()][..], &[("A".to_owned(), "b".to_owned())][..])
        );
        let attributes = plugin.token_attributes.as_ref().unwrap();
        assert_eq!(attributes.cache_type, CacheType::Token);
        let all = BTreeMap::from([("a/b".to_owned(), "1".to_owned()), ("c".to_owned(), "2".to_owned())]);
        assert_eq!(attributes.annotations(&all).unwrap().len(), 1);
        assert_eq!(attributes.annotations(&BTreeMap::new()), None);
        let json = r#"{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"CredentialProviderConfig","providers":[
            {"name":"a","apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","matchImages":["a"],"defaultCacheDuration":"0s"}]}"#;
        assert_eq!(parse(json).unwrap()[0].default_cache_duration, Duration::ZERO);
    }

    #[test]
    fn what_upstream_refuses_is_refused_by_name() {
        let attributes = "  tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: true";
        for (text, reason) in [
            (provider("").replace("ecr", "a/b"), "name"),
            (provider("").replace("ecr", ".."), "name"),
            (provider("").replace("v1\n  match", "v2\n  match"), "apiVersion must be one of"),
            (provider("").replace("['*.example.com']", "[]"), "matchImages"),
            (provider("").replace("12h", "-1s"), "defaultCacheDuration must be"),
            (
                provider("").replace("defaultCacheDuration: 12h", "args: []"),
                "defaultCacheDuration is required",
            ),
            (provider("  colour: red\n"), "colour"),
            (
                provider("").replace("kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v3"),
                "not a CredentialProviderConfig",
            ),
            (
                provider(&format!("{attributes}, optionalServiceAccountAnnotationKeys: [a, a]}}\n")),
                "named twice",
            ),
            (
                provider(&format!("{attributes}}}\n")).replace("v1\n  match", "v1beta1\n  match"),
                "they need apiVersion",
            ),
        ] {
            let error = parse(&text).expect_err(reason);
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(ConfigError::Empty(_))));
        let write = |file: &str, name: &str| {
            std::fs::write(folder.path().join(file), provider("").replace("ecr", name)).unwrap();
        };
        write("b.yaml", "second");
        write("a.yml", "first");
        write("ignored.txt", "third");
        let names: Vec<_> = read(folder.path()).unwrap().into_iter().map(|plugin| plugin.name).collect();
        assert_eq!(names, ["first", "second"]);
        write("c.json", "first");
        assert!(read(folder.path()).unwrap_err().to_string().contains("configured twice"));
        assert!(matches!(read(&folder.path().join("none")), Err(ConfigError::Read { .. })));
    }
}
