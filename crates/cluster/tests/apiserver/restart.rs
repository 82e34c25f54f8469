use std::collections::BTreeMap;

use coracle_core::ports::SourceUpdate;
use coracle_tests::control_plane::ControlPlane;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::bed::{Bed, PATIENCE};
use crate::pods::{next, start};

/// What a receiver of updates knows: the version of each pod.
#[derive(Default)]
struct Model(BTreeMap<String, String>);

impl Model {
    fn take(&mut self, update: SourceUpdate) {
        let named = |pod: &Pod| (pod.name_any(), pod.resource_version().unwrap());
        match update {
            SourceUpdate::Set(pods) => self.0 = pods.iter().map(|pod| named(pod)).collect(),
            SourceUpdate::Apply(pod) => {
                let (name, version) = named(&pod);
                let before = self.0.insert(name.clone(), version.clone());
                assert_ne!(before, Some(version), "{name} came twice");
            }
            SourceUpdate::Delete(pod) => {
                let name = pod.name_any();
                assert!(self.0.remove(&name).is_some(), "{name} went twice");
            }
        }
    }

    async fn until(&mut self, updates: &mut mpsc::Receiver<SourceUpdate>, names: &[&str]) {
        let wait = async {
            while self.0.keys().map(String::as_str).collect::<Vec<_>>() != names {
                self.take(next(updates).await);
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not {names:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_apiserver_costs_no_update() {
    let mut control_plane = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap().unwrap();
    let bed = Bed::on(&control_plane, "restart").await;
    let (mut updates, _source) = start(&bed);
    let mut model = Model::default();
    bed.pod("a", json!({})).await;
    bed.pod("b", json!({})).await;
    model.until(&mut updates, &["a", "b"]).await;

    tokio::task::block_in_place(|| control_plane.stop_apiserver().unwrap());
    // Long enough for the pauses between attempts to grow.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    tokio::task::block_in_place(|| control_plane.start_apiserver().unwrap());
    let back = Instant::now();
    bed.api::<Pod>().delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    bed.pod("c", json!({})).await;
    model.until(&mut updates, &["b", "c"]).await;
    println!("caught up {:?} after the apiserver was back", back.elapsed());

    bed.pod("d", json!({})).await;
    model.until(&mut updates, &["b", "c", "d"]).await;
    assert!(updates.try_recv().is_err(), "an update too many");
}
