//! `kubectl exec`, `attach` and `port-forward` with Linux containers, which the runtime serves itself.

use std::thread;

use coracle_tests::http;
use serde_json::json;

use crate::containers::Bed;
use crate::sessions::{TRANSPORTS, finish, forward, in_a_terminal, kubectl};
use crate::support::{until, until_ready};

#[test]
fn sessions_go_to_the_runtime() {
    let bed = Bed::new("container-sessions");
    let cluster = &bed.cluster;
    let serve = "mkdir -p /www && echo hello > /www/index.html && busybox httpd -f -p 8080 -h /www";
    bed.create("linux", serve, &json!({}));
    for websockets in TRANSPORTS {
        let main = json!([{ "name": "main", "image": bed.image, "args": ["cat"], "stdin": true, "stdinOnce": true }]);
        let more = json!({ "containers": main, "restartPolicy": "Never" });
        bed.create(echo(websockets), "", &more);
    }
    until_ready(cluster, "linux");
    let large: Vec<u8> = (0..3_000_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    for websockets in TRANSPORTS {
        let exec = |args: &[&str], input| finish(cluster, websockets, &[&["exec"], args].concat(), input);

        let done = exec(&["linux", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], None);
        assert_eq!((done.stdout.as_str(), done.code), ("out\n", Some(7)), "{done:?}");
        assert_eq!(done.stderr, "err\ncommand terminated with exit code 7\n");

        let done = exec(&["--stdin", "linux", "--", "cat"], Some(&large));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stdout.as_bytes() == large, "{} bytes of {}", done.stdout.len(), large.len());

        let done = exec(&["linux", "--", "/no-such-program"], None);
        assert!(done.code != Some(0) && done.stderr.contains("no-such-program"), "{done:?}");

        let terminal = ["exec", "-it", "linux", "--", "busybox", "tty"];
        let done = in_a_terminal(&kubectl(cluster, websockets, &terminal));
        assert!(done.stdout.contains("/dev/pts/"), "{done:?}");

        let name = echo(websockets);
        until_ready(cluster, name);
        let done = finish(cluster, websockets, &["attach", "--stdin", name], Some(b"hello\nworld\n"));
        assert!(done.stdout.ends_with("hello\nworld\n"), "{done:?}");
        until(cluster, name, "it ended with its input", |pod| pod["status"]["phase"] == "Succeeded");

        let (mut child, port) = forward(cluster, websockets, "pod/linux", "8080");
        let ask = move || http::get(&format!("http://127.0.0.1:{port}/")).unwrap().body;
        let clients: Vec<_> = (0..5).map(|_| thread::spawn(ask)).collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), "hello\n");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A pod that repeats what it is told, for one transport.
fn echo(websockets: bool) -> &'static str {
    if websockets { "echo-websocket" } else { "echo-spdy" }
}
