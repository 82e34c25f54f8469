//! Pods of every kind, and what their containers do.

use std::time::Duration;

use coracle_core::clock;
use coracle_core::config::{ManifestOrigin, decode_static_pod};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::lives::Life;

/// The condition that somebody else sets.
pub(crate) const READINESS_GATE: &str = "example.com/gate";
/// Says why the pod cannot be admitted, if so.
pub(crate) const FLAW: &str = "example.com/flaw";
/// With it a container asks for all of its pod to start anew.
const RESTART_ALL: i32 = 43;

/// A pod, and the life of each of its containers.
pub(crate) struct NewPod {
    pub(crate) pod: Pod,
    pub(crate) lives: Vec<(String, Life)>,
}

struct Builder<'a> {
    dice: &'a Dice,
    uid: &'a str,
    lives: Vec<(String, Life)>,
}

/// A pod of any kind, fit to run in the end, or not to be admitted at all.
pub(crate) fn any_pod(dice: &Dice, uid: &str, name: &str) -> NewPod {
    let mut builder = Builder { dice, uid, lives: Vec::new() };
    let mut spec = builder.spec();
    let flaw = builder.add_wishes(&mut spec);
    let finalizers = dice.chance(100).then(|| vec!["example.com/wait"]);
    let qos = if has_resources(&spec) { "Burstable" } else { "BestEffort" };
    let pod = json!({
        "metadata": {
            "uid": uid, "namespace": "ns", "name": name, "generation": 1, "finalizers": finalizers,
            "creationTimestamp": clock::now().to_string(), "annotations": flaw.map(|flaw| json!({FLAW: flaw})),
        },
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": qos},
    });
    // Without nulls it is what an apiserver would keep.
    let pod = serde_json::from_value(pod).unwrap_or_default();
    NewPod { pod, lives: builder.lives }
}

/// The pod of a manifest.
pub(crate) fn static_pod(dice: &Dice, uid: &str, name: &str) -> NewPod {
    let mut builder = Builder { dice, uid, lives: Vec::new() };
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"uid": uid, "namespace": "ns", "name": name},
        "spec": builder.spec(),
    });
    let origin = ManifestOrigin::Url("simulated");
    let decoded = decode_static_pod(manifest.to_string().as_bytes(), origin, "node");
    // What is made here is good.
    let pod = decoded.map(|decoded| (*decoded.pod).clone()).unwrap_or_default();
    NewPod { pod, lives: builder.lives }
}

/// What a container asks for, and may have at most.
pub(crate) fn resources(cpu: &str, memory: &str, limited: bool) -> Value {
    let list = json!({"cpu": cpu, "memory": memory});
    if !limited {
        return json!({"requests": list});
    }
    // More than any request, so that nothing changes its class.
    json!({"requests": list, "limits": {"cpu": "70", "memory": memory.replace("Mi", "7Mi")}})
}

fn has_resources(spec: &Value) -> bool {
    spec["containers"].as_array().into_iter().flatten().any(|container| container.get("resources").is_some())
}

