//! The provider on a real containerd: what every provider must do, and what happens when the runtime goes away.

// Clippy's exception for tests ends at the test functions; what they share is a test as well.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use coracle_cri::{CriProvider, Options};
use coracle_provider::contract::{Program, Subject};
use coracle_provider::{
    ContainerConfig, ContainerState, ErrorKind, ImageService as _, ImageSpec, PodRef, Provider, PullRequest,
    RuntimeService as _, SandboxConfig, StreamingService as _, provider_contract,
};
use coracle_tests::containerd::{Containerd, linux_image};
use coracle_tests::registry::Registry;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::start().unwrap());

struct Host {
    containerd: Containerd,
    provider: CriProvider,
    image: String,
}

impl Host {
    async fn start() -> Self {
        let start = || {
            let containerd = Containerd::start(&REGISTRY).unwrap();
            (containerd, REGISTRY.push(&linux_image(&["/bin/busybox"]).unwrap(), "program", "v1").unwrap())
        };
        let (containerd, image) = tokio::task::spawn_blocking(start).await.unwrap();
        let socket = containerd.socket();
        let options = Options {
            runtime_socket: socket.clone(),
            image_socket: socket,
            request_timeout: Duration::from_secs(60),
            cpu_quota_period: Some(Duration::from_millis(100)),
        };
        let provider = CriProvider::connect(options).await.unwrap();
        Self { containerd, provider, image }
    }
}

impl Subject for Host {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn program(&self, program: Program) -> (String, Vec<String>) {
        let args = match program {
            Program::Stays => vec!["sleep".to_owned(), "1000000".to_owned()],
            Program::Exits(code) => vec!["sh".to_owned(), "-c".to_owned(), format!("exit {code}")],
        };
        (self.image.clone(), args)
    }

    fn missing_image(&self) -> String {
        self.image.replace("program", "no-such-image")
    }

    fn log_directory(&self) -> PathBuf {
        self.containerd.folder().join("logs")
    }
}

provider_contract!(Host::start());

fn pod() -> PodRef {
    PodRef { uid: "uid".into(), namespace: "ns".into(), name: "name".into() }
}

/// A container that runs, in a sandbox of its own, with this command.
async fn run(host: &Host, command: &[&str]) -> std::sync::Arc<coracle_provider::ContainerStatus> {
    let image = ImageSpec::new(&host.image);
    let request = PullRequest { image: image.clone(), ..PullRequest::default() };
    let image_ref = host.provider.pull_image(request, None).await.unwrap().id;
    let labels = [("io.kubernetes.pod.uid".to_owned(), pod().uid)];
    let sandbox = SandboxConfig {
        pod: pod(),
        labels: labels.clone().into(),
        log_directory: host.log_directory(),
        ..SandboxConfig::default()
    };
    let made = host.provider.run_sandbox(sandbox.clone()).await.unwrap();
    let config = ContainerConfig {
        name: "c".into(),
        image,
        image_ref,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: "c/0.log".into(),
        labels: labels.into(),
        sandbox: sandbox.into(),
        ..ContainerConfig::default()
    };
    let container = host.provider.create_container(&made.id, config).await.unwrap();
    host.provider.start_container(&container.id).await.unwrap()
}

/// Its containers run on, the provider says so as soon as it is back, and has not forgotten what it said before.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_comes_back_is_found_again() {
    let mut host = Host::start().await;
    let container = run(&host, &["/bin/busybox", "sleep", "1000000"]).await;
    host.containerd.kill().unwrap();
    let error = host.provider.list().await.unwrap_err();
    assert!(error.kind.is_retryable(), "{error}");
    host.containerd.resume().unwrap();
    let back = async {
        loop {
            match host.provider.list_pod("uid").await {
                Ok(list) => return list,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let list = tokio::time::timeout(Duration::from_secs(30), back).await.unwrap();
    assert_eq!(list.containers, std::slice::from_ref(&container));
    let stopped = host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
    assert_eq!((stopped.state, stopped.exit_code), (ContainerState::Exited, 137));
}

/// Another agent, as after a restart, knows whose everything is.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_adopted_by_the_next_agent() {
    let host = Host::start().await;
    let container = run(&host, &["/bin/busybox", "sleep", "1000000"]).await;
    let socket = host.containerd.socket();
    let options = Options {
        runtime_socket: socket.clone(),
        image_socket: socket,
        request_timeout: Duration::from_secs(60),
        cpu_quota_period: None,
    };
    let next = CriProvider::connect(options).await.unwrap();
    let list = next.list().await.unwrap();
    let (sandbox, adopted) = (&list.sandboxes[0], &list.containers[0]);
    assert_eq!((&sandbox.pod, &sandbox.id), (&pod(), &container.sandbox_id));
    assert_eq!((&adopted.pod, &adopted.id, adopted.state), (&pod(), &container.id, ContainerState::Running));
    assert!(adopted.revision > container.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_container_and_says_how_it_ended() {
    let host = Host::start().await;
    let container = run(&host, &["/bin/busybox", "sleep", "1000000"]).await;
    let exec = async |script: &str, timeout| {
        let command = ["sh", "-c", script].map(str::to_owned);
        host.provider.exec_sync(&container.id, &command, timeout).await
    };
    let answer = exec("echo out; echo err >&2; exit 3", Duration::from_secs(10)).await.unwrap();
    assert_eq!((answer.stdout, answer.stderr, answer.exit_code), (b"out\n".to_vec(), b"err\n".to_vec(), 3));
    let error = exec("sleep 100", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded, "{error}");
    let stats = host.provider.container_stats(Some("uid")).await.unwrap();
    assert_eq!((stats.len(), &stats[0].id), (1, &container.id));
    assert!(stats[0].memory.usage_bytes > 0 && stats[0].cpu_usage_core_nanos > 0, "{stats:?}");
    assert_eq!(host.provider.cgroup_driver().await.unwrap(), None, "containerd 1.6 does not say");
}

/// The message is the runtime's, and the container has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_named() {
    let host = Host::start().await;
    let image = ImageSpec::new(&host.image);
    let request = PullRequest { image: image.clone(), ..PullRequest::default() };
    let image_ref = host.provider.pull_image(request, None).await.unwrap().id;
    let sandbox =
        SandboxConfig { pod: pod(), log_directory: host.log_directory(), ..SandboxConfig::default() };
    let made = host.provider.run_sandbox(sandbox.clone()).await.unwrap();
    let config = ContainerConfig {
        name: "c".into(),
        image,
        image_ref,
        command: vec!["/no-such-program".into()],
        log_path: "c/0.log".into(),
        sandbox: sandbox.into(),
        ..ContainerConfig::default()
    };
    let container = host.provider.create_container(&made.id, config).await.unwrap();
    let error = host.provider.start_container(&container.id).await.unwrap_err();
    assert!(error.message.contains("/no-such-program") && !error.message.contains('\n'), "{error}");
    let ended = host.provider.start_container(&container.id).await.unwrap();
    assert_eq!(ended.state, ContainerState::Exited);
}
