//! containerd, with runc and CNI plugins, in a folder of its own.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::artifact::{Artifact, Blob, digest};
use crate::process::{self, Process};
use crate::programs;
use crate::registry::Registry;
use crate::scratch::Scratch;
use crate::wait::Deadline;

/// How long containerd may take to start on a busy machine.
const START: u64 = 60;

/// A containerd. Dropping it ends it, and what still runs in it.
pub struct Containerd {
    process: Process,
    settings: Settings,
}

/// What it is started with; it stays the same over restarts.
struct Settings {
    scratch: Scratch,
    config: PathBuf,
    packages: PathBuf,
}

impl Containerd {
    /// Starts one whose sandboxes hold an image of this registry, to which it is pushed.
    pub fn start(registry: &Registry) -> Result<Self> {
        let packages = programs::bed_folder("containers")?;
        let scratch = Scratch::new("containerd")?;
        let pause = registry.push(&linux_image(&["sleep", "1000000"])?, "pause", "v1")?;
        scratch.write("cni/10-test.conflist", network(&scratch).to_string())?;
        let config = scratch.write("config.toml", configuration(&scratch, &packages, &pause))?;
        let settings = Settings { scratch, config, packages };
        for group in settings.cgroups() {
            std::fs::create_dir(&group).with_context(|| group.display().to_string())?;
        }
        Ok(Self { process: settings.start()?, settings })
    }

    /// The control group that those of pods are to be made in (`cgroupRoot`): kubelets on one machine need one each.
    pub fn cgroup_root(&self) -> String {
        self.settings.cgroup_root()
    }

    /// That group, in each hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.settings.cgroups()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.settings.socket()
    }

    /// A folder that ends with it.
    pub fn folder(&self) -> &Path {
        self.settings.scratch.path()
    }

    /// Kills the daemon. Containers run on.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after it was killed.
    pub fn resume(&mut self) -> Result<()> {
        self.process = self.settings.start()?;
        Ok(())
    }

    /// `ctr`, in the namespace of pods.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        let mut command = process::tethered(self.settings.packages.join("usr/bin/ctr"));
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(args);
        let finished = process::finish(command, None, Deadline::seconds(START))?;
        anyhow::ensure!(finished.code == Some(0), "ctr {args:?}: {}", finished.stderr);
        Ok(finished.stdout)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.log_tail());
        }
        let ids = self.settings.container_ids();
        let _ = self.kill();
        self.settings.kill_shims();
        remove_control_groups(&ids);
        for group in self.settings.cgroups() {
            remove_group(&group);
        }
    }
}

impl Settings {
    fn cgroup_root(&self) -> String {
        let folder = self.scratch.path().file_name().unwrap_or_default().to_string_lossy();
        format!("/{}", folder.replace(['_', '.'], "-"))
    }

    /// Each folder at the top is a hierarchy, unless there is one for all.
    fn cgroups(&self) -> Vec<PathBuf> {
        let top = Path::new("/sys/fs/cgroup");
        let name = self.cgroup_root();
        let name = name.trim_start_matches('/');
        if top.join("cgroup.controllers").exists() {
            return vec![top.join(name)];
        }
        let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten();
        let hierarchies = hierarchies.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
        hierarchies.map(|hierarchy| hierarchy.path().join(name)).collect()
    }

    fn socket(&self) -> PathBuf {
        self.scratch.join("containerd.sock")
    }

    fn start(&self) -> Result<Process> {
        let mut command = process::tethered(self.packages.join("usr/bin/containerd"));
        let binaries = |folder: &str| self.packages.join(folder).display().to_string();
        let system = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{}:{system}", binaries("usr/bin"), binaries("usr/sbin")));
        command.env(
            "LD_LIBRARY_PATH",
            self.packages.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
        );
        command.arg("--config").arg(&self.config);
        let mut process = Process::start("containerd", command, &self.scratch.join("containerd.log"))?;
        process.await_ready(Deadline::seconds(START), || UnixStream::connect(self.socket()).is_ok())?;
        Ok(process)
    }

    /// Sandboxes and containers that run.
    fn container_ids(&self) -> Vec<String> {
        let tasks = self.scratch.join("state/io.containerd.runtime.v2.task/k8s.io");
        let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
        tasks.filter_map(|task| task.file_name().into_string().ok()).collect()
    }

    /// The parents of containers outlive containerd; each is known by the socket in its command line.
    fn kill_shims(&self) {
        let socket = self.socket();
        let socket = socket.to_string_lossy();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let is_ours = line.contains("containerd-shim") && line.contains(&*socket);
            if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| is_ours) {
                kill_children(pid);
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// What nobody has removed of containers that were killed. A group is busy until its last process is gone.
fn remove_control_groups(ids: &[String]) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for id in ids {
            remove_group(&hierarchy.path().join("k8s.io").join(id));
        }
    }
}

/// Removes a control group and those below it.
fn remove_group(group: &Path) {
    for child in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&child.path());
        }
    }
    for _ in 0..50 {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            _ => break,
        }
    }
}

/// What a shim started: containers.
fn kill_children(pid: rustix::process::Pid) {
    let list = format!("/proc/{pid}/task/{pid}/children");
    for child in std::fs::read_to_string(list).unwrap_or_default().split_whitespace() {
        if let Some(child) = child.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
    }
}

/// An image for this machine: busybox, in `/bin`, with these words as its entry point.
pub fn linux_image(entrypoint: &[&str]) -> Result<Artifact> {
    let busybox = programs::bed_folder("containers")?.join("bin/busybox");
    let busybox = std::fs::read(&busybox).with_context(|| busybox.display().to_string())?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/busybox", &*busybox)?;
    for name in ["sh", "sleep", "cat", "echo", "id", "wget", "nslookup", "env", "ls"] {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, format!("bin/{name}"), "busybox")?;
    }
    let tar = tar.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": entrypoint, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
    });
    Ok(Artifact {
        config: Blob::new("application/vnd.oci.image.config.v1+json", config.to_string()),
        layers: vec![Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish()?)],
    })
}

/// A pair of interfaces a pod, in a range of its own.
fn network(scratch: &Scratch) -> Value {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let subnet = format!("10.231.{}.0/24", COUNT.fetch_add(1, Ordering::Relaxed));
    let ipam = json!({
        "type": "host-local",
        "dataDir": scratch.join("addresses"),
        "ranges": [[{ "subnet": subnet }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    json!({ "cniVersion": "0.4.0", "name": "test", "plugins": [{ "type": "ptp", "ipam": ipam }] })
}

fn configuration(scratch: &Scratch, packages: &Path, pause: &str) -> String {
    let path = |name: &str| scratch.join(name).display().to_string();
    // Machines without CAP_SYS_RESOURCE cannot have processes that are killed later than others.
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{cni}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        root = path("root"),
        state = path("state"),
        socket = path("containerd.sock"),
        plugins = packages.join("usr/lib/cni").display(),
        cni = path("cni"),
    )
}
