//! Which of the ways to put Wasm into an image this one uses.
//!
//! A Wasm artifact has one layer that is the binary, or several of which its entry point names one by its title. A
//! container image for `wasi/wasm` has archives as layers, and its command line names the binary in them. Only the
//! binary is taken out of those: other files of the image are not there for the guest.

use serde::Deserialize;

use super::artifact::ImageConfig;
use super::manifest::{Descriptor, Manifest, Platform};
use super::media_type::{
    DOCKER_CONFIG, OCI_CONFIG, SPIN_CONFIG, WASM_CONFIG, is_archive_layer, is_wasm_layer,
};

/// Where an image keeps its Wasm binary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// It is one of these layers: the only one, or that which [`wasm_layer`] finds.
    Layers(Vec<&'a Descriptor>),
    /// It is a file in the archives, the lowest first.
    Archives(&'a [Descriptor]),
}

/// Why an image is nothing that this provider runs. Continues "image X …".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error(
        "is for {0}; this provider runs Wasm: build it for wasi/wasm, or use a runtime class for containers"
    )]
    WrongPlatform(Platform),
    #[error("holds no Wasm: its layers are {0}")]
    NoWasm(String),
    #[error(
        "has several Wasm layers ({0}), and no entry point that names one of them by its title; \
         compose them to one component, or push one alone"
    )]
    ManyWasmLayers(String),
    #[error(
        "has archives as layers, but a configuration of type {0:?}, which is not a container image's; \
         push a binary with its type, as in `oras push NAME app.wasm:application/wasm`"
    )]
    NoImage(String),
    #[error("has a layer of type {0:?} beside its Wasm, which is not supported")]
    OtherLayer(String),
    #[error("is a Spin application, which is not supported; push its component as a Wasm artifact")]
    Spin,
    #[error("has a configuration that does not parse: {0}")]
    Config(String),
    #[error(
        "names no entry point; set `command` of the container, or ENTRYPOINT of the image, to the .wasm file in it"
    )]
    NoEntryPoint,
}

impl Manifest {
    /// Where the binary is, as far as the manifest tells.
    pub(super) fn content(&self) -> Result<Content<'_>, FormatError> {
        if self.config.media_type == SPIN_CONFIG {
            return Err(FormatError::Spin);
        }
        let wasm: Vec<_> = self.layers.iter().filter(|layer| is_wasm_layer(&layer.media_type)).collect();
        let other = self.layers.iter().find(|layer| !is_wasm_layer(&layer.media_type));
        match (wasm.as_slice(), other) {
            ([_, ..], None) => Ok(Content::Layers(wasm)),
            ([_, ..], Some(other)) => Err(FormatError::OtherLayer(other.media_type.clone())),
            ([], Some(_)) if self.layers.iter().all(|layer| is_archive_layer(&layer.media_type)) => {
                match self.has_image_config() {
                    true => Ok(Content::Archives(&self.layers)),
                    false => Err(FormatError::NoImage(self.config.media_type.clone())),
                }
            }
            ([], _) => Err(FormatError::NoWasm(layer_types(&self.layers))),
        }
    }

    fn has_image_config(&self) -> bool {
        matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG)
    }

    /// Reads the configuration blob; refuses an image that says that it is for something else than Wasm.
    ///
    /// The configurations of older Wasm artifacts have types of their own and any content, so they are not looked at.
    pub(super) fn image_config(&self, config: &[u8]) -> Result<ImageConfig, FormatError> {
        if !self.has_image_config() && self.config.media_type != WASM_CONFIG {
            return Ok(ImageConfig::default());
        }
        let raw: RawConfig =
            serde_json::from_slice(config).map_err(|e| FormatError::Config(e.to_string()))?;
        // An artifact may come with an empty configuration; that of a container image says what it is for.
        let is_artifact = matches!(self.content(), Ok(Content::Layers(_)));
        let is_unsaid = is_artifact && raw.platform == Platform::default();
        if !(raw.platform.is_wasm() || is_unsaid) {
            return Err(FormatError::WrongPlatform(raw.platform));
        }
        Ok(raw.config.unwrap_or_default().into())
    }
}

impl ImageConfig {
    /// The paths at which the program may be that the command line begins with; none if the image has no command line.
    pub(super) fn entry_files(&self) -> Option<Vec<String>> {
        let name = self.entrypoint.first().or(self.cmd.first()).filter(|name| !name.is_empty())?;
        Some(files_named(name, &self.working_dir))
    }

