//! The real kubectl as the client.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{self, Finished};
use crate::programs;
use crate::wait::Deadline;

/// How long one call may take that waits for nothing.
const CALL: u64 = 60;

/// A kubectl for one user, and maybe one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

impl Kubectl {
    /// For the user of this kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_path_buf(), namespace: None }
    }

    /// The same, in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// The namespace that calls are about.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// The command, ready to be started with [`process::spawn`].
    pub fn command<I: AsRef<str>>(&self, args: &[I]) -> Result<Command> {
        let mut command = process::tethered(programs::bed("kubectl")?);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        // The cache of API groups would be shared by control planes that happen to use the same port.
        command.arg("--cache-dir").arg(self.kubeconfig.with_extension("cache"));
        command.args(args.iter().map(AsRef::as_ref));
        Ok(command)
    }

    /// Runs it to its end, whatever that is.
    pub fn finish<I: AsRef<str>>(&self, args: &[I], deadline: Deadline) -> Result<Finished> {
        process::finish(self.command(args)?, None, deadline)
    }

    /// Runs it and gives what it printed; an exit code other than 0 is an error.
    pub fn run<I: AsRef<str>>(&self, args: &[I]) -> Result<String> {
        succeeded(self.finish(args, Deadline::seconds(CALL))?)
    }

    /// Applies manifests: YAML, any number of documents.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.with_input(&["apply", "--filename", "-"], yaml)
    }

    /// Creates objects: YAML, any number of documents.
    pub fn create(&self, yaml: &str) -> Result<()> {
        self.with_input(&["create", "--filename", "-"], yaml)
    }

    fn with_input(&self, args: &[&str], input: &str) -> Result<()> {
        let finished = process::finish(self.command(args)?, Some(input.as_bytes()), Deadline::seconds(CALL))?;
        succeeded(finished).map(drop).with_context(|| input.to_owned())
    }

    /// An object, as the API gives it.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["get", kind, name, "--output=json"])?)?)
    }

    /// Objects of a kind, those with the label if one is given (`app=web`).
    pub fn list(&self, kind: &str, label: Option<&str>) -> Result<Vec<Value>> {
        let selector = format!("--selector={}", label.unwrap_or_default());
        let mut list: Value = serde_json::from_str(&self.run(&["get", kind, "--output=json", &selector])?)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("not a list: {list}"),
        }
    }

    /// Watches an object, which need not exist yet, until it is as wished, and gives it. The error says what it was
    /// last, with its events.
    pub fn until(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        deadline: Deadline,
        mut wish: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        while !deadline.is_over() {
            // The watch ends when the apiserver does; then it begins again.
            if let Some(object) = self.watch(kind, name, deadline, |object| {
                last = object.clone();
                wish(object)
            })? {
                return Ok(object);
            }
        }
        let events = self.run(&["events", "--for", &format!("{kind}/{name}")]).unwrap_or_default();
        bail!("gave up waiting for {kind}/{name}: {what}\nlast: {:#}\nevents:\n{events}", last["status"])
    }

    fn watch(
        &self,
        kind: &str,
        name: &str,
        deadline: Deadline,
        mut wish: impl FnMut(&Value) -> bool,
    ) -> Result<Option<Value>> {
        let selector = format!("--field-selector=metadata.name={name}");
        let mut command = self.command(&["get", kind, &selector, "--watch", "--output=json"])?;
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = process::spawn(command)?;
        let pipe = child.stdout.take().context("no pipe")?;
        let (sender, objects) = mpsc::channel();
        let reader = thread::spawn(move || {
            let stream = serde_json::Deserializer::from_reader(pipe).into_iter::<Value>();
            stream.map_while(Result::ok).try_for_each(|object| sender.send(object))
        });
        let mut found = None;
        while let Ok(object) = objects.recv_timeout(deadline.left()) {
            if wish(&object) {
                found = Some(object);
                break;
            }
        }
        drop(objects);
        let _ = child.kill();
        child.wait()?;
        let _ = reader.join();
        Ok(found)
    }

    /// Waits until an object is gone.
    pub fn until_gone(&self, kind: &str, name: &str, deadline: Deadline) -> Result<()> {
        let timeout = format!("--timeout={}s", deadline.left().as_secs().max(1));
        let finished =
            self.finish(&["wait", "--for=delete", &format!("{kind}/{name}"), &timeout], deadline)?;
        // It may be gone before kubectl looks.
        if finished.code == Some(0) || finished.stderr.contains("NotFound") {
            Ok(())
        } else {
            bail!("{finished:?}")
        }
    }

    /// The events about an object: `(reason, message)`, oldest first.
    pub fn events(&self, kind: &str, name: &str) -> Result<Vec<(String, String)>> {
        let selector = format!("--field-selector=involvedObject.kind={kind},involvedObject.name={name}");
        let list = self.run(&[
            "get",
            "events",
            &selector,
            "--sort-by=.metadata.creationTimestamp",
            "--output=json",
        ])?;
        let list: Value = serde_json::from_str(&list)?;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let events = list["items"].as_array().into_iter().flatten();
        Ok(events.map(|event| (text(event, "reason"), text(event, "message"))).collect())
    }
}

fn succeeded(finished: Finished) -> Result<String> {
    if finished.code == Some(0) {
        Ok(finished.stdout)
    } else {
        bail!("kubectl failed: {}", finished.stderr.trim())
    }
}
