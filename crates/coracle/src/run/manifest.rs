//! From what the command line names to pods: a .wasm file becomes a pod of its own, YAML holds pods and what they need.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use coracle_core::config::{decode_strict, fixed_pod};
use coracle_core::pod::PodExt;
use k8s_openapi::api::core::v1::{ConfigMap, Container, ContainerPort, EnvVar, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{Publish, RunArgs};

/// The node's name, as pods see it.
pub(super) const NODE_NAME: &str = "localhost";
/// The largest manifest that is read: more is a mistake, not a manifest.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// Everything that was given.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) config_maps: Vec<ConfigMap>,
    pub(super) secrets: Vec<Secret>,
}

/// Reads what the command line names.
pub(super) fn load(args: &RunArgs) -> anyhow::Result<Documents> {
    let file = &args.file;
    let documents = if is_module(file)? {
        let pod = pod_of_module(args)?;
        let pod = fixed_pod(pod, &new_uid(), NODE_NAME)?;
        Documents { pods: vec![pod], ..Documents::default() }
    } else {
        ensure!(
            args.args.is_empty(),
            "arguments after -- are for a .wasm file; a pod has its own in spec.containers"
        );
        ensure!(args.env.is_empty(), "--env is for a .wasm file; a pod has its own in spec.containers");
        let (text, folder) = read(file)?;
        let name = file.display();
        parse(&text, &folder, &args.publish).with_context(|| format!("{name}"))?
    };
    ensure!(!documents.pods.is_empty(), "{}: there is no Pod to run", file.display());
    Ok(documents)
}

/// By its name, or by how it begins.
fn is_module(file: &Path) -> anyhow::Result<bool> {
    if file == Path::new("-") {
        return Ok(false);
    }
    let mut opened = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let named = file.extension().is_some_and(|e| e == "wasm" || e == "cwasm" || e == "wat");
    let mut magic = [0; 4];
    Ok(named || (opened.read_exact(&mut magic).is_ok() && &magic == b"\0asm"))
}

fn read(file: &Path) -> anyhow::Result<(String, PathBuf)> {
    let (input, folder): (Box<dyn Read>, PathBuf) = if file == Path::new("-") {
        (Box::new(std::io::stdin()), std::env::current_dir()?)
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let folder = file.canonicalize()?.parent().map(Path::to_owned).unwrap_or_default();
        (Box::new(opened), folder)
    };
    let mut bytes = Vec::new();
    input
        .take(MAX_MANIFEST_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(bytes.len() as u64 <= MAX_MANIFEST_BYTES, "{} is larger than 16 MiB", file.display());
    let text = String::from_utf8(bytes)
        .map_err(|_| anyhow::anyhow!("{} is neither a .wasm file nor text", file.display()))?;
    Ok((text, folder))
}

fn parse(text: &str, folder: &Path, publish: &[Publish]) -> anyhow::Result<Documents> {
    // The parser shows the line over several lines; the first says what and where.
    let documents = serde_saphyr::from_multiple::<Value>(text)
        .map_err(|error| anyhow::anyhow!("not YAML: {}", first_line(&error.to_string())))?;
    let mut result = Documents::default();
    let mut pods = Vec::new();
    for document in documents.into_iter().filter(|d| !d.is_null()) {
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        match (version.as_str(), kind.as_str()) {
            ("v1", "Pod") => pods.push(decode::<Pod>(document, "Pod")?),
            ("v1", "ConfigMap") => result.config_maps.push(decode(document, "ConfigMap")?),
            ("v1", "Secret") => result.secrets.push(with_string_data(decode(document, "Secret")?)),
            (_, "") => bail!("a document has no kind; coracle run takes Pod, ConfigMap and Secret"),
            (version, kind) => {
                bail!("{kind} ({version}) cannot be run here; coracle run takes Pod, ConfigMap and Secret")
            }
        }
    }
    for pod in &mut pods {
        resolve_local_images(pod, folder);
    }
    if !publish.is_empty() {
        ensure!(pods.len() == 1, "--publish needs exactly one Pod; use hostPort in spec.containers.ports");
        publish_ports(&mut pods[0], publish);
    }
    let mut names = HashSet::new();
    for pod in pods {
        let pod = fixed_pod(pod, &new_uid(), NODE_NAME)?;
        ensure!(
            names.insert(pod.display_name()),
            "Pod {}: Duplicate value: there is another of this name",
            pod.display_name()
        );
        result.pods.push(pod);
    }
    Ok(result)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ")
}

fn decode<T: DeserializeOwned + serde::Serialize>(document: Value, kind: &str) -> anyhow::Result<T> {
    let name =
        document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
    decode_strict(document).with_context(|| format!("{kind} {name}"))
}

/// `stringData` is for people to write; readers see `data` (as the apiserver does it).
fn with_string_data(mut secret: Secret) -> Secret {
    for (key, value) in secret.string_data.take().into_iter().flatten() {
        secret.data.get_or_insert_default().insert(key, k8s_openapi::ByteString(value.into_bytes()));
    }
    secret
}

/// `./` is the folder of the file that names the image, wherever the command was started.
fn resolve_local_images(pod: &mut Pod, folder: &Path) {
    let Some(spec) = &mut pod.spec else { return };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(relative) = container.image.as_deref().and_then(|image| image.strip_prefix("./")) {
            container.image = Some(folder.join(relative).to_string_lossy().into_owned());
        }
    }
}

