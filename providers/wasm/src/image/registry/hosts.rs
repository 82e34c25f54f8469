//! How the operator wants registries to be reached: containerd's folder of `hosts.toml` files (containerd,
//! `docs/hosts.md` and `core/remotes/docker/config/hosts.go`).
//!
//! The folder is read with every pull, so a change needs no restart. What decides where images come from is not
//! guessed: a key that is not supported, or a file that does not parse, fails the pull with its name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Url;
use toml::{Table, Value};

/// Fits registries that have no folder of their own.
const DEFAULT_FOLDER: &str = "_default";
const FILE: &str = "hosts.toml";

/// One server that may have what a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// The root of its API, `https://host:port/v2`.
    pub(super) api: String,
    /// Its `host` or `host:port`.
    pub(super) authority: String,
    /// Whether it may say which manifest a tag means.
    pub(super) can_resolve: bool,
    /// Whether it has manifests and blobs.
    pub(super) can_pull: bool,
    /// PEM files with authorities that it is trusted by, besides the node's.
    pub(super) ca: Vec<PathBuf>,
    /// How long it may take to accept a connection, if that is not the usual time.
    pub(super) dial_timeout: Option<Duration>,
    /// Whether it stands in for the registry that the reference names.
    pub(super) is_mirror: bool,
}

/// Why the operator's folder can't be used. Continues "image X could not be pulled: ".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {problem}")]
pub(in crate::image) struct HostsError {
    path: String,
    problem: String,
}

impl Host {
    /// A registry that nothing was said about.
    pub(super) fn plain(scheme: &str, authority: &str) -> Self {
        Self {
            api: format!("{scheme}://{authority}/v2"),
            authority: authority.to_owned(),
            can_resolve: true,
            can_pull: true,
            ca: Vec::new(),
            dial_timeout: None,
            is_mirror: false,
        }
    }

    /// Who names an authority wants TLS, also on this machine.
    fn trusting(mut self, ca: Vec<PathBuf>) -> Self {
        if let (false, Some(rest)) = (ca.is_empty(), self.api.strip_prefix("http://")) {
            self.api = format!("https://{rest}");
        }
        Self { ca, ..self }
    }
}

/// The servers to ask for an image of the registry `domain`, in order; `registry` itself is the last unless another
/// server was put in its place. Blocks.
pub(super) fn hosts(root: &Path, domain: &str, registry: Host) -> Result<Vec<Host>, HostsError> {
    let Some(folder) = folder(root, domain)? else { return Ok(vec![registry]) };
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(problem(&path, format!("can't be read: {error}"))),
    };
    if text.is_empty() {
        return Ok(vec![registry.trusting(certificates(&folder)?)]);
    }
    read(&text, &folder, registry).map_err(|reason| problem(&path, reason))
}

fn problem(path: &Path, problem: impl Into<String>) -> HostsError {
    HostsError { path: path.display().to_string(), problem: problem.into() }
}

/// The folder for a registry. Those who can't have a colon in file names write `host_port_`.
fn folder(root: &Path, domain: &str) -> Result<Option<PathBuf>, HostsError> {
    let escaped = domain.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = escaped.iter().map(String::as_str).chain([domain, DEFAULT_FOLDER]);
    for folder in names.map(|name| root.join(name)) {
        match fs::metadata(&folder) {
            Ok(_) => return Ok(Some(folder)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(problem(&folder, format!("can't be read: {error}"))),
        }
    }
    Ok(None)
}

/// Docker's way: `*.crt` files are authorities.
fn certificates(folder: &Path) -> Result<Vec<PathBuf>, HostsError> {
    let unreadable = |error: io::Error| problem(folder, format!("can't be read: {error}"));
    let mut authorities = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => authorities.push(path),
            Some("cert" | "key") => return Err(problem(&path, NO_CLIENT_CERTIFICATES)),
            _ => {}
        }
    }
    authorities.sort();
    Ok(authorities)
}

const NO_CLIENT_CERTIFICATES: &str =
    "asks for client certificates, which are not supported; use a pull secret";

