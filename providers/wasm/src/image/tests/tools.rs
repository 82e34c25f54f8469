//! Images as other people's tools make them, and our store as they read it.

use std::process::Command;

use tempfile::TempDir;

use super::super::*;
use super::bed::{Bed, component, module, platform, tar};
use super::real::{Registry, program};

/// A folder to push files from.
struct Desk {
    dir: TempDir,
    registry: Registry,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: TempDir::new().unwrap(), registry: Registry::start() };
        desk.write("a.wasm", &module());
        desk.write("b.wasm", &component());
        desk.write("layer.tar", &tar(&[("bin/app.wasm", &module()), ("etc/motd", b"hello")]));
        desk
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Runs a tool; `REGISTRY` in its arguments is the registry. Answers what it printed.
    fn run(&self, tool: &str, args: &[&str]) -> String {
        let args = args.iter().map(|arg| arg.replace("REGISTRY", &self.registry.host));
        let output = Command::new(program(tool)).args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn oras_push(&self, name: &str, args: &[&str]) -> String {
        let reference = self.registry.reference(name);
        self.run("oras", &[&["push", "--plain-http", &reference], args].concat());
        reference
    }

    /// A container image by crane, with Docker's media types or the OCI's.
    fn crane_image(&self, name: &str, base: &[&str], platform: &str) -> String {
        let reference = self.registry.reference(name);
        self.run("crane", &[&["append", "-f", "layer.tar", "-t", &reference], base].concat());
        let command =
            ["--entrypoint", "/bin/app.wasm,-v", "--cmd", "one,two", "--env", "A=b", "--workdir", "/srv"];
        let mutate = ["mutate", &reference, "-t", &reference, "--set-platform", platform];
        self.run("crane", &[&mutate[..], &command[..]].concat());
        reference
    }
}

#[tokio::test]
async fn what_oras_pushes_is_run() {
    let desk = Desk::new();
    desk.write("wasip1.json", &platform("wasip1", "wasm"));
    desk.write(
        "wasip2.json",
        br#"{"architecture":"wasm","os":"wasip2","layerDigests":[],"component":{"exports":[]}}"#,
    );
    desk.write("empty.json", b"{}");
    let bed = Bed::new();
    for (name, wasm, args) in [
        ("plain", module(), &["a.wasm:application/wasm"][..]),
        (
            "type",
            module(),
            &["--artifact-type", "application/vnd.wasm.config.v0+json", "a.wasm:application/wasm"],
        ),
        (
            "cncf",
            module(),
            &["--config", "wasip1.json:application/vnd.wasm.config.v0+json", "a.wasm:application/wasm"],
        ),
        (
            "cncf2",
            component(),
            &["--config", "wasip2.json:application/vnd.wasm.config.v0+json", "b.wasm:application/wasm"],
        ),
        (
            "image",
            component(),
            &["--config", "wasip2.json:application/vnd.oci.image.config.v1+json", "b.wasm:application/wasm"],
        ),
        ("v1.0", module(), &["--image-spec", "v1.0", "a.wasm:application/wasm"]),
        (
            "krustlet",
            module(),
            &[
                "--config",
                "empty.json:application/vnd.wasm.config.v1+json",
                "a.wasm:application/vnd.wasm.content.layer.v1+wasm",
            ],
        ),
        ("runwasi", component(), &["b.wasm:application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"]),
        (
            "annotated",
            module(),
            &["--annotation", "org.opencontainers.image.version=1", "a.wasm:application/wasm"],
        ),
    ] {
        let reference = desk.oras_push(&format!("{name}:v1"), args);
        let image = bed.pull(&reference).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(bed.binary(&reference), wasm, "{name}");
        // Pinned by digest, on a node that has never seen it.
        let elsewhere = Bed::new();
        elsewhere.pull(&image.repo_digests[0]).await.unwrap();
        assert_eq!(elsewhere.binary(&image.id), wasm, "{name}");
    }
}

#[tokio::test]
async fn of_several_binaries_the_entry_point_names_one() {
    let desk = Desk::new();
    let config = r#"{"architecture":"wasm","os":"wasip2","config":{"Entrypoint":["b.wasm"]}}"#;
    desk.write("config.json", config.as_bytes());
    let both = ["a.wasm:application/wasm", "b.wasm:application/wasm"];
    let config = ["--config", "config.json:application/vnd.oci.image.config.v1+json"];
    let bed = Bed::new();
    let reference = desk.oras_push("named:v1", &[&config[..], &both[..]].concat());
    bed.pull(&reference).await.unwrap();
    assert_eq!(bed.binary(&reference), component());

    let error = Bed::new().refused(&desk.oras_push("unnamed:v1", &both)).await;
    assert!(error.message.contains("has several Wasm layers (a.wasm, b.wasm)"), "{error}");
}

