//! metrics-server, which `kubectl top` and autoscalers ask. Here kubectl asks it directly and not by way of the apiserver,
//! which would need a Service.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::control_plane::ControlPlane;
use crate::kubectl::Kubectl;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::Deadline;
use crate::{network, programs};

/// How long it may take to start on a busy machine.
const START: u64 = 60;

/// A running metrics-server. Dropping it ends it.
pub struct MetricsServer {
    port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl MetricsServer {
    /// Starts it, and waits until it answers. It reads all nodes of the cluster every 10 seconds.
    pub fn start(control_plane: &ControlPlane) -> Result<Self> {
        let scratch = Scratch::new("metrics-server")?;
        let port = network::free_port()?;
        let mut command = process::tethered(programs::bed("metrics-server")?);
        for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            command.arg(flag).arg(control_plane.admin_kubeconfig());
        }
        command.arg("--client-ca-file").arg(control_plane.client_ca());
        command.arg("--authentication-skip-lookup").arg("--cert-dir").arg(scratch.path());
        command.args([
            "--secure-port",
            &port.to_string(),
            "--bind-address",
            &Ipv4Addr::LOCALHOST.to_string(),
        ]);
        // Nodes here have certificates of their own, and ports that they tell.
        command.args(["--kubelet-insecure-tls", "--kubelet-use-node-status-port"]);
        command.args(["--metric-resolution", "10s", "--kubelet-request-timeout", "5s"]);
        command.args(["--kubelet-preferred-address-types", "InternalIP"]);
        let mut process = Process::start("metrics-server", command, &scratch.join("metrics-server.log"))?;
        let admin = control_plane.kubectl();
        process.await_ready(Deadline::seconds(START), || answers(&admin, port))?;
        Ok(Self { port, _process: process, _scratch: scratch })
    }

    /// Runs `kubectl top` with these arguments, and gives what it printed.
    pub fn top(&self, kubectl: &Kubectl, args: &[&str]) -> Result<String> {
        let [server, insecure] = flags(self.port);
        kubectl.run(&[&["top"], args, &[&server, &insecure]].concat())
    }
}

fn flags(port: u16) -> [String; 2] {
    [format!("--server=https://{}:{port}", Ipv4Addr::LOCALHOST), "--insecure-skip-tls-verify".to_owned()]
}

fn answers(kubectl: &Kubectl, port: u16) -> bool {
    let [server, insecure] = flags(port);
    kubectl.run(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1", &server, &insecure]).is_ok()
}
