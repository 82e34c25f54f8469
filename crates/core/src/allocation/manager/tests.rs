use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::fakes::FakeSink;

/// The world around the manager: pods by UID, and who may be resized.
#[derive(Default)]
struct World {
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    rejections: Mutex<BTreeMap<String, Rejection>>,
    triggered: Mutex<Vec<String>>,
    not_ready: Mutex<bool>,
}

impl AllocationHost for World {
    fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods.lock().get(uid).cloned()
    }
    fn sources_ready(&self) -> bool {
        !*self.not_ready.lock()
    }
    fn can_resize(&self, pod: &Arc<Pod>, _allocated: &Arc<Pod>) -> Result<(), Rejection> {
        self.rejections.lock().get(&*pod.uid()).cloned().map_or(Ok(()), Err)
    }
    fn trigger_pod_sync(&self, pod: &Arc<Pod>) {
        self.triggered.lock().push(pod.uid().to_string());
    }
}

impl World {
    fn add(&self, pod: &Arc<Pod>) {
        self.pods.lock().insert(pod.uid().to_string(), pod.clone());
    }

    fn reject(&self, uid: &str, reason: &'static str) {
        let rejection = Rejection { reason: reason.into(), message: format!("{reason}, as it is") };
        self.rejections.lock().insert(uid.into(), rejection);
    }

    fn triggered(&self) -> Vec<String> {
        std::mem::take(&mut self.triggered.lock())
    }
}

fn manager() -> (Manager, Arc<FakeSink>) {
    let sink = Arc::<FakeSink>::default();
    (Manager::new(State::in_memory(), Arc::default(), Recorder::new(sink.clone())), sink)
}

