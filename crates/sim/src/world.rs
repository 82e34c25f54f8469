//! An agent and all that it lives in.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_core::allocation::States;
use coracle_core::config::PodConfig;
use coracle_core::eviction::EvictionConfig;
use coracle_core::kubelet::{Dependencies, Kubelet, KubeletOptions, start_kubelet};
use coracle_core::kuberuntime::{DnsConfigurer, ImageManagerOptions, RuntimeOptions};
use coracle_core::pod_workers::PodWorkersOptions;
use coracle_core::providers::{Providers, RegisteredProvider};
use coracle_core::recorder::Recorder;
use coracle_provider::Provider;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::Api;
use crate::checker::Violation;
use crate::dice::Dice;
use crate::faults::{Faults, ProviderFaults};
use crate::history::{Fact, History};
use crate::lives::Lives;
use crate::manifests::Manifests;
use crate::network::Network;
use crate::provider::{Served, SimProvider};
use crate::volumes::SimVolumes;

/// Everything of one run.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) history: Arc<History>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) lives: Arc<Lives>,
    pub(crate) api: Arc<Api>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) providers: [Arc<SimProvider>; 2],
    pub(crate) volumes: Arc<SimVolumes>,
    network: Arc<Network>,
    /// Files, which outlive the agent.
    resources: States,
    agent: Option<Agent>,
}

struct Agent {
    kubelet: Arc<Kubelet>,
    _tasks: JoinSet<()>,
    _sources: JoinSet<()>,
}

impl World {
    pub(crate) fn new(dice: Dice) -> Self {
        let history = History::new();
        let faults = Arc::new(Faults::new(&dice));
        let lives = Arc::new(Lives::new(dice.clone()));
        let provider = |name, slowness, fails| {
            let own = ProviderFaults::new(&dice, slowness, fails);
            SimProvider::new(name, own, faults.clone(), lives.clone(), dice.clone(), history.clone())
        };
        let providers = [provider("fast", 1, dice.chance(300)), provider("slow", 50, true)];
        let network = Arc::new(Network { dice: dice.clone(), faults: faults.clone(), lives: lives.clone() });
        Self {
            api: Api::new(dice.clone(), faults.clone(), history.clone()),
            volumes: SimVolumes::new(dice.clone(), faults.clone(), history.clone()),
            manifests: Manifests::new(dice.clone(), faults.clone(), history.clone()),
            resources: States::in_memory(),
            agent: None,
            dice,
            history,
            faults,
            lives,
            providers,
            network,
        }
    }

    pub(crate) fn kubelet(&self) -> Option<&Arc<Kubelet>> {
        self.agent.as_ref().map(|agent| &agent.kubelet)
    }

    pub(crate) fn start_agent(&mut self) {
        self.history.tell("", Fact::AgentStarted);
        let registered = |provider: &Arc<SimProvider>| RegisteredProvider {
            provider: Arc::new(Served(provider.clone())) as Arc<dyn Provider>,
            handlers: vec![provider.name().to_owned()],
            relist_period: Duration::from_secs(10),
        };
        let nowhere = || PathBuf::from("/nonexistent");
        let options = KubeletOptions {
            node_name: "node".to_owned(),
            node_ips: vec![[192, 0, 2, 1].into()],
            max_pods: 110,
            workers: PodWorkersOptions::default(),
            dns: DnsConfigurer::default(),
            runtime: RuntimeOptions {
                pod_logs_dir: nowhere(),
                container_logs_dir: None,
                ..RuntimeOptions::default()
            },
            images: ImageManagerOptions::default(),
            image_gc: None,
            log_rotation: None,
            eviction: EvictionConfig::default(),
            volume_stats_period: None,
        };
        let deps = Dependencies {
            providers: Providers::new(self.providers.iter().map(registered).collect()),
            container_manager: None,
            status_sink: self.api.clone(),
            mirror_client: Some(self.api.clone()),
            event_sink: self.api.clone(),
            objects: self.api.clone(),
            volumes: self.volumes.clone(),
            resources: self.resources.clone(),
            probe_transport: self.network.clone(),
            server: None,
            node_usage: None,
            pod_resources: None,
        };
        let config =
            PodConfig::new(vec![self.api.clone(), self.manifests.clone()], Recorder::new(self.api.clone()));
        let kubelet = Kubelet::new(options, deps, config.sources_ready());
        let (updates, sources) = config.start();
        let tasks = start_kubelet(&kubelet, updates);
        self.agent = Some(Agent { kubelet, _tasks: tasks, _sources: sources });
    }

    /// As kill -9 does it. Nothing of the agent may be left.
    pub(crate) async fn kill_agent(&mut self) {
        let Some(agent) = self.agent.take() else { return };
        self.history.tell("", Fact::AgentKilled);
        let left: Weak<Kubelet> = Arc::downgrade(&agent.kubelet);
        drop(agent);
        sleep(Duration::from_millis(1)).await;
        if left.strong_count() > 0 {
            let message = "something of a killed agent still runs".to_owned();
            self.history.fail(Violation { rule: "dropping ends everything", uid: String::new(), message });
        }
    }
}
