//! Sandboxes, containers, events and records: the contract of the provider's traits.

use std::time::Duration;

use coracle_provider::{
    ContainerConfig, ContainerState, ErrorKind, ImageSpec, LiveResize, Resources, RuntimeService,
    SandboxState,
};
use coracle_wasm::WasmProvider;

use crate::support::{Host, guest, log, options, strings, within, written};

fn config(image_ref: &str) -> ContainerConfig {
    ContainerConfig {
        name: "c".into(),
        image: ImageSpec::new("hello"),
        image_ref: image_ref.into(),
        log_path: "c/0.log".into(),
        ..ContainerConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_twice_is_one_thing_also_at_the_same_time() {
    let host = Host::start().await;
    let image = host.pull(&guest("stay")).await.unwrap();
    let run = || host.provider.run_sandbox(host.sandbox_config("p"));
    let (first, second) = tokio::join!(run(), run());
    let sandbox = first.unwrap();
    assert_eq!(sandbox, second.unwrap());
    assert_eq!(sandbox, run().await.unwrap());

    let create = || host.provider.create_container(&sandbox.id, config(&image));
    let (first, second) = tokio::join!(create(), create());
    let container = first.unwrap();
    assert_eq!(container, second.unwrap());
    assert_eq!(container, create().await.unwrap());
    let next = host.provider.create_container(&sandbox.id, ContainerConfig { attempt: 1, ..config(&image) });
    assert_ne!(next.await.unwrap().id, container.id);

    let start = || host.provider.start_container(&container.id);
    let (first, second) = tokio::join!(start(), start());
    let started = first.unwrap();
    assert_eq!(started, second.unwrap());
    assert_eq!(started, start().await.unwrap());
    assert_eq!(started.state, ContainerState::Running);
    assert_eq!(host.provider.list().await.unwrap().containers.len(), 2);

    written(&started).await;
    let stop = || host.provider.stop_container(&container.id, Duration::from_secs(1));
    let (first, second) = tokio::join!(stop(), stop());
    let stopped = first.unwrap();
    assert_eq!(stopped, second.unwrap());
    assert_eq!(stopped, stop().await.unwrap());
    assert_eq!(stopped, start().await.unwrap(), "what has ended is not started again");
    assert_eq!(log(&stopped), ["stdout F stay: sleep"], "it ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_takes_its_containers_with_it() {
    let host = Host::start().await;
    let running = host.run(&guest("stay"), |c| c.args = strings(&["spin"])).await;
    let created = host
        .provider
        .create_container(
            &running.sandbox_id,
            ContainerConfig { attempt: 1, ..config(&host.pull(&guest("stay")).await.unwrap()) },
        )
        .await
        .unwrap();
    let stopped = within(host.provider.stop_sandbox(&running.sandbox_id)).await.unwrap();
    assert_eq!(stopped.state, SandboxState::NotReady);
    assert_eq!(stopped, host.provider.stop_sandbox(&running.sandbox_id).await.unwrap());
    for container in [&running, &created] {
        let status = host.status(container).await;
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 137));
        assert!(status.revision < stopped.revision);
    }
    assert_eq!(host.provider.start_container(&created.id).await.unwrap().state, ContainerState::Exited);
    let late = host
        .provider
        .create_container(&running.sandbox_id, ContainerConfig { attempt: 2, ..config(&created.image_id) });
    assert_eq!(late.await.unwrap_err().kind, ErrorKind::InvalidArgument);
    host.provider.remove_sandbox(&running.sandbox_id).await.unwrap();
    let snapshot = host.provider.list().await.unwrap();
    assert!(snapshot.sandboxes.is_empty() && snapshot.containers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_has_ended_when_the_provider_comes_back() {
    let host = Host::start().await;
    let running = host
        .run(&guest("stay"), |c| {
            c.args = strings(&["spin"]);
            c.attempt = 3;
            c.labels.insert("a".into(), "b".into());
        })
        .await;
    let created = host.create(&guest("hello"), |_| ()).await;
    let ended = host.run_to_end(&guest("exit"), |c| c.args = strings(&["7"])).await;
    let removed = host.run_to_end(&guest("hello"), |_| ()).await;
    host.provider.remove_container(&removed.id).await.unwrap();
    let before = host.provider.list().await.unwrap();

    let host = host.reopen().await;
    let after = host.provider.list().await.unwrap();
    assert!(after.revision > before.revision);
    assert_eq!((after.sandboxes.len(), after.containers.len()), (4, 3));
    assert!(after.sandboxes.iter().all(|sandbox| sandbox.state == SandboxState::NotReady));
    for lost in [&running, &created] {
        let status = host.status(lost).await;
        assert_eq!(
            (status.state, status.exit_code, status.reason.as_str()),
            (ContainerState::Exited, 137, "Error")
        );
        assert!(status.message.contains("went away") && status.finished_at.is_some());
        assert_eq!(
            (status.attempt, &status.labels, status.started_at),
            (lost.attempt, &lost.labels, lost.started_at)
        );
        assert!(status.revision > lost.revision);
    }
    let status = host.status(&ended).await;
    assert_eq!((status.exit_code, status.finished_at), (7, ended.finished_at));

    // A second life later nothing has changed, and what is left can be removed.
    let host = host.reopen().await;
    let again = host.provider.list().await.unwrap();
    assert_eq!(again.containers.len(), after.containers.len());
    let finished = |list: &coracle_provider::Snapshot, id: &str| {
        list.containers.iter().find(|c| c.id == id).unwrap().finished_at
    };
    assert_eq!(finished(&again, &running.id), finished(&after, &running.id));
    for sandbox in again.sandboxes {
        host.provider.remove_sandbox(&sandbox.id).await.unwrap();
    }
    let host = host.reopen().await;
    assert!(host.provider.list().await.unwrap().containers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_provider() {
    let host = Host::start().await;
    let error = WasmProvider::open(options(host.folder.path(), |_| ()).await).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_in_a_new_file_after_rotation() {
    let host = Host::start().await;
    let container = host.run(&guest("stay"), |c| c.args = strings(&["tick", "1"])).await;
    let rotated = container.log_path.with_extension("old");
    std::fs::rename(&container.log_path, &rotated).unwrap();
    host.provider.reopen_container_log(&container.id).await.unwrap();
    assert!(container.log_path.exists());
    let fresh = std::fs::read_to_string(&container.log_path).unwrap().len();
    within(async {
        while std::fs::read_to_string(&container.log_path).unwrap().len() <= fresh {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
    let all =
        std::fs::read_to_string(&rotated).unwrap() + &std::fs::read_to_string(&container.log_path).unwrap();
    let ticks = all.lines().filter_map(|line| line.split_once(" F tick ")?.1.parse::<u32>().ok());
    assert!(
        ticks.zip(1..).all(|(tick, expected)| tick == expected),
        "every line is in one of the two, in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_is() {
    let host = Host::start().await;
    let version = host.provider.version().await.unwrap();
    assert_eq!(version.runtime_name, "wasm");
    assert!(version.runtime_version.contains("wasmtime.48"), "{}", version.runtime_version);
    let handlers: Vec<_> =
        host.provider.status().await.unwrap().handlers.into_iter().map(|h| h.name).collect();
    assert_eq!(handlers, ["", "wasm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_limit_changes_while_a_container_runs() {
    let host = Host::start().await;
    let limited = |bytes| Resources { memory_limit_bytes: Some(bytes), ..Resources::default() };
    let container = host.run(&guest("stay"), |config| config.resources = limited(64 << 20)).await;
    written(&container).await;
    assert_eq!(host.provider.live_resize(), LiveResize { cpu: false, memory: true });
    let update = |resources| host.provider.update_container_resources(&container.id, resources);

    let updated = update(limited(128 << 20)).await.unwrap();
    assert_eq!((updated.state, &updated.resources), (ContainerState::Running, &limited(128 << 20)));
    assert!(updated.revision > container.revision);
    assert_eq!(host.status(&container).await, updated);

    let error = update(limited(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ResourceExhausted, "it uses more: {error}");
    let error = update(Resources { cpu_limit_millis: Some(1), ..limited(128 << 20) }).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unimplemented, "{error}");
    assert_eq!(host.status(&container).await, updated, "nothing has changed");

    host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
    assert_eq!(update(limited(64 << 20)).await.unwrap_err().kind, ErrorKind::InvalidArgument);
}
