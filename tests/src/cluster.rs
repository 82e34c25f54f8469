//! One control plane for all tests of a program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::kubectl::Kubectl;
use crate::node::Node;
use crate::programs;
use crate::wait::{self, Deadline};

/// A namespace and a node for one test, on the shared control plane.
pub struct Cluster {
    /// The node. Its pods go first when the test ends.
    pub node: Node,
    /// kubectl in the test's namespace, as cluster-admin.
    pub kubectl: Kubectl,
    /// What the test's objects have in their names.
    pub name: String,
}

/// The control plane that all tests of this program share. It ends with the program.
pub fn control_plane() -> Result<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane>> = OnceLock::new();
    let shared = SHARED.get_or_init(start_control_plane);
    shared.as_ref().map_err(|error| anyhow::anyhow!("the control plane did not start: {error:#}"))
}

/// A control plane for one test, which may stop it, set up for Coracle.
pub fn start_control_plane() -> Result<ControlPlane> {
    let control_plane = ControlPlane::start()?;
    install(&control_plane.kubectl())?;
    Ok(control_plane)
}

/// What a cluster gets for Coracle: deploy/runtimeclass.yaml.
fn install(kubectl: &Kubectl) -> Result<()> {
    let class = programs::repository().join("deploy/runtimeclass.yaml");
    kubectl.apply(&std::fs::read_to_string(&class).with_context(|| class.display().to_string())?)
}

/// A new namespace, ready for pods.
pub fn namespace(control_plane: &ControlPlane, name: &str) -> Result<Kubectl> {
    let admin = control_plane.kubectl();
    admin.run(&["create", "namespace", name])?;
    let kubectl = admin.in_namespace(name);
    wait::eventually("the namespace's service account", Deadline::seconds(30), || {
        kubectl.run(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt"])
    })?;
    Ok(kubectl)
}

impl Cluster {
    /// A namespace and a Ready node for the test of this name.
    pub fn new(test: &str) -> Result<Self> {
        Self::with_configuration(test, &json!({}))
    }

    /// The same with a node whose KubeletConfiguration has these fields as well.
    pub fn with_configuration(test: &str, fields: &Value) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self::on(control_plane()?, &format!("{test}-{}", COUNT.fetch_add(1, Ordering::Relaxed)), fields)
    }

    /// The same on a control plane of the test's own, which it may stop.
    pub fn on(control_plane: &ControlPlane, name: &str, fields: &Value) -> Result<Self> {
        let kubectl = namespace(control_plane, name)?;
        let node = Node::start_with(control_plane, name, fields)?;
        node.await_ready(&control_plane.kubectl())?;
        Ok(Self { node, kubectl, name: name.to_owned() })
    }
}