fn read(text: &str, folder: &Path, registry: Host) -> Result<Vec<Host>, String> {
    let table: Table =
        toml::from_str(text).map_err(|error| format!("does not parse: {}", error.message()))?;
    let mut hosts = Vec::new();
    let mut server = None;
    let mut settings = Table::new();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("server", Value::String(url)) => server = Some(url),
            ("host", Value::Table(mirrors)) => {
                for (url, settings) in mirrors {
                    let Value::Table(settings) = settings else { return Err(wrong_type(&url, "a table")) };
                    let mirror = Host { is_mirror: true, ..at(&url, &settings)? };
                    hosts.push(apply(mirror, settings, folder)?);
                }
            }
            ("server", _) => return Err(wrong_type("server", "a string")),
            ("host", _) => return Err(wrong_type("host", "a table")),
            (_, value) => {
                settings.insert(key, value);
            }
        }
    }
    let last = match server {
        Some(url) => at(&url, &settings)?,
        None => registry,
    };
    hosts.push(apply(last, settings, folder)?);
    Ok(hosts)
}

/// The server with that URL. Its API is at `/v2` below it, unless it was said that the path is the API's already.
fn at(url: &str, settings: &Table) -> Result<Host, String> {
    let with_scheme = if url.starts_with("http") { url.to_owned() } else { format!("https://{url}") };
    let parsed = Url::parse(&with_scheme).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let parsed = parsed.ok_or_else(|| format!("names {url:?}, which is no http or https URL"))?;
    let host = parsed.host_str().unwrap_or_default();
    let authority = parsed.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = parsed.path().trim_end_matches('/');
    let is_whole = path.ends_with("/v2") || settings.get("override_path") == Some(&Value::Boolean(true));
    let version = if is_whole { "" } else { "/v2" };
    let api = format!("{}://{authority}{path}{version}", parsed.scheme());
    Ok(Host { api, ..Host::plain(parsed.scheme(), &authority) })
}

fn apply(mut host: Host, settings: Table, folder: &Path) -> Result<Host, String> {
    for (key, value) in settings {
        match key.as_str() {
            "capabilities" => {
                let capabilities = strings(&key, value)?;
                let has = |name: &str| capabilities.iter().any(|said| said.eq_ignore_ascii_case(name));
                let known = ["pull", "resolve", "push"];
                let unknown = capabilities.iter().find(|said| !known.contains(&said.to_lowercase().as_str()));
                if let Some(unknown) = unknown {
                    return Err(format!("names {unknown:?}, which is no capability"));
                }
                // An empty list says nothing, as upstream.
                (host.can_pull, host.can_resolve) = match capabilities.is_empty() {
                    true => (true, true),
                    false => (has("pull"), has("resolve")),
                };
            }
            "ca" => {
                let paths = strings(&key, value)?;
                host = host.trusting(paths.into_iter().map(|path| folder.join(path)).collect());
            }
            "dial_timeout" => {
                let text = value.as_str().ok_or_else(|| wrong_type(&key, "a duration such as \"5s\""))?;
                let duration: SignedDuration =
                    text.parse().map_err(|_| wrong_type(&key, "a duration such as \"5s\""))?;
                host.dial_timeout = Duration::try_from(duration).ok().filter(|timeout| !timeout.is_zero());
            }
            "override_path" | "skip_verify" if value == Value::Boolean(false) => {}
            "override_path" if value == Value::Boolean(true) => {}
            "override_path" | "skip_verify" if !value.is_bool() => {
                return Err(wrong_type(&key, "true or false"));
            }
            "skip_verify" => {
                return Err(
                    "sets skip_verify, which is not supported; give the registry's authority in `ca`"
                        .to_owned(),
                );
            }
            "client" => return Err(NO_CLIENT_CERTIFICATES.to_owned()),
            _ => return Err(format!("sets {key:?}, which is not supported")),
        }
    }
    Ok(host)
}

