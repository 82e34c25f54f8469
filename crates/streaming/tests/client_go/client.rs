//! `tests/go/kubernetes/streamclient`, which the bed holds.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).unwrap();
    let bed = set("CORACLE_BED").unwrap_or_else(|| cache().join("coracle/bed/current"));
    let program = bed.join("streamclient");
    assert!(program.is_file(), "{} is missing: run `cargo xtask setup`", program.display());
    program
}

/// A client that is killed when it is dropped.
pub(crate) fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

/// What became of a session: what it wrote, and how it ended.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Result {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) outcome: String,
}

/// Runs a session to its end. Without input, standard input stays open.
pub(crate) async fn exec(url: &str, arguments: &[&str], input: Option<&str>) -> Result {
    let mut child = start(&[&["exec", "-url", url], arguments].concat());
    let mut stdin = child.stdin.take().unwrap();
    if let Some(input) = input {
        stdin.write_all(input.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
        return result(timeout(LIMIT, child.wait_with_output()).await.expect("ends").unwrap());
    }
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("ends").unwrap();
    drop(stdin);
    result(output)
}

pub(crate) fn result(output: Output) -> Result {
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let (stderr, outcome) = stderr.trim_end().rsplit_once("outcome: ").unwrap_or((&stderr, "none"));
    Result { stdout, stderr: stderr.into(), outcome: outcome.into() }
}
