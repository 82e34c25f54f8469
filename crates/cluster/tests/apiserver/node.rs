use std::sync::Arc;
use std::time::Duration;

use coracle_cluster::{KubeObjectReader, LeaseController, NodeController, NodeOptions};
use coracle_core::machine::MachineInfo;
use coracle_core::nodestatus::{NodeSettings, NodeState, initial_node};
use coracle_core::ports::{NodeStatusSource, ObjectReader};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::bed::{Bed, Events, eventually};

struct Source {
    settings: Mutex<NodeSettings>,
    state: Mutex<NodeState>,
    changed: watch::Sender<()>,
}

impl Source {
    fn new(bed: &Bed) -> Arc<Self> {
        let settings = NodeSettings {
            name: bed.name.clone(),
            hostname: bed.name.clone(),
            architecture: "wasm32-wasi".to_owned(),
            taints: vec![taint("kubernetes.io/arch")],
            max_pods: 110,
            kubelet_version: "v1.37.2+coracle.0.1.0".to_owned(),
            container_runtime_version: "wasm://0.1.0".to_owned(),
            kubelet_port: 10250,
            ..NodeSettings::default()
        };
        let state = NodeState {
            addresses: vec!["192.0.2.7".parse().unwrap()],
            errors: vec!["starting".to_owned()],
            ..NodeState::default()
        };
        Arc::new(Self {
            settings: Mutex::new(settings),
            state: Mutex::new(state),
            changed: watch::channel(()).0,
        })
    }

    fn change(&self, change: impl FnOnce(&mut NodeState)) {
        change(&mut self.state.lock());
        self.changed.send_replace(());
    }
}