/// One string, or a list of them.
fn strings(key: &str, value: Value) -> Result<Vec<String>, String> {
    let wrong = || wrong_type(key, "a string or a list of strings");
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(list) => {
            list.into_iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

fn wrong_type(key: &str, expected: &str) -> String {
    format!("has a {key:?} that is not {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Host>, String> {
        read(text, Path::new("/certs.d/example.com"), Host::plain("https", "example.com"))
    }

    #[test]
    fn mirrors_are_asked_in_the_order_of_the_file_and_the_registry_last() {
        let hosts = read_text(
            "server = \"https://registry.example.com\"\n\
             ca = \"own.pem\"\n\
             [host.\"https://z.example.com\"]\n capabilities = [\"pull\"]\n\
             [host.\"http://a.example.com:5000/cache\"]\n capabilities = [\"pull\", \"Resolve\"]\n\
             [host.\"b.example.com/v2/\"]\n ca = [\"/etc/b.pem\", \"c.pem\"]\n dial_timeout = \"1m30s\"\n\
             [host.\"https://d.example.com/api\"]\n override_path = true\n skip_verify = false\n",
        )
        .unwrap();
        let mirror = |api: &str, authority: &str| Host {
            api: api.to_owned(),
            is_mirror: true,
            ..Host::plain("https", authority)
        };
        let folder = Path::new("/certs.d/example.com");
        let expected = [
            Host { can_resolve: false, ..mirror("https://z.example.com/v2", "z.example.com") },
            mirror("http://a.example.com:5000/cache/v2", "a.example.com:5000"),
            Host {
                ca: vec!["/etc/b.pem".into(), folder.join("c.pem")],
                dial_timeout: Some(Duration::from_secs(90)),
                ..mirror("https://b.example.com/v2", "b.example.com")
            },
            mirror("https://d.example.com/api", "d.example.com"),
            Host { ca: vec![folder.join("own.pem")], ..Host::plain("https", "registry.example.com") },
        ];
        assert_eq!(hosts, expected);
    }

    #[test]
    fn without_a_server_the_registry_itself_is_the_last() {
        let hosts = read_text("[host.\"https://m.example.com\"]").unwrap();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[1], Host::plain("https", "example.com"));
        assert_eq!(read_text("# nothing").unwrap(), [Host::plain("https", "example.com")]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, reason) in [
            ("skip_verify = true", "give the registry's authority in `ca`"),
            ("client = \"me.pem\"", "client certificates"),
            ("proxy = \"http://proxy\"", "\"proxy\", which is not supported"),
            ("[header]\nx = \"y\"", "\"header\", which is not supported"),
            ("capabilities = [\"fly\"]", "\"fly\", which is no capability"),
            ("server = 5", "\"server\" that is not a string"),
            ("ca = [5]", "\"ca\" that is not a string or a list of strings"),
            ("skip_verify = \"no\"", "\"skip_verify\" that is not true or false"),
            ("dial_timeout = 5", "such as \"5s\""),
            ("server = \"http://\"", "no http or https URL"),
            ("[host]\na = 1", "\"a\" that is not a table"),
            ("server = ", "does not parse"),
        ] {
            let error = read_text(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_folder_is_that_of_the_registry_or_the_default() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, file: &str, content: &str| {
            fs::create_dir_all(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join(file), content).unwrap();
        };
        let of = |domain: &str| hosts(root.path(), domain, Host::plain("https", domain));
        assert_eq!(of("example.com").unwrap(), [Host::plain("https", "example.com")]);

        make("_default", "hosts.toml", "[host.\"https://default.example.com\"]");
        make("example.com_5000_", "hosts.toml", "[host.\"https://port.example.com\"]");
        make("example.com:5000", "hosts.toml", "[host.\"https://colon.example.com\"]");
        make("ca.example.com", "b.crt", "");
        make("ca.example.com", "a.crt", "");
        make("client.example.com", "me.key", "");
        let first = |domain: &str| of(domain).unwrap()[0].authority.clone();
        assert_eq!(first("example.com:5000"), "port.example.com");
        fs::remove_dir_all(root.path().join("example.com_5000_")).unwrap();
        assert_eq!(first("example.com:5000"), "colon.example.com");
        assert_eq!(first("example.com"), "default.example.com");
        let authorities = &of("ca.example.com").unwrap()[0].ca;
        assert_eq!(authorities.len(), 2);
        assert!(authorities[0].ends_with("ca.example.com/a.crt"), "{authorities:?}");
        assert!(of("client.example.com").unwrap_err().to_string().contains("me.key asks for client"));
    }
}
