//! One run: starts the pods, shows what they write, and waits for their end.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::sync::Arc;

use coracle_core::host::HostInterface;
use coracle_core::kubelet::Bootstrap;
use coracle_core::pod::{PodExt, phase};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use tokio::task::JoinSet;

use super::node::Node;
use super::output;
use super::sink::News;
use crate::exit;
use crate::signals::Signals;

/// Waiting reasons that pass by themselves.
const PATIENCE: [&str; 3] = ["ContainerCreating", "PodInitializing", "CrashLoopBackOff"];

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Its containers ran; the code is 0 or that of the first that failed.
    Ended(u8),
    /// It could not be started.
    NotStarted,
}

/// Runs all pods to their end and answers the exit code.
pub(super) async fn run(node: &Node, mut signals: Signals) -> u8 {
    let (Some(updates), Some(mut news)) = (node.updates.lock().take(), node.news.lock().take()) else {
        return exit::FAILURE;
    };
    let mut session = Session::new(node);
    let mut starting = Box::pin(node.kubelet.clone().run_once(updates));
    let mut running = None;
    let interrupted = loop {
        tokio::select! {
            (_, tasks) = &mut starting, if running.is_none() => running = Some(tasks),
            Some(news) = news.recv() => session.take(news).await,
            Some(followed) = session.followers.join_next() => {
                if let Ok(Err(error)) = followed {
                    tracing::warn!(%error, "showing the output of a container failed");
                }
            }
            () = signals.next() => break true,
        }
        if session.is_over() {
            break false;
        }
    };
    if interrupted {
        tokio::select! {
            () = node.kubelet.kill_pods(|_| true, None) => {}
            () = signals.next() => std::process::exit(exit::INTERRUPTED.into()),
        }
        session.note_final_statuses();
    }
    session.show_the_rest().await;
    session.exit_code()
}

struct Session<'a> {
    node: &'a Node,
    outcomes: HashMap<String, Outcome>,
    /// Container instances whose output is or was shown.
    seen: HashSet<String>,
    followers: JoinSet<Result<(), coracle_core::logs::ReadLogsError>>,
    announced: HashSet<String>,
    prefixed: bool,
}

impl<'a> Session<'a> {
    fn new(node: &'a Node) -> Self {
        let containers: usize =
            node.pods.iter().map(|p| p.containers().len() + p.init_containers().len()).sum();
        Self {
            node,
            outcomes: HashMap::new(),
            seen: HashSet::new(),
            followers: JoinSet::new(),
            announced: HashSet::new(),
            prefixed: containers > 1,
        }
    }

    fn is_over(&self) -> bool {
        self.node.pods.iter().all(|pod| self.outcomes.contains_key(&*pod.uid()))
    }

