//! A pod's addresses, from outside and from inside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use coracle_tests::cluster::{self, Cluster};
use coracle_tests::kube_proxy::KubeProxy;
use coracle_tests::node::Node;
use coracle_tests::scratch::Scratch;
use coracle_tests::{http, programs, wait};
use serde_json::{Value, json};

use crate::support::{
    ask, container, create, http_container, output_of, pod, pod_ip, serve, soon, spec, until, until_event,
    until_phase, until_ready,
};

#[test]
fn sockets_of_a_guest_are_on_the_pods_address() {
    let cluster = Cluster::new("sockets").unwrap();
    create(
        &cluster,
        "server",
        &spec(&cluster, "Always", &json!([container("main", "tcp", &["serve", "0.0.0.0:7000"])])),
    );
    let ip = pod_ip(&until_ready(&cluster, "server"));
    let connect = || Ok(TcpStream::connect((ip.as_str(), 7000))?);
    let mut connection = wait::eventually("it listens", soon(), connect).unwrap();
    connection.write_all(b"from outside\n").unwrap();
    let mut answer = String::new();
    BufReader::new(&connection).read_line(&mut answer).unwrap();
    assert_eq!(answer, "from outside\n");
    drop(connection);

    let call = container("main", "tcp", &["call", &format!("{ip}:7000"), "from a pod"]);
    create(&cluster, "client", &spec(&cluster, "Never", &json!([call])));
    let output = output_of(&cluster, "client");
    let own = pod_ip(&cluster.kubectl.get("pod", "client").unwrap());
    assert!(output.starts_with(&format!("from {own}:")) && output.ends_with("\nfrom a pod\n"), "{output}");
}

#[test]
fn containers_of_a_pod_meet_on_localhost_and_pods_do_not() {
    let cluster = Cluster::new("localhost").unwrap();
    let server = container("server", "tcp", &["serve", "127.0.0.1:7100"]);
    let caller = container("main", "tcp", &["call", "127.0.0.1:7100", "hello"]);
    // The caller is started again until the server listens.
    create(&cluster, "together", &spec(&cluster, "OnFailure", &json!([server, caller])));
    let log = || cluster.kubectl.run(&["logs", "together", "--container=main"]).unwrap_or_default();
    wait::until("they met", soon(), || log().ends_with("hello\n")).unwrap();

    create(&cluster, "alone", &spec(&cluster, "Never", &json!([caller])));
    until_phase(&cluster, "alone", "Failed");
}

#[test]
fn the_nodes_own_loopback_is_out_of_reach() {
    let cluster = Cluster::new("loopback").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    create(
        &cluster,
        "curious",
        &spec(&cluster, "Never", &json!([container("main", "tcp", &["call", &address, "hello"])])),
    );
    until_phase(&cluster, "curious", "Failed");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody may have come");
}

#[test]
fn a_service_asks_another_over_http() {
    let cluster = Cluster::new("fetch").unwrap();
    let (asks, answers) = (serve(&cluster, "asks"), serve(&cluster, "answers"));
    let path = format!("/fetch/{answers}:8080/from-afar");
    assert_eq!(ask(&asks, &path).body, "hello from wasm: /from-afar\n");
}

#[test]
fn host_ports_lead_to_the_pod() {
    let cluster = Cluster::new("host-port").unwrap();
    let port = coracle_tests::network::free_port().unwrap();
    let mut http = http_container("http");
    http["ports"] = json!([{ "name": "http", "containerPort": 8080, "hostPort": port }]);
    create(&cluster, "published", &spec(&cluster, "Always", &json!([http])));
    until_ready(&cluster, "published");
    let url = format!("http://{}:{port}/by-host", coracle_tests::network::node_ip().unwrap());
    assert_eq!(http::get(&url).unwrap().body, "hello from wasm: /by-host\n");
}

