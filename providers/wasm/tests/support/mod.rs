//! A provider for tests: a folder of its own, and pods on 127.0.0.1.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{
    ContainerConfig, ContainerState, ContainerStatus, EnvVar, Error, ImageService, ImageSpec, PodRef,
    PullRequest, RuntimeService, SandboxConfig, SandboxStatus,
};
use coracle_wasm::network::{Network, NetworkConfig};
use coracle_wasm::{CompilerCommand, Options, WasmProvider};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// Longer than anything here takes, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A provider with its folder.
pub(crate) struct Host {
    pub(crate) provider: Arc<WasmProvider>,
    pub(crate) folder: TempDir,
}

impl Host {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = open(folder.path(), |_| ()).await;
        Self { provider, folder }
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = open(folder.path(), adjust).await;
        Self { provider, folder }
    }

    pub(crate) async fn start_on(network: Network) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options_on(folder.path(), network, |_| ());
        Self { provider: Arc::new(WasmProvider::open(options).await.unwrap()), folder }
    }

    /// Ends the provider and opens it again, as after a crash: nothing is said good-bye to.
    pub(crate) async fn reopen(self) -> Self {
        let Self { provider, folder } = self;
        Arc::into_inner(provider).expect("nobody else has the provider").shut_down().await;
        let provider = open(folder.path(), |_| ()).await;
        Self { provider, folder }
    }

    pub(crate) async fn pull(&self, path: &Path) -> Result<String, Error> {
        let request =
            PullRequest { image: ImageSpec::new(path.display().to_string()), ..PullRequest::default() };
        self.provider.pull_image(request, None).await.map(|image| image.id)
    }

    pub(crate) async fn sandbox(&self, uid: &str) -> Arc<SandboxStatus> {
        self.provider.run_sandbox(self.sandbox_config(uid)).await.unwrap()
    }

    pub(crate) fn sandbox_config(&self, uid: &str) -> SandboxConfig {
        SandboxConfig {
            pod: PodRef { uid: uid.into(), namespace: "ns".into(), name: uid.into() },
            hostname: "the-pod".into(),
            log_directory: self.folder.path().join("logs").join(uid),
            ..SandboxConfig::default()
        }
    }

    /// Makes a container of a module, in a sandbox of its own.
    pub(crate) async fn create(
        &self,
        module: &Path,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Arc<ContainerStatus> {
        self.try_create(module, adjust).await.unwrap()
    }

    pub(crate) async fn try_create(
        &self,
        module: &Path,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Result<Arc<ContainerStatus>, Error> {
        let image_ref = self.pull(module).await?;
        let mut config = ContainerConfig {
            name: "c".into(),
            image: ImageSpec::new(module.display().to_string()),
            image_ref,
            log_path: "c/0.log".into(),
            ..ContainerConfig::default()
        };
        adjust(&mut config);
        let sandbox = self.sandbox(&unique()).await;
        self.provider.create_container(&sandbox.id, config).await
    }

    pub(crate) async fn run(
        &self,
        module: &Path,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Arc<ContainerStatus> {
        let container = self.create(module, adjust).await;
        self.provider.start_container(&container.id).await.unwrap()
    }

    /// Runs a module to its end.
    pub(crate) async fn run_to_end(
        &self,
        module: &Path,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Arc<ContainerStatus> {
        let container = self.run(module, adjust).await;
        self.end_of(&container).await
    }

    pub(crate) async fn end_of(&self, container: &ContainerStatus) -> Arc<ContainerStatus> {
        self.wait(container, |status| status.state == ContainerState::Exited).await
    }

    pub(crate) async fn status(&self, container: &ContainerStatus) -> Arc<ContainerStatus> {
        let snapshot = self.provider.list_pod(&container.pod.uid).await.unwrap();
        snapshot.containers.into_iter().find(|status| status.id == container.id).unwrap()
    }

    async fn wait(
        &self,
        container: &ContainerStatus,
        is_so: impl Fn(&ContainerStatus) -> bool,
    ) -> Arc<ContainerStatus> {
        within(async {
            loop {
                let status = self.status(container).await;
                if is_so(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }

    /// Writes a module in text form to a file.
    pub(crate) fn wat(&self, name: &str, text: &str) -> PathBuf {
        self.file(name, &wat::parse_str(text).unwrap())
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

async fn open(folder: &Path, adjust: impl FnOnce(&mut Options)) -> Arc<WasmProvider> {
    Arc::new(WasmProvider::open(options(folder, adjust).await).await.unwrap())
}

/// Options for a provider in `folder`, with pods on 127.0.0.1.
pub(crate) async fn options(folder: &Path, adjust: impl FnOnce(&mut Options)) -> Options {
    let network = NetworkConfig { node_addresses: vec![[127, 0, 0, 1].into()], ..NetworkConfig::default() };
    options_on(folder, Network::detect(network).await.unwrap(), adjust)
}

/// Options for a provider in `folder`, with pods on a network.
pub(crate) fn options_on(folder: &Path, network: Network, adjust: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::new(folder.join("wasm"), Handle::current(), Handle::current(), network);
    options.images.allow_local_files = true;
    options.compiler = CompilerCommand { program: env!("CARGO_BIN_EXE_compile-child").into(), args: vec![] };
    // Tests run side by side in one address space.
    options.guests.instances = 100;
    adjust(&mut options);
    options
}

/// A guest of the workspace's own.
pub(crate) fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm").join(format!("{name}.wasm"))
}

pub(crate) fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&s| s.into()).collect()
}

pub(crate) fn env(list: &[(&str, &str)]) -> Vec<EnvVar> {
    list.iter().map(|&(name, value)| EnvVar { name: name.into(), value: value.into() }).collect()
}

/// The log of a container without its time stamps: `stdout F text`.
pub(crate) fn log(container: &ContainerStatus) -> Vec<String> {
    let text = std::fs::read_to_string(&container.log_path).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// Waits until something is in the log.
pub(crate) async fn written(container: &ContainerStatus) {
    within(async {
        while log(container).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A number that no other call answers with.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("pod-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}
