//! Every function of `wasi:sockets` that is replaced is in force, in both versions of WASI.
//!
//! A table of what guests are to see, and two proofs: they see it, and whatever replacement is missing, they see
//! something else. So a function that wasmtime renames or that a guest gets past cannot go unnoticed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_provider::HostAlias;

use super::super::PodNet;
use super::bed::{GuestRuntime, listen, on_a_machine, pod_network, sandbox, tell_peers};
use super::guests::{
    SOCKETS, replaced, run_sockets, run_sockets_p3, run_sockets_p3_without, run_sockets_without,
};

/// How long a guest may take that hears nothing because a replacement is missing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What guests of both versions are asked to do, and how what they print begins; a star stands for anything.
fn lines(ip: &str, other: SocketAddr, version: usize) -> Vec<(String, String)> {
    // The newer one binds nothing by itself, and is told so by a dash.
    let any = ["0.0.0.0:0", "-"][version];
    let error = |old: &str, new: &str| format!("error: {}", [old, new][version]);
    let mut lines = vec![
        ("bind 0.0.0.0:80".to_owned(), format!("{ip}:80")),
        ("bind 127.0.0.1:80".into(), "127.0.0.1:80".into()),
        (format!("connect {other}"), format!("{ip}:")),
        ("connect 169.254.169.254:80".into(), error("PermissionDenied", "ErrorCode::AccessDenied")),
        ("resolve db".into(), "192.0.2.99".into()),
        (format!("udp-call {any} 127.0.0.1:5000 hi"), "hi from 127.0.0.1:5000".into()),
        ("udp-call 127.0.0.1:0 127.0.0.1:5000 hi".into(), "hi from 127.0.0.1:5000".into()),
        (format!("udp-connect {any} 127.0.0.1:5000 hi"), format!("hi: {ip} -> 127.0.0.1")),
        ("udp-connect 127.0.0.1:0 127.0.0.1:5000 hi".into(), "hi: 127.0.0.1 -> 127.0.0.1".into()),
        (
            format!("udp-call {any} 169.254.169.254:53 x"),
            error("PermissionDenied", "ErrorCode::AccessDenied"),
        ),
        ("loopback 127.0.0.1:81 127.0.0.1".into(), "127.0.0.1:*-> 127.0.0.1:81, seen as 127.0.0.1:".into()),
    ];
    if version == 1 {
        // Only there can a socket listen that nobody has bound.
        lines.push(("bind -".into(), format!("{ip}:")));
    }
    lines
}

fn fits(printed: &str, expected: &str) -> bool {
    let mut parts = expected.split('*');
    let rest = parts.next().and_then(|first| printed.strip_prefix(first));
    parts.fold(rest, |rest, part| rest?.split_once(part).map(|(_, rest)| rest)).is_some()
}

async fn differs(
    guests: &GuestRuntime,
    run: impl Future<Output = wasmtime::Result<String>> + Send + 'static,
    expected: &str,
) -> bool {
    let run = async move { tokio::time::timeout(PATIENCE, run).await };
    !guests.run(run).await.is_ok_and(|printed| printed.is_ok_and(|printed| fits(&printed, expected)))
}

#[test]
fn all_replacements_are_in_force_and_none_can_be_missed() {
    on_a_machine(|| async {
        let network = pod_network().await;
        let guests = GuestRuntime::new(&network);
        let mut config = sandbox("web");
        config.host_aliases = vec![HostAlias { ip: [192, 0, 2, 99].into(), hostnames: vec!["db".into()] }];
        let pod = network.attach_at_once(&config).unwrap();
        let other = network.attach_at_once(&sandbox("other")).unwrap();
        tell_peers(listen(&other, 7000));
        let other = SocketAddr::new(other.ips()[0], 7000);
        let ip = pod.ips()[0].to_string();
        let served = guests.start(run_sockets(&SOCKETS, pod.clone(), "udp-echo 127.0.0.1:5000".into()));
        tokio::time::sleep(Duration::from_millis(300)).await;

        let mut unnoticed: Vec<String> = vec![];
        for (version, items) in replaced().into_iter().enumerate() {
            let lines = lines(&ip, other, version);
            for (arguments, expected) in &lines {
                let (pod, command) = (pod.clone(), arguments.clone());
                let printed = match version {
                    0 => guests.run(run_sockets(&SOCKETS, pod, command)).await,
                    _ => guests.run(run_sockets_p3(pod, command)).await,
                };
                let printed = printed.unwrap();
                assert!(fits(&printed, expected), "{arguments}: {printed}");
            }
            // Those of resources only note what has ended.
            let functions: Vec<_> = items.iter().filter(|item| !item.ends_with("-socket")).collect();
            assert!(functions.len() >= 11, "{functions:?}");
            for item in functions {
                if !is_missed(&guests, &pod, version, item, &lines).await {
                    unnoticed.push(item.clone());
                }
            }
        }
        served.abort();
        assert!(unnoticed.is_empty(), "nobody would miss {unnoticed:#?}");
    });
}

/// Whether a line shows that a replacement is missing.
async fn is_missed(
    guests: &GuestRuntime,
    pod: &Arc<PodNet>,
    version: usize,
    item: &str,
    lines: &[(String, String)],
) -> bool {
    for (arguments, expected) in lines {
        let (item, pod, command) = (item.to_owned(), pod.clone(), arguments.clone());
        let differs = match version {
            0 => {
                let run = async move { run_sockets_without(&item, pod, command).await };
                differs(guests, run, expected).await
            }
            _ => {
                let run = async move { run_sockets_p3_without(&item, pod, command).await };
                differs(guests, run, expected).await
            }
        };
        if differs {
            return true;
        }
    }
    false
}