impl NodeStatusSource for Source {
    fn node(&self) -> Node {
        let machine =
            MachineInfo { cpus: 2, memory_bytes: 1 << 30, boot_id: "b".to_owned(), ..MachineInfo::default() };
        initial_node(&self.settings.lock(), &machine, &self.state.lock())
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: Some("x".to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    }
}

fn start(bed: &Bed, source: &Arc<Source>, options: NodeOptions) -> (AbortOnDropHandle<()>, Arc<Events>) {
    let events = Arc::new(Events::default());
    let (source, sink): (Arc<Source>, Arc<Events>) = (Arc::clone(source), Arc::clone(&events));
    let controller = NodeController::new(&bed.client, bed.node_watch(), source, sink, options);
    (AbortOnDropHandle::new(tokio::spawn(controller.run())), events)
}

fn nodes(bed: &Bed) -> Api<Node> {
    Api::all(bed.admin.clone())
}

async fn node_when(bed: &Bed, what: &str, condition: impl Fn(&Node) -> bool) -> Node {
    eventually(what, async || nodes(bed).get_opt(&bed.name).await.unwrap().filter(&condition)).await
}

fn condition(node: &Node, type_: &str) -> NodeCondition {
    let conditions = node.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    conditions.into_iter().find(|condition| condition.type_ == type_).unwrap_or_default()
}

fn keys(node: &Node) -> Vec<String> {
    let taints = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
    // The controllers have taints of their own for a node that is not Ready.
    taints.into_iter().map(|taint| taint.key).filter(|key| !key.starts_with("node.kubernetes.io/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_registered_and_follows_its_source() {
    let bed = Bed::new("node").await;
    let source = Source::new(&bed);
    let (_controller, events) = start(&bed, &source, NodeOptions::default());

    let node = node_when(&bed, "the Node", |_| true).await;
    assert_eq!(node.labels()["kubernetes.io/arch"], "wasm32-wasi");
    assert_eq!(keys(&node), ["kubernetes.io/arch"]);
    assert_eq!(condition(&node, "Ready").message.as_deref(), Some("starting"));
    assert_eq!(condition(&node, "MemoryPressure").status, "False");

    source.change(|state| state.errors.clear());
    let node = node_when(&bed, "Ready", |node| condition(node, "Ready").status == "True").await;
    assert_eq!(condition(&node, "Ready").reason.as_deref(), Some("KubeletReady"));
    assert_eq!(
        events.reasons(),
        ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]
    );
    assert_eq!(events.0.lock()[0].object.uid, node.uid());

    // Two addresses of one type, which a patch that merges by type would take for one.
    source.change(|state| state.addresses.push("2001:db8::7".parse().unwrap()));
    let node = node_when(&bed, "both addresses", |node| {
        node.status.as_ref().unwrap().addresses.as_ref().is_some_and(|addresses| addresses.len() == 3)
    })
    .await;
    let addresses = node.status.unwrap().addresses.unwrap();
    assert_eq!(
        addresses.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(),
        ["192.0.2.7", "2001:db8::7", bed.name.as_str()]
    );

    // The reader of objects shows the same Node.
    let reader = KubeObjectReader::new(Arc::clone(&bed.client), bed.node_watch());
    eventually("the reader sees the Node", async || reader.node()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_registration_takes_over_labels_and_leaves_taints_and_strangers() {
    let bed = Bed::new("again").await;
    let source = Source::new(&bed);
    let (controller, _) = start(&bed, &source, NodeOptions::default());
    let first = node_when(&bed, "the Node", |_| true).await;
    drop(controller);

    let theirs = json!({
        "metadata": {"labels": {"theirs": "x", "topology.kubernetes.io/zone": "z1"}},
        "status": {
            "capacity": {"example.com/gpu": "2"},
            "conditions": [{"type": "NetworkUnavailable", "status": "False"}],
        },
    });
    let patch = Patch::Strategic(&theirs);
    nodes(&bed).patch(&bed.name, &PatchParams::default(), &patch).await.unwrap();
    nodes(&bed).patch_status(&bed.name, &PatchParams::default(), &patch).await.unwrap();

    let settings = |settings: &mut NodeSettings| {
        settings.labels.insert("topology.kubernetes.io/zone".to_owned(), "z2".to_owned());
        settings.taints = vec![taint("other")];
    };
    settings(&mut source.settings.lock());
    source.change(|state| state.errors.clear());
    let (_controller, _) = start(&bed, &source, NodeOptions::default());
    let node = node_when(&bed, "Ready", |node| condition(node, "Ready").status == "True").await;
    assert_eq!(node.uid(), first.uid());
    assert_eq!(
        (node.labels()["theirs"].as_str(), node.labels()["topology.kubernetes.io/zone"].as_str()),
        ("x", "z2")
    );
    assert_eq!(keys(&node), ["kubernetes.io/arch"]);
    assert_eq!(condition(&node, "NetworkUnavailable").status, "False");
    let status = node.status.unwrap();
    assert_eq!(status.capacity.unwrap()["example.com/gpu"].0, "2");
    assert_eq!(status.allocatable.unwrap()["example.com/gpu"].0, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_does_not_change_is_written_now_and_then() {
    let bed = Bed::new("heartbeat").await;
    let source = Source::new(&bed);
    let options = NodeOptions {
        update_frequency: Duration::from_millis(200),
        report_frequency: Duration::from_secs(3),
        ..NodeOptions::default()
    };
    let (_controller, events) = start(&bed, &source, options);
    let first = node_when(&bed, "a status", |node| !condition(node, "Ready").status.is_empty()).await;
    let mut beats = Vec::new();
    let until = Instant::now() + Duration::from_secs(9);
    while Instant::now() < until {
        let node = nodes(&bed).get(&bed.name).await.unwrap();
        beats.push(condition(&node, "Ready").last_heartbeat_time.unwrap().0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    beats.dedup();
    // A look comes every 200 ms, a report after 1.5 to 4.5 s and then every 3 s.
    assert!((2..=5).contains(&beats.len()), "{beats:?}");
    let last = nodes(&bed).get(&bed.name).await.unwrap();
    assert_eq!(
        condition(&last, "Ready").last_transition_time,
        condition(&first, "Ready").last_transition_time
    );
    assert_eq!(events.reasons().len(), 3, "{:?}", events.reasons());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_forbidden_labels_is_not_registered() {
    let bed = Bed::new("forbidden").await;
    let source = Source::new(&bed);
    let restricted = ("node-restriction.kubernetes.io/x".to_owned(), "y".to_owned());
    source.settings.lock().labels.extend([restricted]);
    let (_controller, _) = start(&bed, &source, NodeOptions::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(nodes(&bed).get_opt(&bed.name).await.unwrap().is_none());

    // Once the configuration is right, the controller gets through by itself.
    source.settings.lock().labels.clear();
    node_when(&bed, "the Node", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_kept_for_the_node() {
    let bed = Bed::new("lease").await;
    let leases = Api::<Lease>::namespaced(bed.admin.clone(), "kube-node-lease");
    let duration = Duration::from_secs(4);
    let lease = LeaseController::new(&bed.client, bed.node_watch(), duration);
    let _lease = AbortOnDropHandle::new(tokio::spawn(lease.run()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(leases.get_opt(&bed.name).await.unwrap().is_none(), "a lease without a Node");

    let source = Source::new(&bed);
    let (_controller, _) = start(&bed, &source, NodeOptions::default());
    let first = eventually("the lease", async || leases.get_opt(&bed.name).await.unwrap()).await;
    let node = nodes(&bed).get(&bed.name).await.unwrap();
    let owner = &first.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), Some(owner.uid.clone())), ("Node", node.uid()));
    let spec = first.spec.unwrap();
    assert_eq!((spec.holder_identity, spec.lease_duration_seconds), (Some(bed.name.clone()), Some(4)));

    let renewed = async |after: &Option<_>| {
        eventually("the renewal", async || {
            let lease = leases.get_opt(&bed.name).await.unwrap()?;
            (lease.spec.as_ref()?.renew_time > *after).then_some(lease)
        })
        .await
    };
    let second = renewed(&spec.renew_time).await.spec.unwrap();

    // Somebody else wrote it: what we know is not what there is any more.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"theirs": "x"}}}));
    leases.patch(&bed.name, &PatchParams::default(), &patch).await.unwrap();
    let third = renewed(&second.renew_time).await;
    assert_eq!(third.labels()["theirs"], "x");

    leases.delete(&bed.name, &DeleteParams::default()).await.unwrap();
    renewed(&third.spec.unwrap().renew_time).await;
}
