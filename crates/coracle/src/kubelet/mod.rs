//! `coracle kubelet`: a node of a cluster (upstream: `cmd/kubelet/app/server.go`).

mod about;
mod agent;
mod api_server;
mod clients;
mod containers;
mod control_groups;
pub(crate) mod images;
mod manifest_url;
mod network;
mod node_reporter;
mod options;
mod pod_sources;
mod reserved;
mod standalone;

use std::process::ExitCode;

use sd_notify::NotifyState;

use crate::config::{KubeletArgs, LogFormat, Resolved};
use crate::logging::{self, Format};
use crate::runtimes::Runtimes;
use crate::signals::Signals;
use crate::{exit, version};

/// Runs until it is told to end.
pub fn main(args: KubeletArgs) -> ExitCode {
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error, exit::FAILURE),
    }
}

fn start(args: &KubeletArgs) -> anyhow::Result<()> {
    if args.version()? {
        println!("Kubernetes {}", version::kubelet_version());
        return Ok(());
    }
    let resolved = args.resolve()?;
    start_logging(&resolved);
    let runtimes = Runtimes::start()?;
    runtimes.control.block_on(async {
        let mut signals = Signals::listen()?;
        let agent = tokio::select! {
            agent = agent::Agent::start(&resolved, &runtimes) => agent?,
            () = signals.next() => return Ok(()),
        };
        tell_systemd(NotifyState::Ready);
        signals.next().await;
        tracing::info!("told to end");
        tell_systemd(NotifyState::Stopping);
        tokio::select! {
            () = agent.shut_down() => {}
            () = signals.next() => {}
        }
        Ok(())
    })
}

/// Nothing, unless systemd started this process and waits to hear of it (`Type=notify`).
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how this service is");
    }
}

fn start_logging(resolved: &Resolved) {
    let format = match resolved.config.logging.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    logging::start(logging::level(resolved.config.logging.verbosity), format);
    tracing::info!(version = version::kubelet_version(), node = resolved.flags.node_name, "starting");
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
}
