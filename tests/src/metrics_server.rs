//! metrics-server, which `kubectl top` and autoscalers ask by way of the apiserver.

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, Deadline};
use crate::{network, programs};

/// How long it may take to start on a busy machine.
const START: u64 = 60;

/// The part of the API that it serves.
const GROUP: &str = "metrics.k8s.io";

/// A running metrics-server. Dropping it ends it.
pub struct MetricsServer {
    _process: Process,
    _scratch: Scratch,
}

impl MetricsServer {
    /// Starts it, and waits until the apiserver passes requests on to it. It reads all nodes every 10 seconds.
    pub fn start(control_plane: &ControlPlane) -> Result<Self> {
        let scratch = Scratch::new("metrics-server")?;
        let port = network::free_port()?;
        let mut command = process::tethered(programs::bed("metrics-server")?);
        for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            command.arg(flag).arg(control_plane.admin_kubeconfig());
        }
        let (port_flag, address) = (port.to_string(), Ipv4Addr::LOCALHOST.to_string());
        command
            .args(["--secure-port", &port_flag, "--bind-address", &address])
            .arg("--cert-dir")
            .arg(scratch.path());
        // The apiserver here has no certificate for those behind it, and whoever may ask it may ask this.
        command.args(["--authentication-skip-lookup", "--authorization-always-allow-paths", "/apis,/apis/*"]);
        // Nodes here have certificates of their own, and ports that they tell.
        command.args(["--kubelet-insecure-tls", "--kubelet-use-node-status-port"]);
        command.args(["--metric-resolution", "10s", "--kubelet-request-timeout", "5s"]);
        command.args(["--kubelet-preferred-address-types", "InternalIP"]);
        let process = Process::start("metrics-server", command, &scratch.join("metrics-server.log"))?;

        let admin = control_plane.kubectl();
        for object in behind_the_apiserver(port) {
            admin.apply(&object.to_string())?;
        }
        wait::eventually("the metrics API", Deadline::seconds(START), || {
            admin.run(&["get", "--raw", &format!("/apis/{GROUP}/v1beta1")])
        })?;
        Ok(Self { _process: process, _scratch: scratch })
    }
}

/// A Service that is but a name for this machine, so that nothing has to lead to it, and the right to ask for whoever the
/// apiserver is taken for.
fn behind_the_apiserver(port: u16) -> [serde_json::Value; 4] {
    let (name, namespace) = ("metrics-server", "kube-system");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": port }] },
    });
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": { "name": format!("v1beta1.{GROUP}") },
        "spec": {
            "group": GROUP,
            "version": "v1beta1",
            "service": { "name": name, "namespace": namespace, "port": port },
            "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": name },
        "rules": [{ "apiGroups": [GROUP], "resources": ["nodes", "pods"], "verbs": ["get", "list"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous" }],
    });
    [service, api, role, binding]
}
