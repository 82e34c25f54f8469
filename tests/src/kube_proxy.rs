//! kube-proxy of the control plane's own version, in iptables mode: Services of this machine lead to their pods.

use anyhow::Result;

use crate::control_plane::ControlPlane;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::Deadline;
use crate::{http, network, programs};

/// How long it may take to start on a busy machine.
const START: u64 = 60;

/// A running kube-proxy. Dropping it ends it; its rules go with the test's network namespace.
pub struct KubeProxy {
    _process: Process,
    _scratch: Scratch,
}

impl KubeProxy {
    /// Starts it for a node, and waits until it has written its rules.
    pub fn start(control_plane: &ControlPlane, node: &str) -> Result<Self> {
        let scratch = Scratch::new("kube-proxy")?;
        let healthz = format!("127.0.0.1:{}", network::free_port()?);
        let mut command = process::tethered(programs::bed("kube-proxy")?);
        command.arg("--kubeconfig").arg(control_plane.admin_kubeconfig());
        command.args(["--hostname-override", node, "--proxy-mode", "iptables"]);
        command.args(["--healthz-bind-address", &healthz]);
        command.args(["--metrics-bind-address", &format!("127.0.0.1:{}", network::free_port()?)]);
        // What belongs to the machine and not to the namespace is left alone.
        command.args(["--conntrack-max-per-core", "0", "--oom-score-adj", "0"]);
        command.args([
            "--conntrack-tcp-timeout-established",
            "0s",
            "--conntrack-tcp-timeout-close-wait",
            "0s",
        ]);
        let mut process = Process::start("kube-proxy", command, &scratch.join("kube-proxy.log"))?;
        let url = format!("http://{healthz}/healthz");
        process.await_ready(Deadline::seconds(START), || {
            http::get(&url).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self { _process: process, _scratch: scratch })
    }
}