#[test]
fn pods_and_a_service_of_one_node_reach_each_other() {
    let cluster = Cluster::new("service").unwrap();
    let _proxy = KubeProxy::start(cluster::control_plane().unwrap(), cluster.node.name()).unwrap();
    let (one, two) = (serve(&cluster, "one"), serve(&cluster, "two"));
    for (from, to) in [(&one, &two), (&two, &one)] {
        assert_eq!(ask(from, &format!("/fetch/{to}:8080/x")).body, "hello from wasm: /x\n");
    }
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "two" },
        "spec": { "selector": { "app": "two" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    cluster.kubectl.create(&service.to_string()).unwrap();
    let service = cluster.kubectl.get("service", "two").unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    wait::until("the node reaches the Service", soon(), || {
        http::get(&format!("http://{address}/")).is_ok_and(|answer| answer.status == 200)
    })
    .unwrap();
    // From the other pod, and from the one behind the Service itself.
    for from in [&one, &two] {
        for number in 0..5 {
            let path = format!("/fetch/{address}:80/{number}");
            assert_eq!(ask(from, &path).body, format!("hello from wasm: /{number}\n"), "{from}");
        }
    }
    let call =
        container("main", "tcp", &["call", &format!("{address}:80"), "GET / HTTP/1.1\r\nHost: x\r\n\r"]);
    create(&cluster, "client", &spec(&cluster, "Never", &json!([call])));
    let output = output_of(&cluster, "client");
    assert!(output.contains("HTTP/1.1 200"), "{output}");
}

#[test]
fn pods_of_a_node_with_two_ranges_have_two_addresses() {
    let control_plane = cluster::control_plane().unwrap();
    let name = "dual-stack".to_owned();
    let kubectl = cluster::namespace(control_plane, &name).unwrap();
    let ranges = ["10.60.7.0/24", "fd00:60:7::/64"];
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name },
        "spec": { "podCIDR": ranges[0], "podCIDRs": ranges },
    });
    kubectl.create(&node.to_string()).unwrap();
    let node_ips = [coracle_tests::network::node_ip().unwrap().to_string(), "2001:db8::10".to_owned()];
    let flags = ["--node-ip".to_owned(), node_ips.join(",")];
    let node = Node::start_with_flags(control_plane, &name, &json!({}), &flags).unwrap();
    node.await_ready(&kubectl).unwrap();
    let cluster = Cluster { node, kubectl, name };

    let field = |path: &str| json!({ "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut http = http_container("http");
    http["env"] = json!([field("status.podIPs"), field("status.hostIPs")]);
    http["env"][0]["name"] = "POD_IPS".into();
    http["env"][1]["name"] = "HOST_IPS".into();
    let host_port = coracle_tests::network::free_port().unwrap();
    http["ports"][0]["hostPort"] = host_port.into();
    create(&cluster, "both", &spec(&cluster, "Always", &json!([http])));
    let both = until_ready(&cluster, "both");
    let list = |field: &str| -> Vec<String> {
        let ips = both["status"][field].as_array().unwrap();
        ips.iter().map(|ip| ip["ip"].as_str().unwrap().to_owned()).collect()
    };
    let (ips, hosts) = (list("podIPs"), list("hostIPs"));
    assert!(ips[0].starts_with("10.60.7.") && ips[1].starts_with("fd00:60:7:"), "{ips:?}");
    assert_eq!((ips.len(), &hosts[..]), (2, &node_ips[..]));
    assert_eq!(both["status"]["podIP"], ips[0]);
    assert_eq!(ask(&ips[0], "/env/POD_IPS").body.trim(), ips.join(","));
    assert_eq!(ask(&format!("[{}]", ips[1]), "/env/HOST_IPS").body.trim(), hosts.join(","));

    for host in [node_ips[0].clone(), format!("[{}]", node_ips[1])] {
        let url = format!("http://{host}:{host_port}/by-host");
        assert_eq!(http::get(&url).unwrap().body, "hello from wasm: /by-host\n", "{url}");
    }

    let call =
        container("main", "tcp", &["call", &format!("[{}]:8080", ips[1]), "GET / HTTP/1.1\r\nHost: x\r\n\r"]);
    create(&cluster, "client", &spec(&cluster, "Never", &json!([call])));
    let output = output_of(&cluster, "client");
    let own = cluster.kubectl.get("pod", "client").unwrap()["status"]["podIPs"][1]["ip"].clone();
    assert!(output.starts_with(&format!("from [{}]:", own.as_str().unwrap())), "{output}");
}

#[test]
fn a_pod_keeps_its_address_over_a_restart_of_the_agent() {
    let mut cluster = Cluster::new("keeps").unwrap();
    let before = ["one", "two", "three"].map(|name| serve(&cluster, name));
    cluster.kubectl.run(&["delete", "pod", "two", "--wait"]).unwrap();
    cluster.node.kill().unwrap();
    cluster.node.resume().unwrap();
    let newcomer = serve(&cluster, "newcomer");
    assert!(!before[..1].contains(&newcomer) && newcomer != before[2]);
    for (name, ip) in [("one", &before[0]), ("three", &before[2])] {
        wait::until("it serves again", soon(), || {
            http::get(&format!("http://{ip}:8080/")).is_ok_and(|answer| answer.status == 200)
        })
        .unwrap();
        let pod = until(&cluster, name, "it was started again", |pod| {
            crate::support::restarts(pod, "http") == 1
                && coracle_tests::node::condition(pod, "Ready") == Some("True")
        });
        assert_eq!(&pod_ip(&pod), ip);
    }
}

#[test]
fn a_list_of_what_a_pod_may_reach_is_kept_to() {
    let cluster = Cluster::new("egress").unwrap();
    let (open, closed) = (serve(&cluster, "open"), serve(&cluster, "closed"));
    let create_with = |name: &str, list: &str| {
        let mut pod = pod(name, &spec(&cluster, "Always", &json!([http_container("http")])));
        pod["metadata"]["annotations"] = json!({ "wasm.coracle.dev/egress-allow": list });
        cluster.kubectl.create(&pod.to_string()).unwrap();
    };
    create_with("kept", &format!("{open}:8080"));
    let kept = pod_ip(&until_ready(&cluster, "kept"));
    assert_eq!(ask(&kept, &format!("/fetch/{open}:8080/x")).body, "hello from wasm: /x\n");
    assert_eq!(ask(&kept, &format!("/fetch/{closed}:8080/x")).status, 502);

    create_with("malformed", "10.0.0.0/33");
    let message = until_event(&cluster, "malformed", "FailedCreatePodSandBox");
    assert!(
        message.contains("wasm.coracle.dev/egress-allow") && message.contains("10.0.0.0/33"),
        "{message}"
    );
}

/// A folder with a network of CNI's bridge plugin, whose pods have addresses of this range.
fn bridge(folder: &Scratch, range: &str) -> Vec<String> {
    let plugin = json!({
        "type": "bridge",
        "bridge": "cni-test0",
        "isGateway": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": range }]], "dataDir": folder.join("leases"),
                  "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    let list = json!({ "cniVersion": "1.0.0", "name": "test", "plugins": [plugin] });
    folder.write("cni/10-test.conflist", list.to_string()).unwrap();
    let plugin = programs::bed("containers/usr/lib/cni/bridge").unwrap();
    let plugins = plugin.parent().unwrap().to_owned();
    let flags = [("--wasm-cni-conf-dir", folder.join("cni")), ("--wasm-cni-bin-dir", plugins)];
    flags.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]).collect()
}

#[test]
fn cni_plugins_give_pods_their_addresses() {
    let control_plane = cluster::control_plane().unwrap();
    let (name, folder) = ("cni".to_owned(), Scratch::new("cni").unwrap());
    let kubectl = cluster::namespace(control_plane, &name).unwrap();
    let flags = bridge(&folder, "10.61.7.0/24");
    let node = Node::start_with_flags(control_plane, &name, &json!({}), &flags).unwrap();
    node.await_ready(&kubectl).unwrap();
    let mut cluster = Cluster { node, kubectl, name };
    let (asks, answers) = (serve(&cluster, "asks"), serve(&cluster, "answers"));
    for ip in [&asks, &answers] {
        assert!(ip.starts_with("10.61.7."), "{ip}");
    }
    let path = format!("/fetch/{answers}:8080/from-afar");
    assert_eq!(ask(&asks, &path).body, "hello from wasm: /from-afar\n");
    for refused in ["169.254.169.254:80", "0.0.0.0:8080"] {
        assert_eq!(ask(&asks, &format!("/fetch/{refused}/")).status, 502, "{refused}");
    }
    // Its loopback device is its own, and so is the service on it.
    assert_eq!(ask(&asks, "/fetch/127.0.0.1:8080/own").body, "hello from wasm: /own\n");
    let call =
        container("main", "tcp", &["call", &format!("{answers}:8080"), "GET / HTTP/1.1\r\nHost: x\r\n\r"]);
    create(&cluster, "client", &spec(&cluster, "Never", &json!([call])));
    let output = output_of(&cluster, "client");
    let own = pod_ip(&cluster.kubectl.get("pod", "client").unwrap());
    assert!(output.starts_with(&format!("from {own}:")), "{output}");

    cluster.node.kill().unwrap();
    cluster.node.resume().unwrap();
    let again = until(&cluster, "answers", "it serves again", |pod| {
        crate::support::restarts(pod, "http") == 1
            && coracle_tests::node::condition(pod, "Ready") == Some("True")
    });
    assert_eq!(pod_ip(&again), answers);
    assert_eq!(ask(&asks, &path).body, "hello from wasm: /from-afar\n");

    let leases = || {
        let names = std::fs::read_dir(folder.join("leases/test")).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("10.")).count()
    };
    // That of the pod that has ended is free again.
    wait::until("two pods have addresses", soon(), || leases() == 2).unwrap();
    cluster.kubectl.run(&["delete", "pod", "asks", "answers", "client", "--wait"]).unwrap();
    wait::until("the addresses are free", soon(), || leases() == 0).unwrap();

    // A plugin that fails is quoted.
    let mut list: Value =
        serde_json::from_slice(&std::fs::read(folder.join("cni/10-test.conflist")).unwrap()).unwrap();
    list["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": "10.61.8.0/30", "rangeStart": "10.61.8.9" }]]);
    folder.write("cni/10-test.conflist", list.to_string()).unwrap();
    create(&cluster, "refused", &spec(&cluster, "Always", &json!([http_container("http")])));
    let message = until_event(&cluster, "refused", "FailedCreatePodSandBox");
    assert!(message.contains("plugin bridge (ADD): ") && message.contains("10.61.8.9"), "{message}");
}