    /// That of the first pod that did not end well, in the order in which they were given.
    fn exit_code(&self) -> u8 {
        let outcomes = self.node.pods.iter().filter_map(|pod| self.outcomes.get(&*pod.uid()));
        let codes = outcomes.map(|outcome| match outcome {
            Outcome::Ended(code) => *code,
            Outcome::NotStarted => exit::NOT_STARTED,
        });
        codes.into_iter().find(|code| *code != 0).unwrap_or(0)
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Status(pod, status) => self.take_status(&pod, &status).await,
            News::Obstacle { uid, message } => {
                if let Some(pod) = self.node.pods.iter().find(|p| *p.uid() == *uid).cloned() {
                    self.give_up(&pod, &message).await;
                }
            }
        }
    }

    async fn take_status(&mut self, pod: &Arc<Pod>, status: &PodStatus) {
        self.follow_new_containers(pod, status).await;
        let phase = status.phase.as_deref().unwrap_or_default();
        if self.outcomes.contains_key(&*pod.uid()) {
            return;
        }
        if phase::is_terminal(phase) {
            self.end(pod, status);
        } else if let Some(reason) = start_failure(status) {
            self.give_up(pod, &reason).await;
        } else if phase == phase::RUNNING {
            self.announce(pod, status);
            self.tell_restarts(pod, status);
        }
    }

    fn end(&mut self, pod: &Pod, status: &PodStatus) {
        let failed = failed_container(status);
        let never_ran = status.container_statuses.iter().flatten().next().is_none();
        let outcome = match (failed, status.phase.as_deref()) {
            (None, Some(phase::FAILED)) if never_ran => {
                let message = status.message.as_deref().or(status.reason.as_deref());
                complain(pod, message.unwrap_or("it failed"));
                Outcome::NotStarted
            }
            (None, Some(phase::FAILED)) => Outcome::Ended(exit::FAILURE),
            (None, _) => Outcome::Ended(0),
            (Some((container, code, message)), _) => {
                if let Some(message) = message {
                    complain(pod, &format!("container {container}: {message}"));
                }
                Outcome::Ended(code)
            }
        };
        self.outcomes.insert(pod.uid().to_string(), outcome);
    }

    /// The pod cannot be started as it is: waiting would be for nothing.
    async fn give_up(&mut self, pod: &Arc<Pod>, message: &str) {
        if self.outcomes.insert(pod.uid().to_string(), Outcome::NotStarted).is_none() {
            complain(pod, message);
            let uid = pod.uid();
            self.node.kubelet.kill_pods(|other| other.uid() == uid, Some(1)).await;
        }
    }

    /// After Ctrl-C: what the containers came to.
    fn note_final_statuses(&mut self) {
        for pod in self.node.kubelet.pods() {
            let code = failed_container(pod.pod_status()).map_or(0, |(_, code, _)| code);
            self.outcomes.entry(pod.uid().to_string()).or_insert(Outcome::Ended(code));
        }
    }

    async fn follow_new_containers(&mut self, pod: &Arc<Pod>, status: &PodStatus) {
        let lists = [&status.init_container_statuses, &status.container_statuses];
        for container in lists.into_iter().flatten().flatten() {
            for (id, previous) in instances(container) {
                if self.seen.contains(&id) {
                    continue;
                }
                let (namespace, name) = (pod.namespace(), pod.name());
                let log = self.node.kubelet.container_log(namespace, name, &container.name, previous).await;
                let Ok(log) = log else { continue };
                self.seen.insert(id);
                let prefix = self.prefixed.then(|| format!("{name}/{} | ", container.name));
                self.followers.spawn(output::follow(log, prefix));
            }
        }
    }

    async fn show_the_rest(&mut self) {
        for pod in self.node.kubelet.pods() {
            self.follow_new_containers(&pod, pod.pod_status()).await;
        }
        while self.followers.join_next().await.is_some() {}
    }

    /// Says where a pod can be reached, to people.
    fn announce(&mut self, pod: &Pod, status: &PodStatus) {
        if !std::io::stderr().is_terminal() || !self.announced.insert(pod.uid().to_string()) {
            return;
        }
        let ip = status.pod_ip.as_deref().unwrap_or("this machine's address");
        for port in pod.containers().iter().flat_map(|c| c.ports.iter().flatten()) {
            let host = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("127.0.0.1");
            match port.host_port.filter(|p| *p != 0) {
                Some(host_port) => {
                    eprintln!("{}: port {} is at {host}:{host_port}", pod.name(), port.container_port)
                }
                None => eprintln!(
                    "{}: port {} is at {ip}:{}",
                    pod.name(),
                    port.container_port,
                    port.container_port
                ),
            }
        }
    }

    fn tell_restarts(&mut self, pod: &Pod, status: &PodStatus) {
        for container in status.container_statuses.iter().flatten() {
            let ended =
                container.state.as_ref().and_then(|s| s.waiting.as_ref()).and(container.last_state.as_ref());
            let Some(ended) = ended.and_then(|s| s.terminated.as_ref()) else { continue };
            let id = format!("told {}", ended.container_id.as_deref().unwrap_or_default());
            if self.announced.insert(id) {
                let why = container.state.as_ref().and_then(|s| s.waiting.as_ref()?.message.as_deref());
                let why = why.unwrap_or("it will be restarted");
                complain(pod, &format!("container {} ended with {}: {why}", container.name, ended.exit_code));
            }
        }
    }
}

/// The instances of a container that its status names, the older one first.
fn instances(container: &ContainerStatus) -> Vec<(String, bool)> {
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        state.and_then(|s| s.terminated.as_ref()).and_then(|t| t.container_id.clone())
    };
    let previous = ended(container.last_state.as_ref()).map(|id| (id, true));
    let state = container.state.as_ref();
    let running = state.filter(|s| s.running.is_some()).and(container.container_id.clone());
    let current = running.or_else(|| ended(state)).map(|id| (id, false));
    previous.into_iter().chain(current).collect()
}

/// Why a container cannot be started, if waiting will not help.
fn start_failure(status: &PodStatus) -> Option<String> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let waiting =
        lists.into_iter().flatten().flatten().filter_map(|c| Some((c, c.state.as_ref()?.waiting.as_ref()?)));
    waiting.into_iter().find_map(|(container, waiting)| {
        let reason = waiting.reason.as_deref().filter(|r| !PATIENCE.contains(r))?;
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(format!("container {}: {reason}: {message}", container.name))
    })
}

/// The first container that did not end well: its name, code, and what is known beyond the code.
fn failed_container(status: &PodStatus) -> Option<(String, u8, Option<String>)> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().find_map(|container| {
        let state =
            container.state.as_ref().filter(|s| s.terminated.is_some()).or(container.last_state.as_ref())?;
        let ended = state.terminated.as_ref().filter(|t| t.exit_code != 0)?;
        // The system keeps eight bits of an exit code; a failure must not look like success.
        let code = u8::try_from(ended.exit_code & 0xff).ok().filter(|c| *c != 0).unwrap_or(exit::FAILURE);
        let message = ended.message.clone().filter(|m| !m.is_empty());
        Some((container.name.clone(), code, message))
    })
}

fn complain(pod: &Pod, message: &str) {
    eprintln!("coracle: pod {}: {}", pod.name(), message.replace('\n', " "));
}
