//! A node without an apiserver: static pods, and the kubelet's own API.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use coracle_tests::network;
use coracle_tests::process::{self, Process};
use coracle_tests::programs;
use coracle_tests::scratch::Scratch;
use coracle_tests::wait::{self, Deadline};
use serde_json::{Value, json};

use crate::support::{ask, container, http_container, pod_ip, soon};

struct Alone {
    agent: Process,
    scratch: Scratch,
    port: u16,
}

impl Alone {
    fn start() -> Result<Self> {
        let scratch = Scratch::new("standalone")?;
        fs::create_dir(scratch.join("manifests"))?;
        let port = network::free_port()?;
        let configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "port": port,
            "healthzPort": 0,
            // Without an apiserver there is nobody to ask who somebody is.
            "authentication": { "anonymous": { "enabled": true } },
            "staticPodPath": scratch.join("manifests"),
            "podCIDR": "10.99.7.0/24",
            "podLogsDir": scratch.join("log/pods"),
        });
        scratch.write("config.yaml", configuration.to_string())?;
        Ok(Self { agent: agent(&scratch)?, scratch, port })
    }

    /// Writes a manifest as configuration management does: whole or not at all.
    fn write(&self, name: &str, spec: &Value) {
        let metadata = json!({ "name": name });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        let (new, path) = (self.manifest(&format!(".{name}")), self.manifest(name));
        fs::write(&new, pod.to_string()).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    fn manifest(&self, name: &str) -> std::path::PathBuf {
        self.scratch.join("manifests").join(format!("{name}.yaml"))
    }

    /// What the kubelet's API answers.
    fn get(&self, path: &str) -> Result<String> {
        let mut curl = process::tethered("curl");
        curl.args(["--silent", "--insecure", &format!("https://127.0.0.1:{}{path}", self.port)]);
        Ok(process::finish(curl, None, Deadline::seconds(20))?.stdout)
    }

    fn pods(&self) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.get("/pods")?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until the pod of a name is as wished.
    #[track_caller]
    fn until(&self, name: &str, what: &str, mut wish: impl FnMut(&Value) -> bool) -> Value {
        let full_name = format!("{name}-alone");
        let look = || {
            let pods = self.pods()?;
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == *full_name);
            let pod = pod.with_context(|| format!("it is not among {}", pods.len()))?;
            anyhow::ensure!(wish(pod), "{:#}", pod["status"]);
            Ok(pod.clone())
        };
        let found = wait::eventually(&format!("{name}: {what}"), soon(), look);
        found.map_err(|error| error.context(self.agent.log_tail())).unwrap()
    }
}

fn agent(scratch: &Scratch) -> Result<Process> {
    let mut command = process::tethered(programs::coracle()?);
    command.arg("kubelet").arg("--config").arg(scratch.join("config.yaml"));
    command.args(["--hostname-override", "alone", "--node-ip", &network::node_ip()?.to_string(), "-v", "2"]);
    command.arg("--root-dir").arg(scratch.join("root")).arg("--cert-dir").arg(scratch.join("pki"));
    let mut process = Process::start("alone", command, &scratch.join("coracle.log"))?;
    process.grace = std::time::Duration::from_secs(20);
    Ok(process)
}

fn restarts(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["restartCount"]
}

fn is_ready(pod: &Value) -> bool {
    coracle_tests::node::condition(pod, "Ready") == Some("True")
}

#[test]
fn static_pods_run_without_an_apiserver() {
    let mut node = Alone::start().unwrap();
    node.write("web", &json!({ "containers": [http_container("http")] }));
    let web = node.until("web", "it is Ready", is_ready);
    let ip = pod_ip(&web);
    assert!(ip.starts_with("10.99.7."), "{ip} is not of podCIDR");
    assert_eq!(ask(&ip, "/").status, 200);
    assert_eq!(web["metadata"]["annotations"]["kubernetes.io/config.source"], "file");

    // What ends is started again.
    node.write("job", &json!({ "containers": [container("main", "exit", &["3"])] }));
    let job = node.until("job", "it restarts", |pod| restarts(pod).as_u64() >= Some(1));
    assert_eq!(job["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    let log = node.get("/containerLogs/default/job-alone/main").unwrap();
    assert!(log.contains("exit: stdout"), "{log}");

    // What only a cluster has is refused by name, and harms no other.
    let from = json!([{ "configMapRef": { "name": "settings" } }]);
    let mut needy = container("main", "stay", &[]);
    needy["envFrom"] = from;
    node.write("needy", &json!({ "containers": [needy] }));
    let told = || {
        let log = node.agent.log();
        anyhow::ensure!(log.contains("static pods may not reference configmaps"), "{log}");
        Ok(())
    };
    wait::eventually("it is refused", soon(), told).unwrap();

    // The next agent goes on with what this one left.
    node.agent.kill().unwrap();
    node.agent = agent(&node.scratch).unwrap();
    let again = node.until("web", "it is Ready again", |pod| is_ready(pod) && restarts(pod) == 1);
    assert_eq!(again["metadata"]["uid"], web["metadata"]["uid"]);
    assert_eq!(ask(&pod_ip(&again), "/").status, 200);

    for name in ["web", "job", "needy"] {
        fs::remove_file(node.manifest(name)).unwrap();
    }
    let gone = || {
        let pods = node.pods()?;
        anyhow::ensure!(pods.is_empty(), "{pods:#?}");
        let volumes = node.scratch.join("root/pods");
        anyhow::ensure!(is_empty(&volumes)?, "{} is not empty", volumes.display());
        Ok(())
    };
    let removed = wait::eventually("nothing is left", soon(), gone);
    removed.map_err(|error| error.context(node.agent.log_tail())).unwrap();
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

#[test]
fn a_node_that_would_have_no_pods_does_not_start() {
    let scratch = Scratch::new("no-source").unwrap();
    let mut command = process::tethered(programs::coracle().unwrap());
    command.arg("kubelet").arg("--root-dir").arg(scratch.join("root"));
    let finished = process::finish(command, None, Deadline::seconds(20)).unwrap();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for way in ["--kubeconfig", "staticPodPath", "staticPodURL", "coracle run"] {
        assert!(finished.stderr.contains(way), "{finished:?}");
    }
}