    /// The command line, as `command` and `args` of a container are documented: `command` replaces the image's
    /// entry point and its arguments, `args` alone replaces the arguments.
    pub(crate) fn command_line(&self, command: &[String], args: &[String]) -> Vec<String> {
        match (command, args) {
            ([], []) => [self.entrypoint.as_slice(), &self.cmd].concat(),
            ([], args) => [&self.entrypoint, args].concat(),
            (command, args) => [command, args].concat(),
        }
    }
}

/// The paths at which the program may be that a command line calls `name`.
pub(super) fn files_named(name: &str, working_dir: &str) -> Vec<String> {
    if name.starts_with('/') {
        return vec![name.to_owned()];
    }
    vec![format!("{working_dir}/{name}"), format!("/{name}")]
}

/// The layer that is the binary: the only one, or that of which the title is the entry point.
pub(super) fn wasm_layer<'a>(
    layers: &[&'a Descriptor],
    config: &ImageConfig,
) -> Result<&'a Descriptor, FormatError> {
    if let [only] = layers {
        return Ok(only);
    }
    let file_name = |path: &str| path.trim_start_matches("./").trim_start_matches('/').to_owned();
    let entry = config.entrypoint.first().or(config.cmd.first()).map(|path| file_name(path));
    let is_meant = |layer: &&&Descriptor| layer.title().map(file_name) == entry;
    let mut meant = layers.iter().filter(is_meant);
    match (entry.is_some(), meant.next(), meant.next()) {
        (true, Some(layer), None) => Ok(layer),
        _ => {
            let titles: Vec<&str> =
                layers.iter().map(|layer| layer.title().unwrap_or("without a title")).take(4).collect();
            Err(FormatError::ManyWasmLayers(titles.join(", ")))
        }
    }
}

fn layer_types(layers: &[Descriptor]) -> String {
    let mut types: Vec<&str> = layers.iter().map(|layer| layer.media_type.as_str()).collect();
    types.dedup();
    types.truncate(4);
    if types.is_empty() { "none".to_owned() } else { types.join(", ") }
}

/// The configuration of a container image, or of a Wasm artifact, which has the platform in the same place.
#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    config: Option<RunConfig>,
}

/// JSON `null` and a missing field are the same to the tools that write these.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