fn publish_ports(pod: &mut Pod, publish: &[Publish]) {
    let Some(spec) = &mut pod.spec else { return };
    for wanted in publish {
        let port = i32::from(wanted.container_port);
        let declares = |c: &Container| c.ports.iter().flatten().any(|p| p.container_port == port);
        let index = spec.containers.iter().position(declares).unwrap_or(0);
        let Some(container) = spec.containers.get_mut(index) else { return };
        let ports = container.ports.get_or_insert_default();
        let host_port = Some(i32::from(wanted.host_port));
        let host_ip = wanted.host_ip.map(|ip| ip.to_string());
        match ports.iter_mut().find(|p| p.container_port == port && p.host_port.is_none()) {
            Some(declared) => (declared.host_port, declared.host_ip) = (host_port, host_ip),
            None => ports.push(ContainerPort {
                container_port: port,
                host_port,
                host_ip,
                ..ContainerPort::default()
            }),
        }
    }
}

/// A pod with one container, named after the file, that runs once.
fn pod_of_module(args: &RunArgs) -> anyhow::Result<Pod> {
    let path = args.file.canonicalize().with_context(|| format!("cannot open {}", args.file.display()))?;
    let image = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned();
    let name = pod_name(&args.file);
    let env = args.env.iter().map(|v| EnvVar {
        name: v.name.clone(),
        value: Some(v.value.clone()),
        ..EnvVar::default()
    });
    let container = Container {
        name: name.clone(),
        image: Some(image),
        args: (!args.args.is_empty()).then(|| args.args.clone()),
        env: Some(env.collect()),
        ..Container::default()
    };
    let spec = PodSpec {
        containers: vec![container],
        restart_policy: Some("Never".to_owned()),
        ..PodSpec::default()
    };
    let mut pod = Pod {
        metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
        spec: Some(spec),
        ..Pod::default()
    };
    publish_ports(&mut pod, &args.publish);
    Ok(pod)
}

/// The file's name as far as a pod can have it: a DNS label.
fn pod_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let label: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "wasm".to_owned() } else { label.to_owned() }
}

fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_here(text: &str) -> anyhow::Result<Documents> {
        parse(text, Path::new("/here"), &[])
    }

    #[test]
    fn several_documents_and_images_beside_them() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: ./a.wasm}, {name: b, image: example.com/b}]}\n";
        let documents = parse_here(text).unwrap();
        assert_eq!((documents.config_maps.len(), documents.secrets.len()), (1, 1));
        assert_eq!(documents.secrets[0].data.as_ref().unwrap()["k"].0, b"v");
        let images: Vec<_> =
            documents.pods[0].containers().iter().filter_map(|c| c.image.as_deref()).collect();
        assert_eq!(images, ["/here/a.wasm", "example.com/b"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, names) in [
            ("apiVersion: apps/v1\nkind: Deployment\n", "Deployment"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, imagee: x}]}\n",
                "imagee",
            ),
            ("kind: [unfinished", ""),
            ("metadata: {}\n", "no kind"),
        ] {
            let error = format!("{:#}", parse_here(text).unwrap_err());
            assert!(error.contains(names), "{error} should name {names}");
            assert!(!error.contains('\n'), "{error} is one line");
        }
    }

    #[test]
    fn pod_names_come_from_files() {
        for (file, name) in [("a/Hello World.wasm", "hello-world"), ("_.wasm", "wasm"), ("x.y.wasm", "x-y")] {
            assert_eq!(pod_name(Path::new(file)), name);
        }
    }

    #[test]
    fn a_published_port_is_the_one_that_a_container_declares() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: a}, {name: b, image: b, ports: [{containerPort: 80}]}]}\n";
        let publish = ["8080:80".parse().unwrap(), "8081:81".parse().unwrap()];
        let documents = parse(text, Path::new("/"), &publish).unwrap();
        let ports = |i: usize| -> Vec<_> {
            let ports = documents.pods[0].containers()[i].ports.iter().flatten();
            ports.map(|p| (p.host_port.unwrap(), p.container_port)).collect()
        };
        assert_eq!((ports(0), ports(1)), (vec![(8081, 81)], vec![(8080, 80)]));
    }
}
