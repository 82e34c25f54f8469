//! `docs/flags.md`, written from the tables of flags and fields.

use std::fmt::Write as _;

use serde_json::Value;

use super::field::Unset;
use super::fields::FIELDS;
use super::flags::flags;
use super::support::Support;

const INTRODUCTION: &str = "\
# Flags and configuration of `coracle kubelet`

`coracle kubelet` takes the flags of the Kubernetes kubelet v1.37 and its configuration file, `KubeletConfiguration` of
`kubelet.config.k8s.io/v1beta1`. Later sources win: defaults, the file given by `--config`, the `*.conf` files of
`--config-dir` by name, flags.

Each setting has one of three answers:

- **works**: it does what it does upstream.
- **no effect**: it is read and checked; a value other than the default gives a warning at the start.
- **refused**: a value other than the default stops the start with a message that says what to do.

Where no default is given it is zero, empty or false. A flag of a field starts with the field's name. Flags that begin with
`--wasm-` are this program's own, for WebAssembly.

Differences from upstream:

- An unknown or repeated field in a file is an error with its line. Upstream logs it and goes on.
- Without a file, upstream's flags alone start a kubelet that lets everyone in. Here the defaults of the file hold
  always: no anonymous requests, and permissions are asked of the apiserver, if there is one.
- Without `--kubeconfig`, `staticPodPath` or `staticPodURL` has to be set: nothing starts that could have no pods.
- `containerRuntimeEndpoint` is empty by default: the node runs Wasm pods.
- `kubeAPIQPS: 0` means the default.
- Deprecated flags give one warning together, not one each.
";

/// The whole document.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n## Flags\n\n| flag | default | answer | what it does, or why it does nothing |\n|---|---|---|---|\n");
    for flag in flags() {
        let what = match flag.field {
            Some(field) => format!("`{}`: {}", field.path, field.support.reason()),
            None => flag.support.reason().to_owned(),
        };
        row(&mut text, &format!("--{}", flag.name), flag.unset, flag.support, &what);
    }
    text.push_str(
        "\n## Fields of KubeletConfiguration\n\n| field | default | answer | what it does, or why it does nothing |\n|---|---|---|---|\n",
    );
    for field in FIELDS {
        row(&mut text, field.path, field.unset, field.support, field.support.reason());
    }
    text
}

fn row(text: &mut String, name: &str, unset: Unset, support: Support, what: &str) {
    let default = match unset.default_value() {
        None => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| `{name}` | {default} | {} | {} |", support.word(), what.replace('|', "\\|"));
}
