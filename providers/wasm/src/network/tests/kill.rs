//! What is left of an agent that was killed.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::bed::{eventually, interfaces, listen, on_a_machine, pod_network, sandbox};

/// Tells the process that it is the agent to be killed.
const MARK: &str = "CORACLE_TEST_AGENT_TO_KILL";

#[test]
fn a_killed_agent_leaves_nothing_that_hinders_the_next() {
    on_a_machine(|| async {
        let (mut agent, pod) = start_agent();
        assert_eq!(interfaces().len(), 1);

        // The agent fills this connection, and nobody reads: the kernel keeps it, and with it the namespace.
        let connection = TcpStream::connect(pod).unwrap();
        connection.peek(&mut [0]).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(interfaces().len(), 1, "the case that this is about");

        let network = pod_network().await;
        assert_eq!(interfaces().len(), 1);
        network.keep("uid-web", &[pod.ip()]).unwrap();
        let again = network.attach_at_once(&sandbox("web")).unwrap();
        let listener = listen(&again, pod.port());
        TcpStream::connect(pod).unwrap();

        drop((network, again, listener, connection));
        eventually("the end of the interface", || interfaces().is_empty()).await;
    });
}

#[test]
fn the_kernel_cleans_up_after_a_killed_agent() {
    on_a_machine(|| async {
        let (mut agent, _) = start_agent();
        assert_eq!(interfaces().len(), 1);
        agent.kill().unwrap();
        agent.wait().unwrap();
        eventually("the end of the interface", || interfaces().is_empty()).await;
    });
}

/// Not a test: the agent that the others kill.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn agent() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let network = pod_network().await;
    let pod = network.attach_at_once(&sandbox("web")).unwrap();
    let listener = listen(&pod, 80);
    // The test runner has begun a line of its own.
    println!("\npod at {}", listener.local_addr().unwrap());
    loop {
        let Ok((mut connection, _)) = listener.accept() else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        connection.set_nonblocking(true).unwrap();
        while connection.write(&[0; 4096]).is_ok() {}
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}

/// Starts an agent in a process of its own on this machine: this program, told to run nothing but that. Returns where its
/// pod listens.
fn start_agent() -> (Child, SocketAddr) {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1", &format!("{module}::agent")])
        .env(MARK, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let pod = lines.find_map(|line| line.unwrap().strip_prefix("pod at ").map(str::to_owned)).unwrap();
    (agent, pod.parse().unwrap())
}