#[tokio::test]
async fn what_oras_pushes_by_mistake_is_refused_with_what_to_do() {
    let desk = Desk::new();
    desk.write("README.md", b"# read me");
    for (name, args, reason) in [
        (
            "untyped:v1",
            &["a.wasm"][..],
            "push a binary with its type, as in `oras push NAME app.wasm:application/wasm`",
        ),
        (
            "mixed:v1",
            &["a.wasm:application/wasm", "README.md:text/markdown"],
            "has a layer of type \"text/markdown\" beside",
        ),
        ("text:v1", &["README.md:text/markdown"], "holds no Wasm: its layers are text/markdown"),
    ] {
        let error = Bed::new().refused(&desk.oras_push(name, args)).await;
        assert!(error.message.contains(reason), "{name}: {error}");
    }
}

#[tokio::test]
async fn container_images_of_crane_and_skopeo_are_run() {
    let desk = Desk::new();
    let expected = ImageConfig {
        entrypoint: vec!["/bin/app.wasm".to_owned(), "-v".to_owned()],
        cmd: vec!["one".to_owned(), "two".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        working_dir: "/srv".to_owned(),
        user: String::new(),
    };
    let copy = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let bed = Bed::new();
    for (name, base, platform) in [
        ("docker", &[][..], "wasi/wasm"),
        ("oci", &["--oci-empty-base"], "wasip1/wasm"),
        ("buildkit", &["--oci-empty-base"], "wasi/wasm32"),
    ] {
        let mut references = vec![desk.crane_image(&format!("{name}:v1"), base, platform)];
        for (tag, options) in [
            ("zstd", &["--format", "oci", "--dest-compress", "--dest-compress-format", "zstd"][..]),
            ("v2s2", &["--format", "v2s2"]),
        ] {
            let copied = desk.registry.reference(&format!("{name}:{tag}"));
            let (from, to) = (format!("docker://{}", references[0]), format!("docker://{copied}"));
            desk.run("skopeo", &[&copy[..], options, &[&from, &to]].concat());
            references.push(copied);
        }
        for reference in references {
            bed.pull(&reference).await.unwrap_or_else(|error| panic!("{reference}: {error}"));
            assert_eq!(bed.binary(&reference), module(), "{reference}");
            assert_eq!(bed.artifact(&reference).unwrap().config, expected, "{reference}");
        }
    }
}

#[tokio::test]
async fn an_index_by_crane_is_resolved_by_platform() {
    let desk = Desk::new();
    let wasm = desk.crane_image("wasm:v1", &["--oci-empty-base"], "wasi/wasm");
    let linux = desk.crane_image("linux:v1", &["--oci-empty-base"], "linux/amd64");
    let artifact = desk.oras_push(
        "artifact:v1",
        &["--artifact-type", "application/vnd.wasm.config.v0+json", "b.wasm:application/wasm"],
    );
    let index = |name: &str, images: &[&str]| {
        let reference = desk.registry.reference(name);
        let images: Vec<&str> = images.iter().flat_map(|image| ["-m", *image]).collect();
        desk.run("crane", &[&["index", "append", "-t", &reference], &images[..]].concat());
        reference
    };
    let bed = Bed::new();
    for (name, images, expected) in [
        ("both:v1", &[linux.as_str(), &wasm][..], module()),
        ("with-artifact:v1", &[&linux, &artifact], component()),
    ] {
        let reference = index(name, images);
        bed.pull(&reference).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(bed.binary(&reference), expected, "{name}");
    }
    let error = Bed::new().refused(&index("linux-only:v1", &[&linux])).await;
    assert!(error.message.contains("has no Wasm variant: it offers linux/amd64"), "{error}");
}

#[tokio::test]
async fn the_store_is_an_image_layout_that_skopeo_and_oras_read() {
    let desk = Desk::new();
    let bed = Bed::new();
    let layout = bed.dir.path().join("images");
    let artifact = bed.pull(&desk.oras_push("artifact:v1", &["a.wasm:application/wasm"])).await.unwrap();
    let at = format!("{}@{}", layout.display(), artifact.id);
    let manifest = desk.run("oras", &["manifest", "fetch", "--oci-layout", &at]);
    assert_eq!(Digest::of(manifest.as_bytes()).to_string(), artifact.id);

    let container = desk.crane_image("container:v1", &["--oci-empty-base"], "wasi/wasm");
    let container = bed.pull(&container).await.unwrap();
    let from = format!("oci:{}:{}", layout.display(), container.repo_tags[0]);
    let to = "docker://REGISTRY/again:v1";
    desk.run(
        "skopeo",
        &["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", &from, to],
    );
    let again = bed.pull(&desk.registry.reference("again:v1")).await.unwrap();
    assert_eq!(again.id, container.id);
}
