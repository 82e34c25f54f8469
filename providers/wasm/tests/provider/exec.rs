//! Commands beside a container's own program.

use std::time::{Duration, Instant};

use coracle_provider::{
    ContainerState, ErrorKind, ExecSyncResponse, Mount, Resources, RuntimeService, SessionOptions, Stream,
    StreamingService,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::Fifo;
use crate::services::serve;
use crate::support::{Host, env, guest, log, strings, within, written};

const WITH_INPUT: SessionOptions = SessionOptions { stdin: true, stdout: true, stderr: true, tty: false };

/// Long enough for anything.
const UNLIMITED: Duration = Duration::from_secs(24 * 3600);

async fn exec(host: &Host, id: &str, command: &[&str]) -> ExecSyncResponse {
    within(host.provider.exec_sync(id, &strings(command), UNLIMITED)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_the_program_again_in_the_same_surroundings() {
    let host = Host::start().await;
    for module in ["stay", "stay-p2"] {
        let container = host.run(&guest(module), |c| c.envs = env(&[("COLOUR", "blue")])).await;
        written(&container).await;
        let answer = exec(&host, &container.id, &["any/name", "env", "COLOUR"]).await;
        assert_eq!((answer.stdout.as_slice(), answer.exit_code), (&b"blue\n"[..], 0), "{module}");
        let answer = exec(&host, &container.id, &["stay", "exit", "7"]).await;
        // A component of WASI 0.2 can only say that it failed.
        let code = if module == "stay" { 7 } else { 1 };
        let stderr = b"stay: ends with 7\n".as_slice();
        assert_eq!((answer.stderr.as_slice(), answer.exit_code), (stderr, code), "{module}");
        let answer = exec(&host, &container.id, &["stay", "trap"]).await;
        let trace = String::from_utf8(answer.stderr).unwrap();
        assert!(answer.exit_code == 1 && trace.contains("unreachable"), "{module}: {trace}");
        assert_eq!(log(&container), ["stdout F stay: sleep"], "what commands write is not the container's");
        assert_eq!(host.status(&container).await.state, ContainerState::Running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_the_container_s_files() {
    let host = Host::start().await;
    let volume = host.folder.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    // The guest that knows files does not stay, so its own run is held up by a file that nobody writes to.
    let _fifo = Fifo::new(volume.join("fifo"));
    let container = host
        .run(&guest("files"), |c| {
            c.args = strings(&["cat", "/v/fifo"]);
            c.mounts = vec![Mount {
                container_path: "/v".into(),
                host_path: volume.clone(),
                read_only: false,
                ..Mount::default()
            }];
        })
        .await;
    let answer = exec(&host, &container.id, &["files", "write", "/v/ready", "yes", "cat", "/v/ready"]).await;
    assert_eq!((answer.stdout.as_slice(), answer.exit_code), (&b"yes"[..], 0));
    assert_eq!(std::fs::read_to_string(volume.join("ready")).unwrap(), "yes");
    // A guest that is stuck in a call that the kernel holds up ends all the same.
    let begun = Instant::now();
    let stopped = within(host.provider.stop_container(&container.id, Duration::ZERO)).await.unwrap();
    assert_eq!((stopped.state, stopped.exit_code), (ContainerState::Exited, 137));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_too_long_is_ended_and_its_output_is_bounded() {
    let host = Host::start().await;
    let container = host.run(&guest("stay"), |_| ()).await;
    for wish in ["spin", "sleep"] {
        let command = strings(&["stay", wish]);
        let call = host.provider.exec_sync(&container.id, &command, Duration::from_millis(300));
        let error = within(call).await.unwrap_err();
        assert!(error.kind == ErrorKind::DeadlineExceeded && error.message.contains("300ms"), "{error}");
    }
    let answer = exec(&host, &container.id, &["stay", "flood", "1000000"]).await;
    assert_eq!((answer.stdout.len(), answer.exit_code), (16 << 10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_container_and_share_its_memory() {
    let host = Host::start().await;
    let limit = Resources { memory_limit_bytes: Some(3 << 20), ..Resources::default() };
    let container = host.run(&guest("stay"), |c| c.resources = limit).await;
    let provider = host.provider.clone();
    let id = container.id.clone();
    let spinning =
        tokio::spawn(async move { provider.exec_sync(&id, &strings(&["stay", "spin"]), UNLIMITED).await });
    within(async {
        while host.provider.container_stats(None).await.unwrap()[0].cpu_usage_core_nanos < 50_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Two instances are there, and a third does not fit.
    let answer = exec(&host, &container.id, &["stay", "exit", "0"]).await;
    assert_eq!(answer.exit_code, 137, "{}", String::from_utf8_lossy(&answer.stderr));
    within(host.provider.stop_container(&container.id, Duration::ZERO)).await.unwrap();
    assert_eq!(within(spinning).await.unwrap().unwrap().exit_code, 137);
    let late = host.provider.exec_sync(&container.id, &strings(&["stay"]), UNLIMITED).await.unwrap_err();
    assert!(late.kind == ErrorKind::InvalidArgument && late.message.contains("does not run"), "{late}");
    let unknown = host.provider.exec_sync("none", &strings(&["stay"]), UNLIMITED).await.unwrap_err();
    assert!(unknown.is_not_found(), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_commands_only_if_it_is_a_command_too() {
    let host = Host::start().await;
    let (container, _) = serve(&host, |_| ()).await;
    let error = host.provider.exec_sync(&container.id, &strings(&["ls"]), UNLIMITED).await.unwrap_err();
    assert!(error.kind == ErrorKind::Unimplemented && error.message.contains("wasi:cli/run"), "{error}");
    let both = host.wat("both.wasm", include_str!("../support/service_and_command.wat"));
    let container = host.run(&both, |c| c.serving_port = crate::services::free_port()).await;
    assert_eq!(exec(&host, &container.id, &["any"]).await.exit_code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_carries_both_ways_and_ends_with_the_command() {
    let host = Host::start().await;
    for module in ["stay", "stay-p2"] {
        let container = host.run(&guest(module), |_| ()).await;
        let session = host.provider.exec(&container.id, &strings(&["stay", "echo"]), WITH_INPUT).await;
        let Stream::Io { stdin, stdout, stderr, exit, .. } = session.unwrap() else { panic!("a URL") };
        let (mut stdin, mut stdout, mut stderr) = (stdin.unwrap(), stdout.unwrap(), stderr.unwrap());
        stdin.write_all(b"ping\n").await.unwrap();
        let mut pong = [0; 5];
        within(stdout.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"ping\n");
        // More than fits into any buffer on the way.
        let sent = vec![b'x'; 1 << 20];
        let send = async {
            stdin.write_all(&sent).await.unwrap();
            drop(stdin);
        };
        let mut received = Vec::new();
        let (_, read) = within(async { tokio::join!(send, stdout.read_to_end(&mut received)) }).await;
        read.unwrap();
        assert_eq!(received.len(), sent.len());
        assert_eq!(stderr.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        assert_eq!(within(exit).await.unwrap(), Ok(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_listens_to_is_ended() {
    let host = Host::start().await;
    let container = host.run(&guest("stay"), |_| ()).await;
    let session = host
        .provider
        .exec(&container.id, &strings(&["stay", "spin"]), SessionOptions::default())
        .await
        .unwrap();
    let Stream::Io { stdout, exit, .. } = session else { panic!("a URL") };
    let mut stdout = stdout.unwrap();
    let mut line = [0; 11];
    within(stdout.read_exact(&mut line)).await.unwrap();
    drop(exit);
    assert_eq!(within(stdout.read_to_end(&mut Vec::new())).await.unwrap(), 0, "its output has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_what_is_typed_and_control_c_ends_the_command() {
    let host = Host::start().await;
    for module in ["stay", "stay-p2"] {
        let container = host.run(&guest(module), |_| ()).await;
        let open = async |wish: &str| {
            let command = strings(&["stay", wish]);
            let session = host
                .provider
                .exec(&container.id, &command, SessionOptions { tty: true, ..WITH_INPUT })
                .await
                .unwrap();
            let Stream::Io { stdin, stdout, stderr, exit, .. } = session else { panic!("a URL") };
            assert!(stderr.is_none(), "a terminal has one screen");
            (stdin.unwrap(), stdout.unwrap(), exit)
        };
        let (_keys, mut screen, exit) = open("terminal").await;
        let mut shown = String::new();
        within(screen.read_to_string(&mut shown)).await.unwrap();
        assert_eq!(shown, "[true, true, true]\r\n", "{module}");
        assert_eq!(within(exit).await.unwrap(), Ok(0));

        let (mut keys, mut screen, exit) = open("echo").await;
        keys.write_all(b"abx\x7fc\r").await.unwrap();
        let mut shown = vec![0; "abx\x08 \x08c\r\nabc\r\n".len()];
        within(screen.read_exact(&mut shown)).await.unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), "abx\x08 \x08c\r\nabc\r\n");
        keys.write_all(b"\x04").await.unwrap();
        assert_eq!(within(exit).await.unwrap(), Ok(0), "Ctrl-D ends the input");

        let (mut keys, _screen, exit) = open("spin").await;
        keys.write_all(b"\x03").await.unwrap();
        assert_eq!(within(exit).await.unwrap(), Ok(130));
    }
}
