//! A control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result};

use crate::audit::{self, Call};
use crate::certificates::{self, Authority, Pair, SigningKey};
use crate::kubectl::Kubectl;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, Deadline};
use crate::{kubeconfig, network, programs};

/// Addresses of services. The first is the apiserver's own.
const SERVICES: &str = "10.96.0.0/16";

/// How many of the bits of an address all pods of a node share: a thousand pods fit.
const NODE_RANGE: &str = "22";

/// The file with what nodes asked of the apiserver.
const AUDIT_LOG: &str = "audit.log";

/// How long a component may take to start on a busy machine.
const START: u64 = 60;

/// The control plane. Dropping it ends it.
pub struct ControlPlane {
    // Fields are dropped in this order: clients before servers, files last.
    scheduler: Process,
    controller_manager: Process,
    apiserver: Process,
    etcd: Process,
    authority: Authority,
    layout: Layout,
}

/// What the components are started with; it stays the same over restarts.
struct Layout {
    scratch: Scratch,
    etcd: String,
    url: String,
    port: u16,
    serving: Pair,
    kubelet_client: Pair,
    tokens: SigningKey,
    audit_policy: PathBuf,
    pods: String,
    admin: PathBuf,
}

impl ControlPlane {
    /// Starts everything and waits until it serves.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new("control-plane")?;
        let authority = Authority::new(&scratch)?;
        let etcd_url = format!("http://127.0.0.1:{}", network::free_port()?);
        let etcd = start_etcd(&scratch, &etcd_url)?;
        let layout = Layout::new(scratch, &authority, etcd_url)?;
        let mut apiserver = layout.start_apiserver(&authority)?;
        layout.await_apiserver(&mut apiserver)?;
        let controller_manager = layout.start_controller_manager(&authority)?;
        let scheduler = layout.start_scheduler()?;
        let control_plane = Self { scheduler, controller_manager, apiserver, etcd, authority, layout };
        control_plane.await_controllers()?;
        Ok(control_plane)
    }

    /// kubectl as cluster-admin.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.layout.admin)
    }

    /// The kubeconfig of the cluster-admin.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.layout.admin
    }

    /// Where the apiserver serves.
    pub fn url(&self) -> &str {
        &self.layout.url
    }

    /// The certificate that signs all clients.
    pub fn client_ca(&self) -> &Path {
        &self.authority.files.certificate
    }

    /// A kubeconfig for a node, as its bootstrap would have left it.
    pub fn node_kubeconfig(&self, folder: &Scratch, node: &str) -> Result<PathBuf> {
        let client = self.authority.client(folder, &format!("system:node:{node}"), "system:nodes")?;
        kubeconfig::write(folder, "kubelet", self.url(), self.client_ca(), &client)
    }

    /// Ends the apiserver, as a crash does. (In order, it waits a minute for watches to end.)
    pub fn stop_apiserver(&mut self) -> Result<()> {
        self.apiserver.kill()
    }

    /// Starts the apiserver again, on the same port, and waits until it serves.
    pub fn start_apiserver(&mut self) -> Result<()> {
        self.apiserver = self.layout.start_apiserver(&self.authority)?;
        self.layout.await_apiserver(&mut self.apiserver)
    }

    /// All that a node has asked of the apiserver so far.
    pub fn calls_of(&self, node: &str) -> Result<Vec<Call>> {
        audit::calls(&self.layout.scratch.join(AUDIT_LOG), &format!("system:node:{node}"))
    }

    /// The process ids of the apiserver and of what it stores in.
    pub fn apiserver_ids(&self) -> [u32; 2] {
        [self.apiserver.id(), self.etcd.id()]
    }

    /// The ends of all logs, for a failure's report.
    pub fn logs(&self) -> String {
        let processes = [&self.apiserver, &self.controller_manager, &self.scheduler];
        processes.map(Process::log_tail).join("\n")
    }

    /// Pods can be created once the controllers have made their service account.
    fn await_controllers(&self) -> Result<()> {
        let kubectl = self.kubectl();
        let result = wait::eventually("controllers run", Deadline::seconds(START), || {
            kubectl.run(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt"])
        });
        result.map(drop).with_context(|| self.logs())
    }
}

