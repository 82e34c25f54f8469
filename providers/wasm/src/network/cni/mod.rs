//! CNI mode: each pod has a network namespace of its own, and its addresses come from the node's CNI plugins.
//!
//! What a container runtime does for a container's network, by the CNI specification 1.1 (and as libcni does it): a named
//! namespace is made, the plugins of the first network configuration are run with `ADD`, and with `DEL` in the opposite
//! order once the pod is gone. What was added is on record before the first plugin runs: the namespace and its addresses
//! outlive this process, the pod's next sandbox has them again, and what nobody wants any more is removed later.

mod config;
mod plugin;
mod record;
mod result;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::{Error, ErrorKind, PodRef, Result};
use tokio::time::sleep;

use self::config::NetworkList;
use self::plugin::{Command, Invocation};
use self::record::{Attachment, Records};
use super::NetworkError;
use super::namespace::{Namespace, remove_named};
use super::netlink::Netlink;

/// Where named namespaces are, for `ip netns` and for plugins that look there.
const NAMESPACES: &str = "/run/netns";
/// The pod's end of its network.
const INTERFACE: &str = "eth0";
/// How often a plugin is asked to remove a pod's network before the caller hears of it, who asks again later.
const REMOVALS: usize = 3;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(500);

/// Where the node's CNI plugins are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniConfig {
    /// The folder of network configurations: the first by name counts.
    pub conf_dir: PathBuf,
    /// The folders of plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// Where what was added is recorded. Nobody else may write to it.
    pub state_dir: PathBuf,
}

/// The networks of pods that plugins made.
#[derive(Debug)]
pub(super) struct Cni {
    config: CniConfig,
    records: Records,
}

/// A pod's part of the network.
pub(super) struct Attached {
    pub(super) ips: Vec<IpAddr>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) path: PathBuf,
}

impl Cni {
    pub(super) fn open(config: CniConfig) -> Result<Self, NetworkError> {
        let folder = config.state_dir.display().to_string();
        let records = Records::open(config.state_dir.clone())
            .map_err(|error| NetworkError::system(format!("open {folder}"), error))?;
        Ok(Self { config, records })
    }

    /// Whether there is a network configuration; says what is wrong if there is none.
    pub(super) fn ready(&self) -> Result<(), String> {
        NetworkList::load(&self.config.conf_dir).map(drop)
    }

    /// The pods with a network on record.
    pub(super) fn pods(&self) -> io::Result<Vec<String>> {
        self.records.pods()
    }

    /// A pod's network: the one that it has already, or a new one.
    ///
    /// `Unavailable`, with the plugin's own words, if a plugin fails.
    pub(super) async fn attach(&self, pod: &PodRef) -> Result<Attached> {
        let failed = |error: io::Error| unavailable(pod, error);
        if let Some(known) = self.records.read(&pod.uid).map_err(failed)? {
            match (known.ips(), Namespace::open(&known.namespace)) {
                (Ok(ips), Ok(namespace)) if !ips.is_empty() => {
                    return Ok(Attached { ips, namespace, path: known.namespace });
                }
                // It was not finished, or did not outlive the machine's last start.
                _ => self.detach(&pod.uid).await?,
            }
        }
        let list = NetworkList::load(&self.config.conf_dir).map_err(|reason| unavailable(pod, reason))?;
        let mut attachment = Attachment::new(pod, list, NAMESPACES.as_ref());
        self.records.write(&attachment).map_err(failed)?;
        match self.add(&mut attachment).await {
            Ok(attached) => Ok(attached),
            Err(reason) => {
                // A plugin may have done half of its work; a removal that fails too is tried again with the pod's end.
                if let Err(error) = self.detach(&pod.uid).await {
                    tracing::warn!(%error, "what is left of a pod's network");
                }
                Err(unavailable(pod, reason))
            }
        }
    }

    async fn add(&self, attachment: &mut Attachment) -> Result<Attached, String> {
        let path = attachment.namespace.clone();
        let namespace = Namespace::create_named(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        let netlink = Netlink::connect_in(&namespace).map_err(|error| error.to_string())?;
        netlink.set_up("lo").await.map_err(|error| error.to_string())?;
        for index in 0..attachment.network.plugins.len() {
            let answer = self.run(Command::Add, attachment, index).await?;
            if !answer.is_null() {
                attachment.result = Some(answer);
            }
        }
        let ips = attachment.ips()?;
        if ips.is_empty() {
            return Err(format!("the network {:?} gave the pod no address", attachment.network.name));
        }
        self.records
            .write(attachment)
            .map_err(|error| format!("cannot record the pod's network: {error}"))?;
        Ok(Attached { ips, namespace, path })
    }

    /// Removes a pod's network, if it has one.
    ///
    /// `Unavailable`, with the plugin's own words, if a plugin keeps failing: ask again later.
    pub(super) async fn detach(&self, pod_uid: &str) -> Result<()> {
        let wrong = |error: &dyn std::fmt::Display| {
            let message = format!("cannot remove the network of pod {pod_uid}: {error}");
            Error::new(ErrorKind::Unavailable, message)
        };
        let Some(attachment) = self.records.read(pod_uid).map_err(|error| wrong(&error))? else {
            return Ok(());
        };
        for index in (0..attachment.network.plugins.len()).rev() {
            let mut attempt = 1;
            while let Err(reason) = self.run(Command::Del, &attachment, index).await {
                if attempt == REMOVALS {
                    return Err(wrong(&reason));
                }
                attempt += 1;
                sleep(BETWEEN_REMOVALS).await;
            }
        }
        remove_named(&attachment.namespace).map_err(|error| wrong(&error))?;
        self.records.remove(pod_uid).map_err(|error| wrong(&error))
    }

    /// Runs one of the plugins, and gives its result; null where there is none.
    async fn run(
        &self,
        command: Command,
        attachment: &Attachment,
        index: usize,
    ) -> Result<serde_json::Value, String> {
        let invocation = Invocation { command, attachment, plugin: &attachment.network.plugins[index] };
        invocation.run(&self.config.bin_dirs).await
    }
}

fn unavailable(pod: &PodRef, reason: impl std::fmt::Display) -> Error {
    let message = format!("cannot set up the network of pod {}/{}: {reason}", pod.namespace, pod.name);
    Error::new(ErrorKind::Unavailable, message)
}
