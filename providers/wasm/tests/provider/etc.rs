//! What guests have of the kubelet's: `/etc/hosts`, `/etc/resolv.conf`, and the file for their last words.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use coracle_provider::{ContainerConfig, DnsConfig, Mount, RuntimeService as _};

use crate::files::{GUESTS, mount};
use crate::support::{Host, guest, log, strings, unique};

/// As the kubelet makes them.
fn of_kubelet(host: &Host) -> Vec<Mount> {
    let file = |name: &str, content: &str, mode| {
        let path = host.file(name, content.as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    vec![
        Mount { read_only: true, ..mount(&file("etc-hosts", "192.0.2.1\tdb\n", 0o644), "/etc/hosts") },
        mount(&file("last-words", "", 0o666), "/dev/termination-log"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_leaves_its_last_words_whoever_it_is() {
    let host = Host::start().await;
    for module in GUESTS {
        for user in [None, Some(1234)] {
            let mounts = of_kubelet(&host);
            let run = async |args: &[&str]| {
                let adjust = |c: &mut ContainerConfig| {
                    (c.args, c.mounts) = (strings(args), mounts.clone());
                    c.linux.security.run_as_user = user;
                };
                host.run_to_end(&guest(module), adjust).await
            };
            let ended = run(&[
                "write",
                "/dev/termination-log",
                "first",
                "append",
                "/dev/termination-log",
                " and last",
            ]);
            let ended = ended.await;
            assert_eq!(ended.exit_code, 0, "{module} {user:?}: {:?}", log(&ended));
            assert_eq!(fs::read_to_string(&mounts[1].host_path).unwrap(), "first and last", "{module}");
            assert_eq!(ended.mounts, mounts, "its status says where they are");

            let ended = run(&["cat", "/etc/hosts"]).await;
            assert_eq!(
                (ended.exit_code, &log(&ended)[..]),
                (0, &strings(&["stdout F 192.0.2.1\tdb"])[..]),
                "{module}"
            );
            for args in
                [&["write", "/etc/hosts", "x"][..], &["rm", "/etc/hosts"], &["write", "/etc/new", "x"]]
            {
                assert_eq!(run(args).await.exit_code, 1, "{module} {user:?} {args:?}");
            }
            assert_eq!(fs::read_to_string(&mounts[0].host_path).unwrap(), "192.0.2.1\tdb\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resolv_conf_says_what_the_pod_asks() {
    let host = Host::start().await;
    let mut config = host.sandbox_config(&unique());
    config.dns = DnsConfig {
        servers: strings(&["192.0.2.10"]),
        searches: strings(&["ns.svc.cluster.local", "cluster.local"]),
        options: strings(&["ndots:5"]),
    };
    let sandbox = host.provider.run_sandbox(config).await.unwrap();
    let config = ContainerConfig {
        name: "c".into(),
        image_ref: host.pull(&guest("files")).await.unwrap(),
        args: strings(&["cat", "/etc/resolv.conf"]),
        log_path: "c/0.log".into(),
        ..ContainerConfig::default()
    };
    let container = host.provider.create_container(&sandbox.id, config).await.unwrap();
    host.provider.start_container(&container.id).await.unwrap();
    let expected = ["search ns.svc.cluster.local cluster.local", "nameserver 192.0.2.10", "options ndots:5"];
    let ended = host.end_of(&container).await;
    assert_eq!(log(&ended), expected.map(|line| format!("stdout F {line}")));
}
