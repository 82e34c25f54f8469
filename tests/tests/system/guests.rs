//! What other toolchains make, and guests that speak protocols of their own.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::Deadline;
use coracle_tests::{http, network, wait};
use serde_json::{Value, json};

use crate::support::{
    ask, container, create, output_of, pod_ip, soon, spec, status_of, until_phase, until_ready,
};

/// Compiling an interpreter of 18 MB takes half a minute of processor time, and has the lowest priority.
fn compiled() -> Deadline {
    Deadline::seconds(400)
}

fn ended(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
}

#[test]
fn commands_in_other_languages_run_as_pods() {
    let cluster = Cluster::new("languages").unwrap();
    cluster.kubectl.run(&["create", "configmap", "text", "--from-literal=poem=In Xanadu\n"]).unwrap();
    let languages = ["c", "go", "python"];
    let guest =
        |language: &str| if language == "python" { "python-command".into() } else { language.to_owned() };
    let pod = |name: &str, language: &str, args: &[&str]| {
        let mut main = container("main", &guest(language), args);
        main["env"] = json!([{ "name": "COLOUR", "value": "blue" }]);
        main["volumeMounts"] = json!([{ "name": "text", "mountPath": "/text" }]);
        let mut spec = spec(&cluster, "Never", &json!([main]));
        spec["volumes"] = json!([{ "name": "text", "configMap": { "name": "text" } }]);
        create(&cluster, name, &spec);
    };
    for language in languages {
        pod(language, language, &["one", "two words"]);
    }
    for language in languages {
        cluster.kubectl.until("pod", language, "it has ended", compiled(), ended).unwrap();
        let output = output_of(&cluster, language);
        assert_eq!(output, format!("hello from {language}\nblue\none\ntwo words\n"));
        let (reads, fails) = (format!("{language}-reads"), format!("{language}-fails"));
        pod(&reads, language, &["cat", "/text/poem"]);
        pod(&fails, language, &["exit", if language == "python" { "1" } else { "7" }]);
    }
    for language in languages {
        assert_eq!(output_of(&cluster, &format!("{language}-reads")), "In Xanadu\n");
        let failed = until_phase(&cluster, &format!("{language}-fails"), "Failed");
        let code = &status_of(&failed, "main")["state"]["terminated"]["exitCode"];
        assert_eq!(*code, if language == "python" { 1 } else { 7 }, "{language}");
    }
}

#[test]
fn services_in_other_languages_answer() {
    let cluster = Cluster::new("services").unwrap();
    let languages = ["javascript", "python"];
    for language in languages {
        let mut main = container("http", &format!("{language}-http"), &[]);
        main["ports"] = json!([{ "name": "http", "containerPort": 8080 }]);
        main["env"] = json!([{ "name": "COLOUR", "value": "blue" }]);
        create(&cluster, language, &spec(&cluster, "Always", &json!([main])));
    }
    let ips = languages.map(|language| {
        let ready = |pod: &Value| coracle_tests::node::condition(pod, "Ready") == Some("True");
        pod_ip(&cluster.kubectl.until("pod", language, "it is Ready", compiled(), ready).unwrap())
    });
    let large = "over and over ".repeat(20_000);
    for (language, ip) in languages.iter().zip(&ips) {
        assert_eq!(ask(ip, "/path").body, format!("hello from {language}: /path\n"));
        assert_eq!(http::post(&format!("http://{ip}:8080/echo"), &large).unwrap().body, large);
        assert_eq!(ask(ip, "/fail").status, 500);
        assert_eq!(ask(ip, "/after").status, 200);
        let log = || cluster.kubectl.run(&["logs", language]).unwrap_or_default();
        let is_there = || log().contains("/path\n") && log().contains("as the client wished");
        wait::until("requests and failures are in the log", soon(), is_there).unwrap();
    }
    let [javascript, python] = ips;
    assert_eq!(ask(&python, "/env/COLOUR").body, "blue");
    let through = ask(&javascript, &format!("/fetch/{python}:8080/from-another"));
    assert_eq!(through.body, "hello from python: /from-another\n");
}

#[test]
fn datagrams_go_to_a_pod_and_between_pods() {
    let cluster = Cluster::new("datagrams").unwrap();
    let server = container("main", "sockets", &["udp-echo", "0.0.0.0:7001"]);
    create(&cluster, "server", &spec(&cluster, "Always", &json!([server])));
    let ip = pod_ip(&until_ready(&cluster, "server"));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let echo = || {
        socket.send_to(b"from outside", (ip.as_str(), 7001))?;
        let mut answer = [0; 64];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok(answer[..length].to_vec())
    };
    assert_eq!(wait::eventually("it listens", soon(), echo).unwrap(), b"from outside");

    let call = container("main", "sockets", &["udp-call", "0.0.0.0:0", &format!("{ip}:7001"), "hello"]);
    create(&cluster, "client", &spec(&cluster, "Never", &json!([call])));
    assert_eq!(output_of(&cluster, "client"), format!("hello from {ip}:7001\n"));
}

#[test]
fn a_guest_asks_a_name_server_itself() {
    let cluster = Cluster::new("dns").unwrap();
    let address = Ipv4Addr::new(198, 51, 100, 77);
    let server = name_server(network::node_ip().unwrap(), address);
    let main = container("main", "dns", &[&server.to_string(), "host.example"]);
    create(&cluster, "asks", &spec(&cluster, "Never", &json!([main])));
    assert_eq!(output_of(&cluster, "asks"), format!("{address}\n"));
}

const HEADER: usize = 12;
const IS_ANSWER: u8 = 0x80;
const IS_CUT_OFF: u8 = 0x02;

/// A name server for one question: over UDP it answers that its answer is too long, and over TCP with this address.
fn name_server(ip: IpAddr, address: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let place = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(place).unwrap();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        let (length, client) = socket.recv_from(&mut message).unwrap();
        message[2] |= IS_ANSWER | IS_CUT_OFF;
        socket.send_to(&message[..length], client).unwrap();

        let (mut connection, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        connection.read_exact(&mut length).unwrap();
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        connection.read_exact(&mut message).unwrap();
        message[2] |= IS_ANSWER;
        message[7] = 1;
        // The name of the question again, type A, class IN, a minute, four bytes.
        let name = u16::try_from(HEADER).unwrap() | 0xc000;
        message.extend(name.to_be_bytes());
        message.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(address.octets());
        connection.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
        connection.write_all(&message).unwrap();
    });
    place
}
