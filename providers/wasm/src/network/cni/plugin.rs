//! Running a plugin (sections 2 and 4 of the CNI specification): parameters in the environment, configuration on standard
//! input, the result on standard output.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process;
use tokio::time::timeout;

use super::INTERFACE;
use super::config::program;
use super::record::Attachment;

/// How long a plugin may take. Some wait for a daemon of theirs.
const PATIENCE: Duration = Duration::from_secs(90);
/// How much of a plugin's output is told when it is no error of CNI.
const SHOWN: usize = 400;

/// What a plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
}

impl Command {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }
}

/// One run of a plugin for a pod.
pub(super) struct Invocation<'a> {
    pub(super) command: Command,
    pub(super) attachment: &'a Attachment,
    pub(super) plugin: &'a Map<String, Value>,
}

impl Invocation<'_> {
    /// Runs the plugin, and gives its result; null where there is none. An error is what the plugin said.
    pub(super) async fn run(&self, bin_dirs: &[PathBuf]) -> Result<Value, String> {
        let name = program(self.plugin)?;
        let failed = |reason: String| format!("plugin {name} ({}): {reason}", self.command.as_str());
        let path = find(name, bin_dirs).map_err(failed)?;
        let output = timeout(PATIENCE, self.execute(&path, bin_dirs));
        let output = match output.await {
            Ok(output) => output.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {} seconds", PATIENCE.as_secs()))),
        };
        if !output.status.success() {
            return Err(failed(complaint(&output)));
        }
        if self.command == Command::Del || output.stdout.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| failed(format!("a result that is no JSON: {error}")))
    }

    async fn execute(&self, path: &Path, bin_dirs: &[PathBuf]) -> std::io::Result<std::process::Output> {
        let attachment = self.attachment;
        let pod = &attachment.pod;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, attachment.container_id, pod.uid
        );
        let mut command = process::Command::new(path);
        // Beside these it has this process's environment, as from libcni: plugins look for iptables in its PATH.
        command
            .env("CNI_COMMAND", self.command.as_str())
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", &attachment.namespace)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", arguments)
            .env("CNI_PATH", std::env::join_paths(bin_dirs).map_err(std::io::Error::other)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(self.configuration().to_string().as_bytes()).await {
                // It ended without reading; how it ended says why.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                result => result?,
            }
        }
        child.wait_with_output().await
    }

    /// The plugin's own configuration, with what it is a part of and what came before it.
    fn configuration(&self) -> Value {
        let mut configuration = self.plugin.clone();
        // These say to a runtime what it may add; plugins do not know them.
        configuration.remove("capabilities");
        configuration.insert("cniVersion".into(), self.attachment.network.version.clone().into());
        configuration.insert("name".into(), self.attachment.network.name.clone().into());
        // Versions before 0.4 know of no earlier result when they delete.
        if let Some(result) = &self.attachment.result
            && (self.command == Command::Add || !self.attachment.network.version.starts_with("0.3"))
        {
            configuration.insert("prevResult".into(), result.clone());
        }
        configuration.into()
    }
}

fn find(name: &str, bin_dirs: &[PathBuf]) -> Result<PathBuf, String> {
    let found = bin_dirs.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let folders: Vec<_> = bin_dirs.iter().map(|folder| folder.display().to_string()).collect();
        format!("there is no such program in {}", folders.join(", "))
    })
}

/// What a plugin that failed has to say: an error of CNI, or whatever it printed.
fn complaint(output: &std::process::Output) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        msg: String,
        #[serde(default)]
        details: String,
    }
    if let Ok(Complaint { msg, details }) = serde_json::from_slice(&output.stdout) {
        return if details.is_empty() { msg } else { format!("{msg}: {details}") };
    }
    let printed = [&output.stderr[..], &output.stdout[..]].concat();
    let printed = String::from_utf8_lossy(&printed);
    let shown: String = printed.trim().chars().take(SHOWN).collect();
    format!("{}: {}", output.status, shown.replace('\n', " "))
}
