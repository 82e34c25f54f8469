//! A Coracle node on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::kubectl::Kubectl;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::Deadline;
use crate::{http, network, programs};

/// The label of nodes that run only WebAssembly; they have a taint of the same name. deploy/runtimeclass.yaml leads pods
/// to them.
pub const LABEL: &str = "kubernetes.io/arch=wasm32-wasi";

/// How long a node may take to be Ready on a busy machine.
const START: u64 = 60;
/// How long the agent may take to end in order.
const STOP: Duration = Duration::from_secs(20);

/// A node: the coracle binary with files and ports of its own. Dropping it ends the agent in order.
pub struct Node {
    process: Process,
    settings: Settings,
}

/// What the agent is started with; it stays the same over restarts.
struct Settings {
    name: String,
    config: PathBuf,
    kubeconfig: PathBuf,
    port: u16,
    healthz: u16,
    /// Further flags. They come last, and so win.
    flags: Vec<String>,
    scratch: Scratch,
}

impl Node {
    /// Starts a node of this name.
    pub fn start(control_plane: &ControlPlane, name: &str) -> Result<Self> {
        Self::start_with(control_plane, name, &json!({}))
    }

    /// Starts a node whose KubeletConfiguration has these fields as well.
    pub fn start_with(control_plane: &ControlPlane, name: &str, fields: &Value) -> Result<Self> {
        Self::start_with_flags(control_plane, name, fields, &[])
    }

    /// The same, with further flags.
    pub fn start_with_flags(
        control_plane: &ControlPlane,
        name: &str,
        fields: &Value,
        flags: &[String],
    ) -> Result<Self> {
        let scratch = Scratch::new("node")?;
        let (port, healthz) = (network::free_port()?, network::free_port()?);
        let mut configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "port": port,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": healthz,
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": control_plane.client_ca() },
            },
            "authorization": { "mode": "Webhook" },
            "registerWithTaints": [
                { "key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoSchedule" },
            ],
            "podLogsDir": scratch.join("log/pods"),
            // However full the disk of this machine is, pods are welcome.
            "evictionHard": {},
        });
        for (field, value) in fields.as_object().into_iter().flatten() {
            configuration[field] = value.clone();
        }
        let config = scratch.write("config.yaml", serde_json::to_vec_pretty(&configuration)?)?;
        let kubeconfig = control_plane.node_kubeconfig(&scratch, name)?;
        let (name, flags) = (name.to_owned(), flags.to_vec());
        let settings = Settings { name, config, kubeconfig, port, healthz, flags, scratch };
        Ok(Self { process: settings.start()?, settings })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The process id of its agent.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The port of its HTTPS API.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// Where its health is served.
    pub fn healthz(&self) -> String {
        self.settings.healthz()
    }

    /// The folder of all the files that the agent keeps.
    pub fn root(&self) -> PathBuf {
        self.settings.scratch.join("root")
    }

    /// The folder of the pods' logs.
    pub fn pod_logs(&self) -> PathBuf {
        self.settings.scratch.join("log/pods")
    }

    /// All that its agent printed.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the node is Ready.
    pub fn await_ready(&self, kubectl: &Kubectl) -> Result<Value> {
        let result = kubectl.until("node", self.name(), "it is Ready", Deadline::seconds(START), |node| {
            condition(node, "Ready") == Some("True")
        });
        result.map_err(|error| error.context(self.process.log_tail()))
    }

    /// Ends the agent as an operator does.
    pub fn stop(&mut self) -> Result<()> {
        self.process.end_with(Signal::TERM, Deadline::after(STOP)).map(drop)
    }

    /// Ends the agent as the kernel does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts the agent again after it has ended, with the same files.
    pub fn resume(&mut self) -> Result<()> {
        self.process = self.settings.start()?;
        Ok(())
    }
}

impl Settings {
    fn healthz(&self) -> String {
        format!("http://127.0.0.1:{}/healthz", self.healthz)
    }

    fn start(&self) -> Result<Process> {
        let mut command = process::tethered(programs::coracle()?);
        command.arg("kubelet").arg("--config").arg(&self.config).arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(["--hostname-override", &self.name, "--node-ip", &network::node_ip()?.to_string()]);
        command.arg("--root-dir").arg(self.scratch.join("root"));
        command.arg("--cert-dir").arg(self.scratch.join("pki"));
        command.args(["--node-labels", LABEL, "-v", "2"]).args(&self.flags);
        let mut process = Process::start(&self.name, command, &self.scratch.join("coracle.log"))?;
        process.grace = STOP;
        process.await_ready(Deadline::seconds(START), || http::get(&self.healthz()).is_ok())?;
        Ok(process)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.log_tail());
        }
        let _ = self.stop();
        remove_log_links(&self.pod_logs());
    }
}

/// A node leaves links to its logs outside of its own folders, for log agents. An agent that is to come back keeps them.
fn remove_log_links(logs: &Path) {
    for link in fs::read_dir("/var/log/containers").into_iter().flatten().flatten() {
        if fs::read_link(link.path()).is_ok_and(|target| target.starts_with(logs)) {
            let _ = fs::remove_file(link.path());
        }
    }
}

/// The status of a condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}
