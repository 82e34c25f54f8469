//! A pod's address, from outside and from inside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use coracle_tests::cluster::Cluster;
use coracle_tests::wait;
use serde_json::json;

use crate::support::{
    ask, container, create, http_container, output_of, pod_ip, serve, soon, spec, until_phase, until_ready,
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
    assert_eq!(coracle_tests::http::get(&url).unwrap().body, "hello from wasm: /by-host\n");
}
