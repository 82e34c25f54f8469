//! Sessions find the container that is meant, and say so if there is none.

use std::time::Duration;

use coracle_core::sessions::{ContainerTarget, PodTarget, SessionError, Sessions as _};
use coracle_provider::fake::FakeExec;
use coracle_provider::{ErrorKind, ExecSyncResponse, SessionOptions};

use crate::world::{World, on, one};

fn pod(name: &str, uid: Option<&str>) -> PodTarget {
    PodTarget { namespace: "ns".into(), name: name.into(), uid: uid.map(str::to_owned) }
}

fn container(pod: PodTarget, name: &str) -> ContainerTarget {
    ContainerTarget { pod, container: name.into() }
}

async fn run(world: &World, target: &ContainerTarget) -> Result<Vec<u8>, SessionError> {
    world.kubelet().run_in_container(target, &["say".to_owned(), "it".to_owned()]).await
}

fn says(stdout: &str, stderr: &str, exit_code: i32) -> FakeExec {
    let (stdout, stderr) = (stdout.as_bytes().to_vec(), stderr.as_bytes().to_vec());
    FakeExec { delay: Duration::ZERO, result: Ok(ExecSyncResponse { stdout, stderr, exit_code }) }
}

#[tokio::test(start_paused = true)]
async fn the_running_container_is_found_with_its_provider() {
    let world = World::start().await;
    world.create("a", one("Always", "app"));
    world.create("b", on("slow", one("Always", "app")));
    world.until("Running", |w| ["a", "b"].iter().all(|uid| w.phase(uid) == "Running")).await;
    world.fast.set_exec("say", says("fast", "!", 0));
    world.slow.set_exec("say", says("slow", "", 0));
    for (name, uid, output) in [("a", None, "fast!"), ("a", Some("a"), "fast!"), ("b", Some("b"), "slow")] {
        let output_of = run(&world, &container(pod(name, uid), "main")).await.unwrap();
        assert_eq!(String::from_utf8(output_of).unwrap(), output, "{name} {uid:?}");
    }
    world.fast.set_exec("say", says("", "oh", 3));
    let error = run(&world, &container(pod("a", None), "main")).await.unwrap_err();
    assert_eq!(error.to_string(), "command 'say it' exited with 3: oh");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_run_is_not_found() {
    let world = World::start().await;
    world.create("a", one("Never", "app"));
    world.until("Running", |w| w.phase("a") == "Running").await;
    let not_found = |name: &str| SessionError::ContainerNotFound { container: name.into() };
    for (target, expected) in [
        (container(pod("none", None), "main"), "main"),
        (container(pod("a", Some("of-another")), "main"), "main"),
        (container(pod("a", None), "none"), "none"),
    ] {
        assert_eq!(run(&world, &target).await, Err(not_found(expected)), "{target:?}");
    }
    let error = world.kubelet().port_forward(&pod("none", None), 80).await.unwrap_err();
    assert_eq!(error.to_string(), "pod not found (\"none_ns\")");

    // The fake has no sessions, and that is told as the provider tells it.
    let kubelet = world.kubelet();
    let main = container(pod("a", None), "main");
    let (target, options) = (pod("a", Some("a")), SessionOptions::default());
    assert_eq!(kubelet.port_forward_url(&target, &[80]).await, Ok(None));
    let refusals = [
        kubelet.exec(&main, &["x".to_owned()], options).await.map(drop),
        kubelet.attach(&main, options).await.map(drop),
        kubelet.port_forward(&target, 80).await.map(drop),
    ];
    for refusal in refusals {
        let Err(SessionError::Provider(error)) = refusal else { panic!("{refusal:?}") };
        assert_eq!(error.kind, ErrorKind::Unimplemented);
    }

    world.fast.exit("a", "main", 0);
    world.until("Succeeded", |w| w.phase("a") == "Succeeded").await;
    assert_eq!(run(&world, &main).await, Err(not_found("main")));
}
