//! How long a pod takes from its sandbox to its first instruction, when its image is there and its code is mapped.
//!
//! `cargo bench -p coracle-wasm --bench start`. Prints the median and the 99th percentile of each step.

#![allow(clippy::unwrap_used)]

// The tests' provider will do; a bench needs only a part of it.
#[allow(dead_code)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use coracle_provider::{ContainerConfig, ImageSpec, RuntimeService};

use support::{Host, guest};

const ROUNDS: usize = 300;

fn main() {
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    control.block_on(async {
        let host = Host::start().await;
        for module in ["hello", "hello-p2", "http"] {
            measure(&host, module).await;
        }
    });
}

/// The steps of a start, and when each was done.
#[derive(Clone, Copy)]
struct Steps {
    sandbox: Duration,
    create: Duration,
    start: Duration,
    output: Duration,
}

async fn measure(host: &Host, module: &str) {
    let image = host.pull(&guest(module)).await.unwrap();
    let mut all = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let steps = start_one(host, &image, &format!("{module}-{round}")).await;
        // The first one maps the code.
        if round > 0 {
            all.push(steps);
        }
    }
    println!("{module}, {ROUNDS} starts");
    print("sandbox", &all, |s| s.sandbox);
    print("create", &all, |s| s.create);
    print("start", &all, |s| s.start);
    print("all, until the call returns", &all, |s| s.sandbox + s.create + s.start);
    if module != "http" {
        print("all, until its first output", &all, |s| s.sandbox + s.create + s.output);
    }
}

async fn start_one(host: &Host, image: &str, uid: &str) -> Steps {
    let config = ContainerConfig {
        name: "c".into(),
        image: ImageSpec::new("bench"),
        image_ref: image.into(),
        log_path: "c/0.log".into(),
        serving_port: 39_871,
        ..ContainerConfig::default()
    };
    std::fs::create_dir_all(host.folder.path().join("logs").join(uid).join("c")).unwrap();
    let begun = Instant::now();
    let sandbox = host.sandbox(uid).await;
    let ready = begun.elapsed();
    let container = host.provider.create_container(&sandbox.id, config).await.unwrap();
    let created = begun.elapsed();
    let running = host.provider.start_container(&container.id).await.unwrap();
    let started = begun.elapsed();
    if !image_is_service(&running) {
        while std::fs::metadata(&running.log_path).map_or(0, |meta| meta.len()) == 0 {
            tokio::task::yield_now().await;
        }
    }
    let output = begun.elapsed();
    host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
    host.provider.stop_sandbox(&sandbox.id).await.unwrap();
    host.provider.remove_sandbox(&sandbox.id).await.unwrap();
    Steps { sandbox: ready, create: created - ready, start: started - created, output: output - created }
}

fn image_is_service(status: &coracle_provider::ContainerStatus) -> bool {
    status.pod.uid.starts_with("http")
}

fn print(what: &str, all: &[Steps], of: impl Fn(&Steps) -> Duration) {
    let mut times: Vec<Duration> = all.iter().map(of).collect();
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!("  {what:<32} p50 {:>9.1?}  p99 {:>9.1?}", at(50), at(99));
}
