//! Commands, as containers of a provider.

use std::time::{Duration, Instant};

use coracle_provider::{ContainerState, ErrorKind, Mount, Resources, RuntimeService};

use crate::support::{Host, env, guest, log, strings, within, written};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_arguments_writes_its_log_and_ends() {
    let host = Host::start().await;
    for module in ["hello", "hello-p2"] {
        let started = host.run(&guest(module), |c| c.args = strings(&["one", "two words"])).await;
        assert!(started.started_at.is_some());
        let ended = host.end_of(&started).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"), "{module}: {}", ended.message);
        assert!(ended.finished_at >= ended.started_at && ended.revision > started.revision);
        assert_eq!(log(&ended), ["stdout F hello from wasm", "stdout F one", "stdout F two words"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_those_of_the_guest() {
    let host = Host::start().await;
    for (wish, code) in [("0", 0), ("1", 1), ("7", 7), ("125", 125), ("200", 200), ("256", 0)] {
        let ended = host.run_to_end(&guest("exit"), |c| c.args = strings(&[wish])).await;
        assert_eq!(ended.exit_code, code, "{}", ended.message);
        assert_eq!(ended.reason, if code == 0 { "Completed" } else { "Error" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_an_error_and_its_place_is_in_the_log() {
    let host = Host::start().await;
    let ended = host.run_to_end(&guest("exit"), |c| c.args = strings(&["trap"])).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (1, "Error"));
    assert!(ended.message.contains("unreachable"), "{}", ended.message);
    let lines = log(&ended);
    assert_eq!(lines[..2], ["stdout F exit: stdout", "stderr F exit: stderr"]);
    assert!(lines[2..].iter().all(|line| line.starts_with("stderr F ")), "{lines:?}");
    assert!(lines[2..].iter().any(|line| line.contains("<wasm function")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_exactly_what_is_configured_and_the_host_name() {
    let host = Host::start().await;
    let ended =
        host.run_to_end(&guest("env"), |c| c.envs = env(&[("B", "2"), ("A", "1=1"), ("EMPTY", "")])).await;
    let expected = ["stdout F A=1=1", "stdout F B=2", "stdout F EMPTY=", "stdout F HOSTNAME=the-pod"];
    assert_eq!(log(&ended), expected);
    let ended = host.run_to_end(&guest("env"), |c| c.envs = env(&[("HOSTNAME", "own")])).await;
    assert_eq!(log(&ended), ["stdout F HOSTNAME=own"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_seen_and_read_only_ones_stay_as_they_are() {
    let host = Host::start().await;
    let volume = host.folder.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), "content\n").unwrap();
    std::fs::write(host.folder.path().join("message"), "").unwrap();
    let mount = |host_path: std::path::PathBuf, container_path: &str, read_only| Mount {
        container_path: container_path.into(),
        host_path,
        read_only,
        ..Mount::default()
    };
    let run = async |args: &[&str], read_only| {
        let mounts = vec![
            mount(volume.clone(), "/data", read_only),
            mount(host.folder.path().join("message"), "/dev/termination-log", false),
            mount(volume.join("file"), "/etc/config/file", true),
        ];
        host.run_to_end(&guest("files"), |c| {
            c.args = strings(args);
            c.mounts = mounts;
        })
        .await
    };
    let ended = run(&["cat", "/data/file", "ls", "/data", "write", "/data/new", "x"], false).await;
    assert_eq!(ended.exit_code, 0, "{:?}", log(&ended));
    assert_eq!(log(&ended), ["stdout F content", "stdout F file"]);
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "x");

    for forbidden in [
        &["write", "/data/file", "changed"][..],
        &["rm", "/data/file"],
        &["write", "/etc/config/file", "changed"],
        &["write", "/etc/config/other", "new"],
        &["cat", "/data/../../etc/passwd"],
        &["cat", "/etc/passwd"],
    ] {
        let ended = run(forbidden, true).await;
        assert_eq!(ended.exit_code, 1, "{forbidden:?}: {:?}", log(&ended));
    }
    assert_eq!(std::fs::read_to_string(volume.join("file")).unwrap(), "content\n");

    let ended = run(&["cat", "/etc/config/file", "write", "/dev/termination-log", "the end"], true).await;
    assert_eq!(ended.exit_code, 0, "{:?}", log(&ended));
    assert_eq!(std::fs::read_to_string(host.folder.path().join("message")).unwrap(), "the end");
    let private = host.folder.path().join("wasm/mounts").join(&ended.id);
    assert!(private.exists());
    host.provider.remove_container(&ended.id).await.unwrap();
    assert!(!private.exists(), "what a container had on disk goes with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_line_without_an_end_is_partial_and_a_long_one_is_cut() {
    let host = Host::start().await;
    let volume = host.folder.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), format!("{}\nno newline", "x".repeat(20_000))).unwrap();
    let ended = host
        .run_to_end(&guest("files"), |c| {
            c.args = strings(&["cat", "/v/file"]);
            c.mounts = vec![Mount {
                container_path: "/v".into(),
                host_path: volume,
                read_only: true,
                ..Mount::default()
            }];
        })
        .await;
    let lines = log(&ended);
    let shape: Vec<_> = lines.iter().map(|line| (&line[..9], line.len() - 9)).collect();
    assert_eq!(shape, [("stdout P ", 16 << 10), ("stdout F ", 20_000 - (16 << 10)), ("stdout P ", 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_a_guest_that_computes_and_one_that_waits() {
    let host = Host::start().await;
    for module in ["stay", "stay-p2"] {
        for wish in ["spin", "sleep"] {
            for (grace, code) in [(30, 143), (0, 137)] {
                let container = host.run(&guest(module), |c| c.args = strings(&[wish])).await;
                written(&container).await;
                let begun = Instant::now();
                let stop = host.provider.stop_container(&container.id, Duration::from_secs(grace));
                let stopped = within(stop).await.unwrap();
                assert_eq!(stopped.state, ContainerState::Exited);
                assert_eq!((stopped.exit_code, stopped.reason.as_str()), (code, "Error"), "{module} {wish}");
                assert!(begun.elapsed() < Duration::from_secs(20), "{module} {wish}: {:?}", begun.elapsed());
                assert_eq!(log(&stopped), [format!("stdout F stay: {wish}")]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_compute_do_not_keep_others_from_running() {
    let host = Host::start_with(|options| options.guests.threads = 1).await;
    let mut spinning = Vec::new();
    for _ in 0..4 {
        spinning.push(host.run(&guest("stay"), |c| c.args = strings(&["spin"])).await);
    }
    let ended = within(host.run_to_end(&guest("hello"), |_| ())).await;
    assert_eq!(ended.exit_code, 0);
    let stats = host.provider.container_stats(None).await.unwrap();
    assert_eq!(stats.len(), spinning.len());
    for container in spinning {
        let before = host.provider.container_stats(Some(&container.pod.uid)).await.unwrap();
        assert!(before[0].cpu_usage_core_nanos > 0 && before[0].memory.working_set_bytes > 0);
        host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
        assert!(host.provider.container_stats(Some(&container.pod.uid)).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_an_oom_kill() {
    let host = Host::start_with(|options| options.guests.default_memory_bytes = 32 << 20).await;
    let limit = |bytes| Resources { memory_limit_bytes: bytes, ..Resources::default() };
    let ended = host
        .run_to_end(&guest("oom"), |c| {
            c.args = strings(&["4"]);
            c.resources = limit(Some(16 << 20));
        })
        .await;
    assert_eq!(ended.exit_code, 0, "{}", ended.message);
    // Without a limit of its own the default holds.
    for bytes in [Some(16 << 20), None] {
        let ended = host.run_to_end(&guest("oom"), |c| c.resources = limit(bytes)).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"), "{}", ended.message);
        assert!(ended.message.contains(&bytes.unwrap_or(32 << 20).to_string()), "{}", ended.message);
    }
    let too_big = host.wat("big.wasm", "(module (memory 512) (func (export \"_start\")))");
    let ended = host.run_to_end(&too_big, |c| c.resources = limit(Some(16 << 20))).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_traps_before_its_main_function_ends_as_one_that_traps_in_it() {
    let host = Host::start().await;
    let text = "(module (func $init unreachable) (start $init) (func (export \"_start\")))";
    let ended = host.run_to_end(&host.wat("init.wasm", text), |_| ()).await;
    assert_eq!(ended.exit_code, 1);
    assert!(ended.message.contains("unreachable"), "{}", ended.message);
    let deep = "(module (func $f (call $f)) (func (export \"_start\") (call $f)))";
    let ended = host.run_to_end(&host.wat("deep.wasm", deep), |_| ()).await;
    assert!(ended.message.contains("call stack exhausted"), "{}", ended.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_by_name() {
    let host = Host::start().await;
    let root = host.folder.path().join("wasm");
    let mount = Mount { container_path: "/x".into(), host_path: root, read_only: true, ..Mount::default() };
    let error = host.try_create(&guest("hello"), |c| c.mounts = vec![mount]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
}