impl From<RunConfig> for ImageConfig {
    fn from(raw: RunConfig) -> Self {
        let split = |variable: String| match variable.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (variable, String::new()),
        };
        Self {
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            env: raw.env.unwrap_or_default().into_iter().map(split).collect(),
            working_dir: raw.working_dir.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::image::digest::Digest;
    use crate::image::media_type::{OCI_MANIFEST, WASM_LAYER};

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const KRUSTLET: &str = "application/vnd.wasm.content.layer.v1+wasm";

    fn manifest(config: &str, layers: &[&str]) -> Manifest {
        let descriptor = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(b""),
            size: 0,
            platform: None,
            artifact_type: None,
            annotations: None,
        };
        Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: descriptor(config),
            layers: layers.iter().map(|media_type| descriptor(media_type)).collect(),
            annotations: None,
        }
    }

    #[test]
    fn the_known_formats_are_told_apart_by_their_layers() {
        let component = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
        for layer in [WASM_LAYER, KRUSTLET, component, "application/vnd.module.wasm.content.layer.v1+wasm"] {
            let manifest = manifest("any", &[layer]);
            assert!(
                matches!(manifest.content(), Ok(Content::Layers(layers)) if layers.len() == 1),
                "{layer}"
            );
        }
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let image = manifest(DOCKER_CONFIG, &[docker, TAR]);
        assert!(matches!(image.content(), Ok(Content::Archives(layers)) if layers.len() == 2));
    }

    #[test]
    fn other_contents_are_refused_by_name() {
        let spin_data = "application/vnd.wasm.content.layer.v1+data";
        for (config, layers, error) in [
            (OCI_CONFIG, vec![], FormatError::NoWasm("none".to_owned())),
            (OCI_CONFIG, vec!["a", "a", "b"], FormatError::NoWasm("a, b".to_owned())),
            (OCI_CONFIG, vec![TAR, "a"], FormatError::NoWasm(format!("{TAR}, a"))),
            (
                "application/vnd.unknown",
                vec![TAR],
                FormatError::NoImage("application/vnd.unknown".to_owned()),
            ),
            (OCI_CONFIG, vec![WASM_LAYER, TAR], FormatError::OtherLayer(TAR.to_owned())),
            (SPIN_CONFIG, vec![KRUSTLET, spin_data], FormatError::Spin),
        ] {
            assert_eq!(manifest(config, &layers).content(), Err(error));
        }
    }

    #[test]
    fn one_of_several_layers_is_named_by_the_entry_point() {
        let mut manifest = manifest(OCI_CONFIG, &[WASM_LAYER, KRUSTLET]);
        for (layer, title) in manifest.layers.iter_mut().zip(["a.wasm", "./b.wasm"]) {
            layer.annotations =
                Some([("org.opencontainers.image.title".to_owned(), title.to_owned())].into());
        }
        let Ok(Content::Layers(layers)) = manifest.content() else { panic!("layers") };
        let find = |entrypoint: &[&str]| {
            let entrypoint = entrypoint.iter().map(|&word| word.to_owned()).collect();
            wasm_layer(&layers, &ImageConfig { entrypoint, ..ImageConfig::default() })
                .map(|layer| layer.media_type.as_str())
        };
        assert_eq!(find(&["/b.wasm", "-v"]), Ok(KRUSTLET));
        assert_eq!(find(&["a.wasm"]), Ok(WASM_LAYER));
        for entrypoint in [&[][..], &["c.wasm"], &[""]] {
            assert_eq!(find(entrypoint), Err(FormatError::ManyWasmLayers("a.wasm, ./b.wasm".to_owned())));
        }
    }

    #[test]
    fn an_image_for_another_platform_is_refused_and_an_unsaid_one_only_for_archives() {
        let wasm = json!({"os": "wasip2", "architecture": "wasm"});
        let linux = json!({"os": "linux", "architecture": "amd64"});
        for (media_type, layer, config, accepted) in [
            (OCI_CONFIG, TAR, &wasm, true),
            (OCI_CONFIG, TAR, &linux, false),
            (OCI_CONFIG, TAR, &json!({}), false),
            (DOCKER_CONFIG, TAR, &linux, false),
            (OCI_CONFIG, WASM_LAYER, &wasm, true),
            (OCI_CONFIG, WASM_LAYER, &json!({}), true),
            (OCI_CONFIG, WASM_LAYER, &linux, false),
            (WASM_CONFIG, WASM_LAYER, &wasm, true),
            (WASM_CONFIG, WASM_LAYER, &linux, false),
            ("application/vnd.wasm.config.v1+json", KRUSTLET, &linux, true),
            ("application/vnd.wasm.config.v1+json", KRUSTLET, &json!("anything"), true),
        ] {
            let read = manifest(media_type, &[layer]).image_config(config.to_string().as_bytes());
            assert_eq!(read.is_ok(), accepted, "{media_type} {layer} {config}: {read:?}");
        }
        let message =
            manifest(OCI_CONFIG, &[TAR]).image_config(linux.to_string().as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with("is for linux/amd64; "), "{message}");
        assert!(manifest(OCI_CONFIG, &[TAR]).image_config(b"{").is_err());
    }

    #[test]
    fn the_run_configuration_is_read() {
        let config = json!({"os": "wasi", "architecture": "wasm", "config": {
            "Entrypoint": ["/app.wasm", "-v"], "Cmd": null, "Env": ["A=1=2", "B"], "WorkingDir": "/srv", "User": "65534"
        }});
        let read = manifest(OCI_CONFIG, &[TAR]).image_config(config.to_string().as_bytes()).unwrap();
        let expected = ImageConfig {
            entrypoint: vec!["/app.wasm".to_owned(), "-v".to_owned()],
            cmd: Vec::new(),
            env: vec![("A".to_owned(), "1=2".to_owned()), ("B".to_owned(), String::new())],
            working_dir: "/srv".to_owned(),
            user: "65534".to_owned(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn the_entry_point_is_a_file_of_the_image() {
        let config = |entrypoint: &[&str], cmd: &[&str], working_dir: &str| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            ImageConfig {
                entrypoint: owned(entrypoint),
                cmd: owned(cmd),
                working_dir: working_dir.to_owned(),
                ..ImageConfig::default()
            }
        };
        let files = |config: ImageConfig| config.entry_files().map(|files| files.join(" "));
        assert_eq!(files(config(&["/a.wasm", "b"], &["c"], "/w")).unwrap(), "/a.wasm");
        assert_eq!(files(config(&[], &["a.wasm"], "/w")).unwrap(), "/w/a.wasm /a.wasm");
        assert_eq!(files(config(&[], &[], "/w")), None);
        assert_eq!(files(config(&[""], &[], "/w")), None);
    }
}
