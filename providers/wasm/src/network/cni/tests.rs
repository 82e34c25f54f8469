//! Pods' networks by plugins: scripts that record how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_provider::{ErrorKind, PodRef};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::tests::bed::on_a_machine;
use super::*;

struct Node {
    folder: TempDir,
}

impl Node {
    /// A node with a network of the plugins `first` and `second`.
    fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["conf", "bin"] {
            fs::create_dir(node.at(folder)).unwrap();
        }
        let plugins =
            json!([{ "type": "first", "own": 1 }, { "type": "second", "capabilities": { "x": true } }]);
        let list = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": plugins });
        fs::write(node.at("conf/10-net.conflist"), list.to_string()).unwrap();
        let result = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.7.0.2/24" }, { "address": "fd00:7::2/64" }] });
        for name in ["first", "second"] {
            node.plugin(name, &format!("echo '{result}'"));
        }
        node
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Makes a plugin that writes down its call and does this.
    fn plugin(&self, name: &str, action: &str) {
        let (path, calls) = (self.at("bin").join(name), self.at("calls"));
        let calls = calls.display();
        let script = format!(
            "#!/bin/sh\nconf=$(cat)\n\
             echo \"{name} $CNI_COMMAND $CNI_IFNAME $CNI_ARGS $CNI_NETNS $conf\" >> '{calls}'\n{action}\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn agent(&self) -> Cni {
        let bin_dirs = vec![self.at("nowhere"), self.at("bin")];
        Cni::open(CniConfig { conf_dir: self.at("conf"), bin_dirs, state_dir: self.at("state") }).unwrap()
    }

    /// The calls so far: plugin, command and configuration.
    fn calls(&self) -> Vec<(String, Value)> {
        let calls = fs::read_to_string(self.at("calls")).unwrap_or_default();
        let parse = |line: &str| {
            let (words, configuration) = line.split_at(line.find('{').unwrap());
            let what = words.split(' ').take(2).collect::<Vec<_>>().join(" ");
            (what, serde_json::from_str(configuration).unwrap())
        };
        calls.lines().map(parse).collect()
    }

    fn names(&self) -> Vec<String> {
        self.calls().into_iter().map(|(what, _)| what).collect()
    }
}

fn pod(name: &str) -> PodRef {
    PodRef { uid: format!("uid-{name}"), namespace: "default".into(), name: name.into() }
}

fn is_namespace(path: &Path) -> bool {
    Namespace::open(path).is_ok()
}

#[test]
fn plugins_are_called_in_order_and_back_with_what_they_said() {
    on_a_machine(|| async {
        let node = Node::new();
        let cni = node.agent();
        cni.ready().unwrap();
        let attached = cni.attach(&pod("web")).await.unwrap();
        let ips: Vec<IpAddr> = ["10.7.0.2", "fd00:7::2"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(attached.ips, ips);
        assert!(is_namespace(&attached.path));
        let line = fs::read_to_string(node.at("calls")).unwrap();
        let arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;";
        assert!(line.starts_with("first ADD eth0 IgnoreUnknown=1;") && line.contains(arguments), "{line}");
        assert!(line.contains(&*attached.path.to_string_lossy()), "{line}");

        cni.detach("uid-web").await.unwrap();
        assert_eq!(node.names(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
        let calls = node.calls();
        assert_eq!(calls[0].1, json!({"cniVersion": "1.0.0", "name": "net", "type": "first", "own": 1}));
        assert_eq!(calls[1].1["prevResult"]["ips"][0]["address"], "10.7.0.2/24");
        assert!(calls[1].1.get("capabilities").is_none());
        assert_eq!(calls[3].1["prevResult"], calls[1].1["prevResult"]);
        assert!(!attached.path.exists());
        assert!(cni.pods().unwrap().is_empty());
        // What is gone is gone.
        cni.detach("uid-web").await.unwrap();
        assert_eq!(node.calls().len(), 4);
    });
}

#[test]
fn a_pods_network_outlives_the_agent_and_its_configuration() {
    on_a_machine(|| async {
        let node = Node::new();
        let first = node.agent().attach(&pod("web")).await.unwrap();
        let (namespace, path) = (first.namespace.id(), first.path.clone());
        drop(first);

        fs::remove_file(node.at("conf/10-net.conflist")).unwrap();
        let cni = node.agent();
        assert!(cni.ready().unwrap_err().contains("is a network plugin installed?"));
        assert_eq!(cni.pods().unwrap(), ["uid-web"]);
        let again = cni.attach(&pod("web")).await.unwrap();
        assert_eq!((again.namespace.id(), &again.path), (namespace, &path));
        assert_eq!(node.calls().len(), 2, "no plugin was asked again");

        cni.detach("uid-web").await.unwrap();
        assert_eq!(node.names()[2..], ["second DEL", "first DEL"]);
    });
}

#[test]
fn a_namespace_that_a_restart_of_the_machine_took_is_made_again() {
    on_a_machine(|| async {
        let node = Node::new();
        let first = node.agent().attach(&pod("web")).await.unwrap();
        remove_named(&first.path).unwrap();
        let cni = node.agent();
        let again = cni.attach(&pod("web")).await.unwrap();
        assert_ne!(again.path, first.path);
        assert_eq!(node.names()[2..], ["second DEL", "first DEL", "first ADD", "second ADD"]);
        cni.detach("uid-web").await.unwrap();
    });
}

#[test]
fn a_plugin_that_fails_is_quoted_and_its_work_is_undone() {
    on_a_machine(|| async {
        let node = Node::new();
        let error = json!({"cniVersion": "1.0.0", "code": 11, "msg": "no addresses left", "details": "in 10.7.0.0/24"});
        node.plugin("second", &format!("[ $CNI_COMMAND = DEL ] || {{ echo '{error}'; exit 1; }}"));
        let cni = node.agent();
        let failed = cni.attach(&pod("web")).await.err().unwrap();
        assert_eq!(failed.kind, ErrorKind::Unavailable);
        assert_eq!(
            failed.message,
            "cannot set up the network of pod default/web: plugin second (ADD): no addresses left: in 10.7.0.0/24"
        );
        assert_eq!(node.names(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
        assert!(cni.pods().unwrap().is_empty());

        node.plugin("second", "echo 'no such device' >&2; exit 3");
        let failed = cni.attach(&pod("web")).await.err().unwrap();
        assert!(failed.message.contains("second (ADD): exit status: 3: no such device"), "{failed}");
        fs::remove_file(node.at("bin/first")).unwrap();
        node.plugin("second", "");
        cni.detach("uid-web").await.unwrap_err();
        node.plugin("first", "");
        let failed = cni.attach(&pod("web")).await.err().unwrap();
        assert!(failed.message.contains("gave the pod no address"), "{failed}");
    });
}

#[test]
fn a_removal_that_fails_is_tried_again_and_stays_on_record() {
    on_a_machine(|| async {
        let node = Node::new();
        let cni = node.agent();
        let attached = cni.attach(&pod("web")).await.unwrap();
        let marker = node.at("fails-once");
        fs::write(&marker, "").unwrap();
        let marker = marker.display();
        node.plugin("second", &format!("if [ -e '{marker}' ]; then rm '{marker}'; exit 1; fi"));
        node.plugin("first", "echo '{\"msg\": \"the daemon is down\"}'; exit 1");
        let failed = cni.detach("uid-web").await.unwrap_err();
        assert!(failed.message.ends_with("plugin first (DEL): the daemon is down"), "{failed}");
        assert_eq!(node.names().iter().filter(|call| *call == "second DEL").count(), 2);
        assert!(is_namespace(&attached.path));

        node.plugin("first", "");
        node.agent().detach("uid-web").await.unwrap();
        assert!(!attached.path.exists());
    });
}
