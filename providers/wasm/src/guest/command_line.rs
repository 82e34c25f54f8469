//! Arguments and environment of a guest, from the image and the container.

use std::collections::HashMap;

use coracle_provider::EnvVar;

use crate::image::{Artifact, ImageConfig};

/// What containers have from their runtime.
const HOSTNAME: &str = "HOSTNAME";

/// The command line. Its first word is what a guest takes for its own name: in a container image that is the file that
/// runs; an artifact has one program, and where neither it nor the container gives that a name it is the last part of
/// the image's.
pub(crate) fn arguments(
    artifact: &Artifact,
    image_name: &str,
    command: &[String],
    args: &[String],
) -> Vec<String> {
    let image = &artifact.config;
    let mut line = image.command_line(command, args);
    if !artifact.is_named && command.is_empty() && image.entrypoint.is_empty() {
        line.insert(0, short_name(image_name).to_owned());
    }
    line
}

/// `hello` of `registry.example.com:5000/team/hello:v1@sha256:…`.
fn short_name(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

/// The environment: the host name, the image's variables in their order, then the container's; a later one of the same
/// name takes the place of an earlier one.
pub(crate) fn environment(
    hostname: &str,
    image: &ImageConfig,
    container: &[EnvVar],
) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    let container = container.iter().map(|var| (&var.name, &var.value));
    let hostname = (HOSTNAME.to_owned(), hostname.to_owned());
    let own = std::iter::once(&hostname).chain(&image.env).map(|(name, value)| (name, value));
    for (name, value) in own.chain(container) {
        match positions.get(name) {
            Some(at) => variables[*at].1.clone_from(value),
            None => {
                positions.insert(name.clone(), variables.len());
                variables.push((name.clone(), value.clone()));
            }
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::image::{WasmBlob, WasmKind};

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    fn artifact(entrypoint: &[&str], cmd: &[&str], is_named: bool) -> Artifact {
        let wasm = WasmBlob { digest: String::new(), path: PathBuf::new(), size: 0, kind: WasmKind::Module };
        let config =
            ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..ImageConfig::default() };
        Artifact { manifest_digest: String::new(), wasm, config, is_named }
    }

    #[test]
    fn command_and_args_replace_what_the_image_says() {
        let image = artifact(&["/e"], &["c"], false);
        let line = |command: &[&str], args: &[&str]| {
            arguments(&image, "hello:v1", &strings(command), &strings(args))
        };
        assert_eq!(line(&[], &[]), ["/e", "c"]);
        assert_eq!(line(&[], &["a"]), ["/e", "a"]);
        assert_eq!(line(&["k"], &[]), ["k"]);
        assert_eq!(line(&["k"], &["a"]), ["k", "a"]);
    }

    #[test]
    fn a_program_without_a_name_gets_the_image_s() {
        let image = artifact(&[], &["c"], false);
        for name in ["localhost:5000/team/hello:v1", "hello", "example.com/a/hello@sha256:00"] {
            assert_eq!(arguments(&image, name, &[], &[]), ["hello", "c"]);
        }
        assert_eq!(arguments(&image, "hello", &[], &strings(&["-v"])), ["hello", "-v"]);
    }

    #[test]
    fn in_a_container_image_the_first_word_is_the_program_s_own() {
        let image = artifact(&[], &["app.wasm", "-v"], true);
        assert_eq!(arguments(&image, "hello", &[], &[]), ["app.wasm", "-v"]);
        assert_eq!(arguments(&image, "hello", &[], &strings(&["b.wasm"])), ["b.wasm"]);
        assert_eq!(arguments(&image, "hello", &strings(&["b.wasm"]), &[]), ["b.wasm"]);
    }

    #[test]
    fn the_container_s_variables_win() {
        let image = ImageConfig {
            env: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
            ..ImageConfig::default()
        };
        let var = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
        let merged = environment("pod", &image, &[var("C", "1"), var("A", "pod"), var("C", "2")]);
        let expected = [("HOSTNAME", "pod"), ("A", "pod"), ("B", "image"), ("C", "2")];
        assert_eq!(merged, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let merged = environment("pod", &image, &[var("HOSTNAME", "own")]);
        assert_eq!(merged[0], ("HOSTNAME".to_owned(), "own".to_owned()));
    }
}
