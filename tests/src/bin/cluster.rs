//! A local cluster with one Coracle node, until Ctrl-C: `cargo xtask cluster`.

use anyhow::Result;
use coracle_tests::cluster;
use coracle_tests::node::Node;
use coracle_tests::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From the beginning, so that Ctrl-C during the start takes down what has started.
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };

    eprintln!("starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler");
    let control_plane = cluster::start_control_plane()?;
    eprintln!("starting a registry");
    let registry = Registry::start()?;
    let http = registry.push_guest("http")?;
    eprintln!("starting the node `coracle`");
    let node = Node::start(&control_plane, "coracle")?;
    node.await_ready(&control_plane.kubectl())?;

    println!("export KUBECONFIG={}", control_plane.admin_kubeconfig().display());
    eprintln!("registry: {} (it holds {http})", registry.host());
    eprintln!("the node's files: {}", node.root().display());
    eprintln!("Ctrl-C ends everything");
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    eprintln!("taking everything down");
    drop(node);
    Ok(())
}
