//! Pods of every kind, and what their containers do.

use std::time::Duration;

use coracle_core::clock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::lives::Life;

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

/// A pod of any kind, fit to run in the end.
pub(crate) fn any_pod(dice: &Dice, uid: &str, name: &str) -> NewPod {
    let mut builder = Builder { dice, uid, lives: Vec::new() };
    let spec = builder.spec();
    let finalizers = dice.chance(100).then(|| vec!["example.com/wait"]);
    let pod = json!({
        "metadata": {
            "uid": uid, "namespace": "ns", "name": name, "generation": 1, "finalizers": finalizers,
            "creationTimestamp": clock::now().to_string(),
        },
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    // Without nulls it is what an apiserver would keep.
    let pod = serde_json::from_value(pod).unwrap_or_default();
    NewPod { pod, lives: builder.lives }
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
        let own = *self.dice.pick(&[None, None, None, Some("Always"), Some("OnFailure"), Some("Never")]);
        if let Some(own) = own {
            container["restartPolicy"] = json!(own);
            if own != "Always" && self.dice.chance(500) {
                container["restartPolicyRules"] =
                    json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
            }
        }
        let end = Some((*self.dice.pick(&[0, 0, 1]), self.seconds()));
        let then = match own.unwrap_or(policy) {
            "Always" => None,
            "OnFailure" if self.dice.chance(600) => Some((0, self.seconds())),
            "Never" if self.dice.chance(600) => end,
            _ => None,
        };
        self.lives.push((name.clone(), Life { fails: self.fails(), then }));
        self.add_probes(&name, &mut container);
        self.add_hooks(&mut container);
        container
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