impl Builder<'_> {
    fn spec(&mut self) -> Value {
        let policy = *self.dice.pick(&["Always", "Always", "OnFailure", "Never"]);
        let mut init: Vec<Value> = Vec::new();
        for i in 0..self.some(300, 2) {
            let container = if self.dice.chance(400) { self.sidecar(i) } else { self.init(i, policy) };
            init.push(container);
        }
        let main: Vec<Value> = (0..1 + self.some(300, 2)).map(|i| self.main(i, policy)).collect();
        let mut spec = json!({
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": self.dice.pick(&[0, 1, 5, 30]),
            "containers": main,
        });
        if !init.is_empty() {
            spec["initContainers"] = json!(init);
        }
        if self.dice.chance(500) {
            spec["runtimeClassName"] = json!("slow");
        }
        if self.dice.chance(100) {
            spec["hostNetwork"] = json!(true);
        }
        spec
    }

    /// What not every pod has. Answers why the pod is not admitted, if so.
    fn add_wishes(&self, spec: &mut Value) -> Option<&'static str> {
        if self.dice.chance(100) {
            spec["activeDeadlineSeconds"] = json!(self.dice.number(3..60));
        }
        if self.dice.chance(100) {
            spec["readinessGates"] = json!([{"conditionType": READINESS_GATE}]);
        }
        if self.dice.chance(50) {
            spec["containers"][0]["ports"] =
                json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]);
        }
        if !self.dice.chance(60) {
            return None;
        }
        match self.dice.number(0..3) {
            0 => {
                spec["nodeSelector"] = json!({"zone": "elsewhere"});
                Some("NodeAffinity")
            }
            1 => {
                spec["hostPID"] = json!(true);
                Some("PodFeatureUnsupported")
            }
            _ => {
                spec["containers"][0]["resources"] = json!({"requests": {"cpu": "100"}});
                Some("OutOfcpu")
            }
        }
    }

    /// Mostly none, else up to `most`.
    fn some(&self, per_mille: u32, most: u32) -> u32 {
        if self.dice.chance(per_mille) { self.dice.number(1..most + 1) } else { 0 }
    }

    fn container(&self, name: &str) -> Value {
        let image = *self.dice.pick(&["app", "app", "web", "tool"]);
        let policy = *self.dice.pick(&["IfNotPresent", "IfNotPresent", "Always"]);
        json!({"name": name, "image": image, "imagePullPolicy": policy})
    }

    fn seconds(&self) -> Duration {
        self.dice.millis(0..12_000)
    }

    fn fails(&self) -> (u32, i32, Duration) {
        (self.some(300, 3), *self.dice.pick(&[1, 42, 137]), self.seconds())
    }

    fn init(&mut self, i: u32, policy: &str) -> Value {
        let name = format!("init{i}");
        // One that never starts over has to end well, or nothing else of the pod is seen.
        let fails =
            if policy == "Never" && !self.dice.chance(100) { Life::FOREVER.fails } else { self.fails() };
        self.lives.push((name.clone(), Life { fails, then: Some((0, self.seconds())) }));
        self.container(&name)
    }

    fn sidecar(&mut self, i: u32) -> Value {
        let name = format!("side{i}");
        self.lives.push((name.clone(), Life { fails: self.fails(), then: None }));
        let mut container = self.container(&name);
        container["restartPolicy"] = json!("Always");
        self.add_probes(&name, &mut container);
        self.add_hooks(&mut container);
        container
    }

    fn main(&mut self, i: u32, policy: &str) -> Value {
        let name = format!("main{i}");
        let mut container = self.container(&name);
        let mut fails = self.fails();
        let own = *self.dice.pick(&[None, None, None, Some("Always"), Some("OnFailure"), Some("Never")]);
        if let Some(own) = own {
            container["restartPolicy"] = json!(own);
            if own != "Always" && self.dice.chance(500) {
                container["restartPolicyRules"] = rule("Restart", 42);
            } else if self.dice.chance(200) {
                container["restartPolicyRules"] = rule("RestartAllContainers", RESTART_ALL);
                fails.1 = RESTART_ALL;
            }
        }
        self.add_resources(&mut container, own.unwrap_or(policy));
        let end = Some((*self.dice.pick(&[0, 0, 1]), self.seconds()));
        let then = match own.unwrap_or(policy) {
            "Always" => None,
            "OnFailure" if self.dice.chance(600) => Some((0, self.seconds())),
            "Never" if self.dice.chance(600) => end,
            _ => None,
        };
        self.lives.push((name.clone(), Life { fails, then }));
        self.add_probes(&name, &mut container);
        self.add_hooks(&mut container);
        container
    }

    fn add_resources(&self, container: &mut Value, policy: &str) {
        if !self.dice.chance(300) {
            return;
        }
        let (cpu, memory) = (self.dice.pick(&["100m", "500m", "1"]), self.dice.pick(&["64Mi", "256Mi"]));
        container["resources"] = resources(cpu, memory, self.dice.chance(500));
        let resize = |name| {
            // What never restarts must not ask for it.
            let restarts = policy != "Never" && self.dice.chance(300);
            json!({"resourceName": name, "restartPolicy": if restarts { "RestartContainer" } else { "NotRequired" }})
        };
        container["resizePolicy"] = json!([resize("cpu"), resize("memory")]);
    }

    fn add_probes(&self, name: &str, container: &mut Value) {
        for kind in ["startup", "readiness", "liveness"] {
            if !self.dice.chance(250) {
                continue;
            }
            let probe = format!("{name}-{kind}");
            let mut how = if self.dice.chance(700) {
                let path = format!("/{}/{probe}", self.uid);
                json!({"httpGet": {"path": path, "port": 80, "scheme": "HTTP"}})
            } else {
                json!({"exec": {"command": ["probe", probe]}})
            };
            how["periodSeconds"] = json!(self.dice.pick(&[1, 2, 10]));
            how["timeoutSeconds"] = json!(1);
            how["successThreshold"] = json!(1);
            how["failureThreshold"] = json!(self.dice.pick(&[1, 3]));
            how["initialDelaySeconds"] = json!(self.dice.pick(&[0, 0, 2]));
            if kind != "readiness" && self.dice.chance(300) {
                how["terminationGracePeriodSeconds"] = json!(3);
            }
            container[format!("{kind}Probe")] = how;
        }
    }

    fn add_hooks(&self, container: &mut Value) {
        let handlers = [
            json!({"exec": {"command": ["hook"]}}),
            json!({"sleep": {"seconds": 3}}),
            json!({"httpGet": {"path": "/hook", "port": 80, "scheme": "HTTP"}}),
        ];
        let mut lifecycle = json!({});
        if self.dice.chance(100) {
            lifecycle["postStart"] = self.dice.pick(&handlers).clone();
        }
        if self.dice.chance(150) {
            lifecycle["preStop"] = self.dice.pick(&handlers).clone();
        }
        if lifecycle != json!({}) {
            container["lifecycle"] = lifecycle;
        }
    }
}

fn rule(action: &str, exit_code: i32) -> Value {
    json!([{"action": action, "exitCodes": {"operator": "In", "values": [exit_code]}}])
}