fn pod(uid: &str, spec: Value) -> Arc<Pod> {
    let pod = json!({"metadata": {"uid": uid, "name": uid, "namespace": "n", "generation": 1}, "spec": spec});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn with_cpu(uid: &str, cpu: &str) -> Arc<Pod> {
    pod(uid, json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
}

fn cpu_of(pod: &Pod) -> String {
    let requests = pod.containers()[0].resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.map(|r| r["cpu"].0.clone()).unwrap_or_default()
}

fn kinds(manager: &Manager, uid: &str) -> Vec<(String, Option<String>)> {
    manager.conditions().get(uid).into_iter().map(|c| (c.type_, c.reason)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_allocation_replaces_what_the_spec_says() {
    let (manager, _) = manager();
    let spec = |cpu: &str, init: &str, whole: Option<&str>| {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        pod(
            "u",
            json!({"containers": [{"name": "c", "resources": resources(cpu)}, {"name": "d"}],
            "initContainers": [{"name": "i", "resources": resources(init)}],
            "resources": whole.map(|cpu| json!({"requests": {"cpu": cpu}}))}),
        )
    };
    let original = spec("1", "100m", Some("2"));
    assert!(manager.update_pod_from_allocation(&original).is_none(), "nothing is allocated");
    manager.set_allocated_resources(&original).unwrap();
    assert!(manager.update_pod_from_allocation(&original).is_none());
    assert!(manager.update_pod_from_allocation(&spec("1000m", "0.1", Some("2"))).is_none(), "notation");
    for desired in [spec("2", "100m", Some("2")), spec("1", "1", Some("2")), spec("1", "100m", Some("3"))] {
        assert_eq!(manager.update_pod_from_allocation(&desired), Some(original.clone()));
    }
    let without = manager.update_pod_from_allocation(&spec("1", "100m", None)).unwrap();
    assert_eq!(without.pod_spec().resources, original.pod_spec().resources);
}

#[tokio::test(start_paused = true)]
async fn a_resize_for_which_there_is_room_is_allocated_at_once() {
    let (manager, sink) = manager();
    let world = World::default();
    manager.set_allocated_resources(&with_cpu("u", "1")).unwrap();
    let desired = with_cpu("u", "2");
    world.add(&desired);
    manager.push_pending_resize(&"u".into(), &world);
    manager.retry_pending_resizes(&world);
    assert!(!manager.has_pending_resizes());
    assert_eq!(cpu_of(&manager.allocated_pod(&with_cpu("u", "9"))), "2");
    assert_eq!(kinds(&manager, "u"), [("PodResizeInProgress".into(), None)]);
    assert_eq!(world.triggered(), ["u"]);
    assert!(sink.told()[0].starts_with("ResizeStarted: Pod resize started: {"), "{:?}", sink.told());
}

#[tokio::test(start_paused = true)]
async fn a_resize_waits_for_room_and_says_so_once() {
    let (manager, sink) = manager();
    let world = World::default();
    manager.set_allocated_resources(&with_cpu("u", "1")).unwrap();
    world.add(&with_cpu("u", "2"));
    world.reject("u", "OutOfcpu");
    manager.push_pending_resize(&"u".into(), &world);
    manager.retry_pending_resizes(&world);
    assert_eq!(world.triggered(), ["u"], "the status shows it");
    manager.retry_pending_resizes(&world);
    assert!(world.triggered().is_empty());
    let pending = &manager.conditions().get("u")[0];
    assert_eq!(pending.reason.as_deref(), Some("Deferred"));
    assert_eq!(pending.message.as_deref(), Some("OutOfcpu, as it is"));
    assert_eq!(pending.observed_generation, Some(1));
    assert_eq!(sink.told().len(), 1);
    assert!(sink.told()[0].starts_with("ResizeDeferred: Pod resize OutOfcpu: {"), "{:?}", sink.told());
    assert_eq!(cpu_of(&manager.allocated_pod(&with_cpu("u", "2"))), "1");

    world.rejections.lock().clear();
    manager.retry_pending_resizes(&world);
    assert_eq!(kinds(&manager, "u"), [("PodResizeInProgress".into(), None)]);
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_can_never_be_is_given_up_and_one_that_is_taken_back_is_forgotten() {
    let (manager, sink) = manager();
    let world = World::default();
    manager.set_allocated_resources(&with_cpu("u", "1")).unwrap();
    world.add(&with_cpu("u", "2"));
    world.reject("u", INFEASIBLE);
    manager.push_pending_resize(&"u".into(), &world);
    manager.retry_pending_resizes(&world);
    assert!(!manager.has_pending_resizes());
    assert_eq!(kinds(&manager, "u"), [("PodResizePending".into(), Some("Infeasible".into()))]);
    assert!(sink.told()[0].starts_with("ResizeInfeasible: Pod resize Infeasible: {"));

    world.add(&with_cpu("u", "1"));
    manager.push_pending_resize(&"u".into(), &world);
    manager.retry_pending_resizes(&world);
    assert!(kinds(&manager, "u").is_empty() && !manager.has_pending_resizes());
    world.add(&with_cpu("u", "2"));
    manager.push_pending_resize(&"u".into(), &world);
    world.pods.lock().clear();
    manager.retry_pending_resizes(&world);
    assert!(!manager.has_pending_resizes(), "the pod is gone");
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_an_earlier_resize_ends_with_the_next() {
    let (manager, _) = manager();
    let world = World::default();
    manager.set_allocated_resources(&with_cpu("u", "1")).unwrap();
    world.add(&with_cpu("u", "2"));
    let failed = Some((crate::allocation::conditions::ERROR, "no"));
    manager.conditions().set_in_progress(&"u".into(), failed, Some(0));
    manager.push_pending_resize(&"u".into(), &world);
    manager.retry_pending_resizes(&world);
    let conditions = manager.conditions().get("u");
    assert_eq!((conditions[0].reason.as_deref(), conditions[0].observed_generation), (None, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn pending_resizes_have_upstreams_order() {
    let (manager, _) = manager();
    let world = World::default();
    for i in 0..7 {
        manager.set_allocated_resources(&with_cpu(&i.to_string(), "1")).unwrap();
    }
    let bigger = |uid: &str, change: fn(&mut Pod)| {
        let mut pod = (*with_cpu(uid, "1500m")).clone();
        change(&mut pod);
        Arc::new(pod)
    };
    world.add(&with_cpu("0", "500m"));
    world.add(&bigger("1", |pod| pod.spec.as_mut().unwrap().priority = Some(100)));
    world.add(&bigger("2", |pod| pod.status.get_or_insert_default().qos_class = Some("Guaranteed".into())));
    for uid in ["3", "4", "5"] {
        world.add(&bigger(uid, |_| {}));
    }
    for uid in ["3", "4"] {
        manager.conditions().set_pending(&uid.into(), "Deferred", "m", Some(1));
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    let all = ["0", "1", "2", "3", "4", "5"].map(PodUid::from);
    for order in [all.to_vec(), all.iter().rev().cloned().collect()] {
        manager.pending.lock().clear();
        for uid in order {
            manager.push_pending_resize(&uid, &world);
        }
        assert_eq!(*manager.pending.lock(), all);
    }
}

#[test]
fn a_resize_increases_what_the_pod_needs_altogether() {
    let list = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}});
    let spec = |first: Value, second: Value, whole: Value| {
        pod(
            "u",
            json!({"containers": [{"name": "a", "resources": first}, {"name": "b", "resources": second}],
            "resources": whole}),
        )
    };
    let one = || list("1", "1Gi");
    let containers = |first, second| spec(first, second, Value::Null);
    let whole = |whole| spec(one(), one(), whole);
    let pod_level = || list("2500m", "2500Mi");
    let cases = [
        (containers(list("1500m", "1500Mi"), one()), false, true),
        (containers(list("500m", "500Mi"), one()), false, false),
        (containers(list("1500m", "500Mi"), one()), false, true),
        (containers(list("500m", "1500Mi"), one()), false, true),
        (containers(list("1500m", "1548Mi"), list("500m", "500Mi")), false, false),
        (containers(json!({}), one()), false, false),
        (whole(list("3", "2500Mi")), true, true),
        (whole(list("2500m", "2000Mi")), true, false),
        (whole(list("3", "2000Mi")), true, true),
        (spec(list("1500m", "1Gi"), one(), pod_level()), true, false),
        (spec(list("1500m", "1Gi"), one(), list("2600m", "2500Mi")), true, true),
        (spec(list("500m", "1Gi"), one(), list("2", "2500Mi")), true, false),
    ];
    for (desired, has_pod_level, expected) in cases {
        let (manager, _) = manager();
        let allocated = if has_pod_level { whole(pod_level()) } else { containers(one(), one()) };
        manager.set_allocated_resources(&allocated).unwrap();
        assert_eq!(manager.is_increasing_requests(&desired), expected, "{:?}", desired.spec);
    }
}

#[tokio::test(start_paused = true)]
async fn pending_resizes_are_looked_at_now_and_then_once_all_sources_have_spoken() {
    let (manager, _) = manager();
    let world = World::default();
    *world.not_ready.lock() = true;
    manager.set_allocated_resources(&with_cpu("u", "1")).unwrap();
    world.add(&with_cpu("u", "2"));
    world.reject("u", "OutOfcpu");
    manager.push_pending_resize(&"u".into(), &world);
    let steps = async {
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(kinds(&manager, "u").is_empty(), "nobody knows yet what else is here");
        *world.not_ready.lock() = false;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(kinds(&manager, "u").len(), 1);
        world.rejections.lock().clear();
        tokio::time::sleep(Duration::from_secs(170)).await;
        assert!(manager.has_pending_resizes());
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!manager.has_pending_resizes());
    };
    tokio::select! {
        () = manager.run(&world) => {}
        () = steps => {}
    }
}