impl Layout {
    fn new(scratch: Scratch, authority: &Authority, etcd: String) -> Result<Self> {
        let port = network::free_port()?;
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))];
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let serving = authority.server(&scratch, "kube-apiserver", &names, &addresses)?;
        let kubelet_client = authority.client(&scratch, "kube-apiserver-kubelet-client", "system:masters")?;
        let tokens = certificates::signing_key(&scratch, "service-account")?;
        let url = format!("https://127.0.0.1:{port}");
        let client = authority.client(&scratch, "admin", "system:masters")?;
        let admin = kubeconfig::write(&scratch, "admin", &url, &authority.files.certificate, &client)?;
        let audit_policy = scratch.write("audit-policy.yaml", audit::POLICY)?;
        let pods = pod_range();
        Ok(Self { scratch, etcd, url, port, serving, kubelet_client, tokens, audit_policy, pods, admin })
    }

    fn start_apiserver(&self, authority: &Authority) -> Result<Process> {
        let mut command = Arguments::new("kube-apiserver")?;
        command
            .flag("etcd-servers", &self.etcd)
            .flag("bind-address", "127.0.0.1")
            .flag("secure-port", self.port.to_string())
            .file("tls-cert-file", &self.serving.certificate)
            .file("tls-private-key-file", &self.serving.key)
            .file("client-ca-file", &authority.files.certificate)
            .file("kubelet-client-certificate", &self.kubelet_client.certificate)
            .file("kubelet-client-key", &self.kubelet_client.key)
            .flag("kubelet-preferred-address-types", "InternalIP")
            .flag("authorization-mode", "Node,RBAC")
            .flag("enable-admission-plugins", "NodeRestriction")
            .flag("enable-bootstrap-token-auth", "true")
            .file("audit-policy-file", &self.audit_policy)
            .file("audit-log-path", &self.scratch.join(AUDIT_LOG))
            .flag("service-account-issuer", "https://kubernetes.default.svc")
            .file("service-account-signing-key-file", &self.tokens.private)
            .file("service-account-key-file", &self.tokens.public)
            .flag("service-cluster-ip-range", SERVICES)
            .flag("allow-privileged", "true")
            // It would refuse to tell others of an address on the loopback.
            .flag("endpoint-reconciler-type", "none");
        command.start(&self.scratch)
    }

    fn await_apiserver(&self, apiserver: &mut Process) -> Result<()> {
        let kubectl = Kubectl::new(&self.admin);
        apiserver.await_ready(Deadline::seconds(START), || kubectl.run(&["get", "--raw", "/readyz"]).is_ok())
    }

    fn start_controller_manager(&self, authority: &Authority) -> Result<Process> {
        let mut command = Arguments::new("kube-controller-manager")?;
        command
            .file("kubeconfig", &self.admin)
            .flag("leader-elect", "false")
            .flag("secure-port", "0")
            .file("service-account-private-key-file", &self.tokens.private)
            .file("root-ca-file", &authority.files.certificate)
            .file("cluster-signing-cert-file", &authority.files.certificate)
            .file("cluster-signing-key-file", &authority.files.key)
            .flag("allocate-node-cidrs", "true")
            .flag("cluster-cidr", &self.pods)
            .flag("node-cidr-mask-size", NODE_RANGE)
            // Tests do not wait minutes for an autoscaler.
            .flag("horizontal-pod-autoscaler-sync-period", "2s")
            .flag("horizontal-pod-autoscaler-cpu-initialization-period", "1s")
            .flag("horizontal-pod-autoscaler-initial-readiness-delay", "1s");
        command.start(&self.scratch)
    }

    fn start_scheduler(&self) -> Result<Process> {
        let mut command = Arguments::new("kube-scheduler")?;
        command.file("kubeconfig", &self.admin).flag("leader-elect", "false").flag("secure-port", "0");
        command.start(&self.scratch)
    }
}

/// Addresses of pods, of which every node gets a part. Nodes of different control planes share this machine, so each
/// control plane has its own.
fn pod_range() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(100);
    format!("10.{}.0.0/14", NEXT.fetch_add(4, Ordering::Relaxed))
}

fn start_etcd(scratch: &Scratch, url: &str) -> Result<Process> {
    let peer = format!("http://127.0.0.1:{}", network::free_port()?);
    let mut command = Arguments::new("etcd")?;
    command
        .file("data-dir", &scratch.join("etcd"))
        .flag("listen-client-urls", url)
        .flag("advertise-client-urls", url)
        .flag("listen-peer-urls", &peer)
        .flag("initial-advertise-peer-urls", &peer)
        .flag("initial-cluster", format!("default={peer}"))
        .flag("log-level", "warn")
        // What a crash of the machine would lose is not worth a disk's time here.
        .flag("unsafe-no-fsync", "true");
    let mut etcd = command.start(scratch)?;
    let health = format!("{url}/health");
    etcd.await_ready(Deadline::seconds(START), || {
        crate::http::get(&health).is_ok_and(|answer| answer.status == 200)
    })?;
    Ok(etcd)
}

/// The command line of a component.
struct Arguments {
    name: &'static str,
    command: Command,
}

impl Arguments {
    fn new(name: &'static str) -> Result<Self> {
        Ok(Self { name, command: process::tethered(programs::bed(name)?) })
    }

    fn flag(&mut self, name: &str, value: impl AsRef<str>) -> &mut Self {
        self.command.arg(format!("--{name}={}", value.as_ref()));
        self
    }

    fn file(&mut self, name: &str, path: &Path) -> &mut Self {
        self.flag(name, path.to_string_lossy())
    }

    fn start(self, scratch: &Scratch) -> Result<Process> {
        Process::start(self.name, self.command, &scratch.join(format!("{}.log", self.name)))
    }
}
